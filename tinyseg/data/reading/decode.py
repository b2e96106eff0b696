"""Image files to arrays: the content decides the format, and every bad file is a DataError."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from tinyseg.data.reading.mask_pixels import (
    GRAY_MODES,
    Mask,
    color,
    gray,
    mask_values,
    note_storage,
)
from tinyseg.data.reading.png import check_png
from tinyseg.errors import DataError

Result = TypeVar("Result")

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP")
PIXEL_LIMIT = 178_956_970
"""Largest image, in pixels; also where Pillow itself refuses one as a decompression bomb."""
SIDE_LIMIT = 65_535
"""Longest side, in pixels: of longer ones a tiny file can take gigabytes."""
ORIENTATION = 0x0112
"""The EXIF tag that says how an image is turned."""

_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
"""Raw modes of 16-bit PNG files with color or alpha, of which Pillow keeps the high bytes, and
those by which it reads the low bytes: RGBA takes both bytes of gray, then both of alpha."""

# A damaged file makes Pillow raise any of these; Warning only where warnings are errors.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
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


class Decoded(NamedTuple):
    """Pixels of a page, and whether the file holds more, though no page was asked for."""

    pixels: np.ndarray
    more_frames: bool


def load_image(path: Path, channels: int | None, page: int | None = None) -> np.ndarray:
    """Read an image upright (EXIF applied) as (H, W, C): uint8, or float32 in [0, 1] from 16 bits.

    `channels` 1 or 3 converts; None keeps 1 where all channels are equal, else 3. Alpha is
    dropped. `page` is of a TIFF stack. DataError when the file cannot be used. Of 16-bit color
    files only PNG is read at full depth, others at 8 bits.
    """
    return to_channels(decode_image(path, page).pixels, channels)


def count_pages(path: Path) -> int:
    """Return the number of images in a TIFF stack."""
    return _guarded(path, lambda image: int(getattr(image, "n_frames", 1)))


def stored_mode(path: Path) -> str:
    """Return Pillow's name of how pixels are stored: "L", "RGBA", "I;16"; "P+A" has transparency.

    "16-bit RGB" is what Pillow calls RGB. DataError when the file cannot be used.
    """

    def mode(image: ImageFile) -> str:
        deep = "16-bit " * (_low_bytes(image) is not None)
        return deep + image.mode + "+A" * ("transparency" in image.info)

    return _guarded(path, mode)


def to_channels(image_hwc: np.ndarray, channels: int | None) -> np.ndarray:
    """Convert gray to RGB by repeating, RGB to gray by ITU-R 601 luma; None keeps the image."""
    if channels in (None, image_hwc.shape[2]):
        return image_hwc
    if channels == 3:
        return np.repeat(image_hwc, 3, axis=2)
    if image_hwc.dtype != np.uint8:
        return image_hwc @ np.array([[19595], [38470], [7471]], np.float32) / np.float32(65536)
    red, green, blue = (image_hwc[..., c].astype(np.uint32) for c in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    return luma.astype(np.uint8)[..., None]


def decode_image(path: Path, page: int | None = None) -> Decoded:
    """Read (H, W, 1) where gray, else (H, W, 3); see `load_image`."""
    deep = _deep_color(path)
    if deep is not None:
        return Decoded(_thin(deep), more_frames=False)
    image, more_frames = _open_upright(path, page)
    if _is_deep(image):
        return Decoded(_unit_range(np.asarray(image), path)[..., None], more_frames)
    if image.mode in GRAY_MODES:
        return Decoded(gray(image)[..., None], more_frames)
    return Decoded(_thin(color(image)), more_frames)


def decode_mask(path: Path, page: int | None = None) -> Mask:
    """Read the values of a mask as (H, W) integers; see `mask_values`."""
    image, more_frames = _open_upright(path, page)
    try:
        return mask_values(image, more_frames)
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


def _deep_color(path: Path) -> np.ndarray | None:
    """(H, W, 1 or 3) float32 in [0, 1] of a 16-bit PNG with color or alpha; None for others."""

    def planes(image: ImageFile) -> np.ndarray | None:
        raw_mode = _low_bytes(image)
        if raw_mode is None:
            return None
        _check_size(path, image)
        image.tile = [(*image.tile[0][:3], raw_mode)]  # type: ignore[list-item]
        low = np.asarray(ImageOps.exif_transpose(image))
        return low[..., 1:2] if raw_mode == "RGBA" else low[..., :3]

    low = _guarded(path, planes)
    if low is None:
        return None
    high = np.asarray(_open_upright(path, None)[0])[..., : low.shape[2]]
    unit: np.ndarray = high.astype(np.float32)
    unit *= 256
    unit += low
    unit /= 65535
    return unit


def _open_upright(path: Path, page: int | None) -> tuple[Image.Image, bool]:
    def upright(image: ImageFile) -> tuple[Image.Image, bool]:
        more_frames = image.format in ("TIFF", "GIF") and getattr(image, "is_animated", False)
        if page:
            image.seek(page)
        _check_size(path, image)
        if image.format == "PNG":
            check_png(path.read_bytes())
        note_storage(image, image.getexif().get(ORIENTATION, 1))
        image.load()
        return ImageOps.exif_transpose(image), bool(more_frames) and page is None

    return _guarded(path, upright)


def _guarded(path: Path, read: Callable[[ImageFile], Result]) -> Result:
    """Return what `read` does of an opened image; whatever a damaged file raises is a DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the path of an image")
    try:
        # From an open file: by name Pillow 13 maps a turned TIFF at the wrong width.
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            return read(image)
    except _BOMBS:
        raise _too_large(path) from None
    except MemoryError:
        raise DataError(
            f"{path}: there is not enough memory to decode it; cut it into tiles, or close other "
            "programs"
        ) from None
    except _DAMAGED as error:
        raise DataError(f"{path}: {_why(path, error)}") from None


def _check_size(path: Path, image: Image.Image) -> None:
    if min(image.size) < 1:
        raise DataError(f"{path}: the image has no pixels; replace or remove it")
    if image.width * image.height > PIXEL_LIMIT or max(image.size) > SIDE_LIMIT:
        raise _too_large(path)


def _too_large(path: Path) -> DataError:
    limit = PIXEL_LIMIT // 1_000_000
    return DataError(
        f"{path}: larger than {limit} million pixels, or a side longer than {SIDE_LIMIT}; "
        "cut it into tiles first"
    )


def _why(path: Path, error: BaseException) -> str:
    if path.stat().st_size == 0:
        return "the file is empty; replace or remove it"
    if isinstance(error, UnidentifiedImageError):
        return f"not an image that can be read ({', '.join(FORMATS)}); convert or remove it"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"damaged or truncated ({text}); replace or remove it"


def _unit_range(values: np.ndarray, path: Path) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    top = 1 if values.dtype.kind == "f" else 65535
    if not (low >= 0 and high <= top):
        raise DataError(
            f"{path}: pixel values from {low:g} to {high:g} are outside 0 to {top}; "
            "save it with 8 or 16 bits"
        )
    return (values.astype(np.float64) / top).astype(np.float32)
