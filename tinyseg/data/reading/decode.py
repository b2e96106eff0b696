"""Image files to arrays: the content decides the format, and every bad file is a DataError."""

import ctypes
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import IO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from tinyseg.data.reading.mask_pixels import (
    GRAY_MODES,
    Mask,
    color,
    from_colors,
    gray,
    mask_values,
    note_storage,
    whole_numbers,
)
from tinyseg.data.reading.medical import (
    NIFTI_HEADER,
    is_dicom,
    is_nifti,
    read_dicom,
    read_nifti,
)
from tinyseg.data.reading.pixel_range import Ranges, to_unit
from tinyseg.data.reading.png import check_png
from tinyseg.data.reading.tiff import MAGIC as TIFF_MAGIC
from tinyseg.data.reading.tiff import MOST_CHANNELS, beyond_pillow, count_frames, read_tiff
from tinyseg.errors import DataError

logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)  # tifffile may read it
Result = TypeVar("Result")

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
PIXEL_LIMIT = 178_956_970
"""Largest image, in pixels; also where Pillow itself refuses one as a decompression bomb."""
SIDE_LIMIT = 65_535
"""Longest side, in pixels: of longer ones a tiny file can take gigabytes."""
PNG = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 2**31
"""Memory that decoding one image may take, see `_BYTES`."""
MOST_PAGES = 4096
"""Of a TIFF stack: Pillow reads all pages before the one it opens."""
_BYTES = {"1": 6, "L": 3, "RGB": 10, "P": 13, "I;16": 16}
"""Bytes per pixel at the peak of decoding, measured, by Pillow's mode; 16 for others, 26 for 16-bit
color."""
ORIENTATION = 0x0112
"""The EXIF tag that says how an image is turned."""

