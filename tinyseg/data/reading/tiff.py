"""TIFF files of which Pillow would drop bands, bits or axes: read by tifffile, an extra.

Axes that a file names itself (OME, ImageJ, bands) are channels; all other pages are frames.
"""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from PIL.ImageFile import ImageFile

from tinyseg.errors import DataError, missing_package

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_CHANNELS = 1024
"""More are a damaged file, or one whose pages are no channels."""
BYTES_LIMIT = 1 << 31
"""Most bytes of a decoded image."""
_ALPHA = (1, 2)
"""Values of ExtraSamples for a channel that is alpha."""


def beyond_pillow(image: ImageFile) -> bool:
    """Return whether Pillow would drop bands, bits or the channel axis of an opened TIFF."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    samples, bits = int(tags.get(277, 1)), max(tags.get(258, (1,)))
    formats = set(tags.get(339, (1,)))
    bands = samples - sum(extra in _ALPHA for extra in tags.get(338, ()))
    if described_channels(str(tags.get(270, ""))) > samples:
        return True
    if tags.get(262) in (5, 6, 8):  # CMYK, YCbCr, Lab
        return bool(bits > 8)
    signed_bytes = bits == 8 and formats != {1} and samples == 1 and formats != {4}
    return bands not in (1, 3) or (samples > 1 and bits > 8) or signed_bytes


def described_channels(description: str) -> int:
    """Return the number of channels that an OME or ImageJ description names, else 1."""
    pattern = r'SizeC="(\d{1,4})"' if "<OME" in description else r"channels=(\d{1,4})\s"
    known = "<OME" in description or description.startswith("ImageJ=")
    found = re.search(pattern, description) if known else None
    return int(found[1]) if found else 1


def read_tiff(path: Path, page: int | None, stacked: bool) -> tuple[np.ndarray, int]:
    """Return the channels (H, W, C) of a frame as stored, and the number of frames.

    With `stacked` all frames are channels of one image. DataError without tifffile, and for a
    file that is too large or has no rows and columns.
    """
    with _open(path) as file:
        series, axes, kept = _series(path, file)
        frames = _frames(series.shape, axes, kept)
        if page is not None and page >= len(frames):
            raise DataError(f"{path}: has {len(frames)} pages, none of number {page}")
        chosen = list(chain(*frames)) if stacked else frames[page or 0]
        _check_bytes(path, series, axes, kept, len(chosen))
        planes = [_plane(series, index, axes[-kept:]) for index in chosen]
        alpha = [number for number, e in enumerate(series.keyframe.extrasamples, 1) if e in _ALPHA]
    pixels = np.concatenate(planes, axis=2)
    if len(planes) == 1 and alpha:
        pixels = pixels[..., : pixels.shape[2] - len(alpha)]
    if pixels.shape[2] > MOST_CHANNELS:
        raise DataError(
            f"{path}: has {pixels.shape[2]} channels, more than {MOST_CHANNELS}; are its pages "
            "frames? set data.pages=first"
        )
    return pixels, 1 if stacked else len(frames)


def count_frames(path: Path) -> int:
    """Return the number of frames, each with all its channels."""
    with _open(path) as file:
        series, axes, kept = _series(path, file)
        return len(_frames(series.shape, axes, kept))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        import tifffile
    except ImportError:
        raise missing_package(f"{path}: this kind of TIFF", "tifffile", "tiff") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is damaged, we say ourselves
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    except tifffile.TiffFileError as error:
        raise ValueError(str(error)) from None


def _series(path: Path, file: Any) -> tuple[Any, str, int]:
    """Return the first series, its axes, and how many of them are those of a single page."""
    series = file.series[0]
    axes, kept = str(series.axes), len(series.keyframe.shape)
    if not {"Y", "X"} <= set(axes[-kept:]) or len(axes) != len(series.shape):
        raise DataError(f"{path}: its axes are {axes}, without rows and columns; convert it")
    if set(axes[-kept:]) - set("YXSC"):
        raise DataError(f"{path}: holds volumes (axes {axes}); save each slice as a page")
    return series, axes, kept


def _frames(shape: tuple[int, ...], axes: str, kept: int) -> list[list[int]]:
    """Return the pages of each frame, in the order of their channels."""
    outer, names = shape[:-kept], axes[:-kept]
    numbers = np.arange(math.prod(outer)).reshape(outer)
    if "C" in names:
        numbers = np.moveaxis(numbers, names.index("C"), -1)
        return [list(map(int, row)) for row in numbers.reshape(-1, numbers.shape[-1])]
    return [[int(number)] for number in numbers.ravel()]


def _check_bytes(path: Path, series: Any, axes: str, kept: int, planes: int) -> None:
    shape = series.shape[-kept:]
    size = math.prod(shape) * planes * np.dtype(series.dtype).itemsize
    longest = max(shape[axes[-kept:].index(axis)] for axis in "YX")
    if size > BYTES_LIMIT or longest > 65_535 or 0 in shape:
        raise DataError(
            f"{path}: {' x '.join(map(str, shape))} values in {planes} pages are more than "
            f"{BYTES_LIMIT >> 30} GiB, or a side is longer than 65535; cut it into tiles first"
        )


def _plane(series: Any, index: int, axes: str) -> np.ndarray:
    """Return a page as (H, W, channels)."""
    page = series.pages[index]
    if page is None:
        raise ValueError(f"its page {index + 1} is missing")
    pixels = np.asarray(page.asarray(maxworkers=1))
    order = [axes.index(axis) for axis in "YX"]
    rest = [place for place in range(len(axes)) if place not in order]
    return pixels.transpose(*order, *rest).reshape(*(pixels.shape[place] for place in order), -1)