_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""Raw modes of 16-bit PNG files with color or alpha, of which Pillow keeps the high bytes, and
those by which it reads the low bytes: RGBA takes both bytes of gray, then both of alpha."""

# A damaged file makes Pillow raise any of these; Warning only where warnings are errors.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AssertionError,
    AttributeError,
    ArithmeticError,
    LookupError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Warning,
)
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def _silence_libtiff() -> None:
    """Keep libtiff from writing to the terminal: what is damaged we say ourselves, by name."""
    with suppress(OSError, AttributeError):  # where Pillow has it inside, it cannot be reached
        library = ctypes.CDLL(Image.core.__file__)  # type: ignore[attr-defined]
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


_silence_libtiff()


class Decoded(NamedTuple):
    """Pixels of a page, and whether the file holds more, though no page was asked for."""

    pixels: np.ndarray
    more_frames: bool
    mode: str = ""
    """How an image is stored, in Pillow's words ("L", "RGBA", "I;16"), "P+A" with transparency,
    "16-bit RGB" for what Pillow calls RGB; "5 x uint16" where Pillow has no word."""
    orientation: int = 1
    """How EXIF turns the pixels as they are stored; 1: not at all."""


def load_image(
    path: Path,
    channels: int | None,
    page: int | None = None,
    stacked: bool = False,
    ranges: Ranges | None = None,
) -> np.ndarray:
    """Read an image upright (EXIF applied) as (H, W, C): uint8, or float32 in [0, 1].

    `channels` 1 or 3 converts gray and RGB; None keeps all, 1 where the three of RGB are equal.
    Alpha is dropped. `page` is of a TIFF stack; with `stacked` its pages are channels. `ranges`
    are those of a dataset; without, 16 bits are 0 to 65535 and floats 0 to 1. DataError when the
    file cannot be used.
    """
    pixels = decode_image(path, page, stacked).pixels
    try:
        return to_channels(to_unit(pixels, ranges), channels)
    except ValueError as error:
        raise DataError(f"{path}: {error}; save it with 8 or 16 bits") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def count_pages(path: Path) -> int:
    """Return the number of images in a TIFF stack; DataError for more than MOST_PAGES."""

    def count() -> int:
        with _opened(path) as image:
            if image is None or (image.format == "TIFF" and beyond_pillow(image)):
                is_tiff = _start(path).startswith(TIFF_MAGIC)
                return count_frames(path) if is_tiff else _read_other(path, None, False)[1]
            for page in range(1, MOST_PAGES + 1):
                try:
                    image.seek(page)
                except EOFError:
                    return page
            raise DataError(f"{path}: more than {MOST_PAGES} pages; split it into several files")

    return _guarded(path, count)


def to_channels(image_hwc: np.ndarray, channels: int | None) -> np.ndarray:
    """Convert gray to RGB by repeating, RGB to gray by ITU-R 601 luma; None keeps the image.

    DataError for other numbers of channels.
    """
    own = image_hwc.shape[2]
    if channels in (None, own):
        return image_hwc
    if not {own, channels} <= {1, 3}:
        raise DataError(f"the image has {own} channels, but {channels} are needed; give others")
    if channels == 3:
        return np.repeat(image_hwc, 3, axis=2)
    if image_hwc.dtype != np.uint8:
        return image_hwc @ np.array([[19595], [38470], [7471]], np.float32) / np.float32(65536)
    red, green, blue = (image_hwc[..., c].astype(np.uint32) for c in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return luma.astype(np.uint8)[..., None]


def decode_image(path: Path, page: int | None = None, stacked: bool = False) -> Decoded:
    """Read all channels (H, W, C) as stored: uint8, uint16, int32 or float32; see `load_image`.

    One channel where the file is gray or three channels are equal. With `stacked` the pages of a
    TIFF are channels.
    """

    def read() -> Decoded:
        with _opened(path) as image:
            if image is None or (image.format == "TIFF" and beyond_pillow(image)):
                return _decode_other(path, page, stacked)
            _check_size(path, image)
            mode, pages = _mode(image), int(getattr(image, "n_frames", 1))
            if raw_mode := _low_bytes(image):
                return Decoded(_thin(_deep_color(path, image, raw_mode)), False, mode)
            if stacked and image.format == "TIFF" and pages > 1:
                return Decoded(_stack(path, image, pages), False, mode)
            more = image.format in ("TIFF", "GIF") and pages > 1 and page is None
            upright = _upright(path, image, page)
            return Decoded(_pixels(upright), more, mode, upright.info["stored"]["orientation"])

    decoded = _guarded(path, read)
    if decoded.pixels.dtype.kind == "f" and not np.isfinite(decoded.pixels).all():
        raise DataError(
            f"{path}: has pixels that are NaN or infinite (outside 0 to 1 and any other range); "
            "replace them, e.g. numpy.nan_to_num"
        )
    return decoded


def _decode_other(path: Path, page: int | None, stacked: bool) -> Decoded:
    pixels, frames = _read_other(path, page, stacked)
    mode = f"{pixels.shape[2]} x {pixels.dtype}"
    pixels = plain_type(pixels)
    more = frames > 1 and page is None
    return Decoded(_thin(pixels) if pixels.shape[2] == 3 else pixels, more, mode)


def _read_other(path: Path, page: int | None, stacked: bool) -> tuple[np.ndarray, int]:
    """Return what Pillow cannot read, as stored (H, W, C), and the number of frames."""
    start = _start(path)
    if is_dicom(start):
        return read_dicom(path, page)
    if is_nifti(path, start):
        return read_nifti(path), 1
    return read_tiff(path, page, stacked)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(NIFTI_HEADER)


def plain_type(pixels: np.ndarray) -> np.ndarray:
    """Return bool as 0 and 255, and every other type as one of uint8, uint16, int32, float32.

    ValueError for what is no number.
    """
    if pixels.dtype == bool:
        return pixels * np.uint8(255)
    if pixels.dtype.kind not in "uif":
        raise ValueError(f"its pixels are {pixels.dtype}")
    for kind in (np.uint8, np.uint16, np.int32):
        if np.can_cast(pixels.dtype, kind):
            return np.ascontiguousarray(pixels, kind)
    return np.ascontiguousarray(pixels, np.float32)


def _stack(path: Path, image: ImageFile, pages: int) -> np.ndarray:
    """Return the pages of a TIFF as channels of one image."""
    if pages > MOST_CHANNELS or pages * image.width * image.height > PIXEL_LIMIT * 4:
        raise DataError(f"{path}: {pages} pages are too many for channels; set data.pages=first")
    planes = [_pixels(_upright(path, image, number)) for number in range(pages)]
    if len({plane.shape[:2] for plane in planes}) > 1:
        raise DataError(f"{path}: its pages have several sizes; set data.pages=first")
    return np.concatenate(planes, axis=2)


def _pixels(image: Image.Image) -> np.ndarray:
    """Return (H, W, 1) where an upright image is gray, else (H, W, 3)."""
    if _is_deep(image):
        return plain_type(np.asarray(image))[..., None]
    if image.mode in GRAY_MODES:
        return gray(image)[..., None]
    return _thin(color(image))


def decode_mask(path: Path, page: int | None = None) -> Mask:
    """Read the values of a mask as (H, W) integers; see `mask_values`."""

    def read() -> tuple[Image.Image, bool] | Decoded:
        with _opened(path) as image:
            if image is None:
                return _decode_other(path, page, stacked=False)
            more_frames = image.format in ("TIFF", "GIF") and getattr(image, "is_animated", False)
            return _upright(path, image, page), bool(more_frames) and page is None

    opened = _guarded(path, read)
    try:
        if not isinstance(opened, Decoded):
            return mask_values(*opened)
        if opened.pixels.shape[2] == 3 and opened.pixels.dtype == np.uint8:
            return Mask(from_colors(opened.pixels), opened.more_frames)
        if opened.pixels.shape[2] != 1:
            raise ValueError(f"a mask has 1 channel, this file {opened.pixels.shape[2]}")
        values, remark = whole_numbers(opened.pixels[..., 0])
        return Mask(values, opened.more_frames, remark=remark)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _thin(pixels: np.ndarray) -> np.ndarray:
    """One channel where all are equal."""
    gray = bool((pixels == pixels[..., :1]).all())
    return np.ascontiguousarray(pixels[..., :1] if gray else pixels)


def _low_bytes(image: ImageFile) -> str | None:
    """The raw mode of the low bytes of a 16-bit PNG with color or alpha; None for others."""
    return _LOW_BYTES.get(str(image.tile[0][3])) if image.format == "PNG" and image.tile else None


def _mode(image: ImageFile) -> str:
    deep = "16-bit " * (_low_bytes(image) is not None)
    return deep + image.mode + "+A" * ("transparency" in image.info)


def _deep_color(path: Path, image: ImageFile, raw_mode: str) -> np.ndarray:
    """Return (H, W, 1 or 3) uint16 of an opened 16-bit PNG with color or alpha."""
    image.tile = [(*image.tile[0][:3], raw_mode)]  # type: ignore[list-item]
    low = np.asarray(ImageOps.exif_transpose(image))
    low = low[..., 1:2] if raw_mode == "RGBA" else low[..., :3]
    with _opened(path) as again:
        assert again is not None
        high = np.asarray(_upright(path, again, None))[..., : low.shape[2]]
    deep: np.ndarray = (high.astype(np.uint16) << 8) | low
    return deep


def _upright(path: Path, image: ImageFile, page: int | None) -> Image.Image:
    if page:
        image.seek(page)
    _check_size(path, image)
    note_storage(image, image.getexif().get(ORIENTATION, 1))
    image.load()
    return ImageOps.exif_transpose(image)


@contextmanager
def _opened(path: Path) -> Iterator[ImageFile | None]:
    """Open an image, a PNG from memory once it proves whole; None if another package reads it."""
    with path.open("rb") as file:  # by name Pillow 13 maps a turned TIFF at the wrong width
        source: IO[bytes] = file
        start = file.read(NIFTI_HEADER)
        file.seek(0)
        if is_dicom(start) or is_nifti(path, start):
            yield None
            return
        if start.startswith(PNG):
            content = file.read()
            source = BytesIO(content)
        try:
            image = Image.open(source, formats=FORMATS)
        except UnidentifiedImageError:
            if not start.startswith(TIFF_MAGIC):
                raise
            yield None
            return
        with image:
            if start.startswith(PNG):
                _check_size(path, image)
                check_png(content)
            yield image


def _guarded(path: Path, read: Callable[[], Result]) -> Result:
    """Return what `read` does; whatever a damaged file makes it raise is a DataError."""
    if not os.path.lexists(path):
        raise DataError(f"{path}: no such file; give the path of an image")
    if not path.is_file():
        raise DataError(
            f"{path}: not a file (a broken link, a folder, a pipe or a device); remove it"
        )
    try:
        return read()
    except _BOMBS:
        raise _too_large(path) from None
    except MemoryError:
        raise DataError(
            f"{path}: there is not enough memory to decode it; cut it into tiles, or close other "
            "programs"
        ) from None
    except DAMAGED as error:
        raise DataError(f"{path}: {_why(path, error)}") from None


def _check_size(path: Path, image: ImageFile) -> None:
    if min(image.size) < 1:
        raise DataError(f"{path}: the image has no pixels; replace or remove it")
    pixels = image.width * image.height
    taken = pixels * (26 if _low_bytes(image) else _BYTES.get(image.mode, 16))
    if pixels > PIXEL_LIMIT or max(image.size) > SIDE_LIMIT or taken > MOST_BYTES:
        raise _too_large(path)


def _too_large(path: Path) -> DataError:
    limit = PIXEL_LIMIT // 1_000_000
    return DataError(
        f"{path}: larger than {limit} million pixels, a side longer than {SIDE_LIMIT}, or more "
        f"than {MOST_BYTES >> 30} GiB when decoded; cut it into tiles first"
    )


def _why(path: Path, error: BaseException) -> str:
    if path.stat().st_size == 0:
        return "the file is empty; replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image that can be read ({', '.join(FORMATS)}); convert or remove it"
    text = shorten(str(error), 200, placeholder=" ...") or type(error).__name__
    if "imagecodecs" in text:
        return f'its compression needs imagecodecs ({text}): pip install "tinyseg[tiff]"'
    if "missing dependencies" in text:
        return f"its compression needs one more package ({text}): pip install pylibjpeg[all]"
    return f"damaged or truncated ({text}); replace or remove it"
