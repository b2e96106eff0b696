"""What the pixels of a mask file stand for: values, whatever the palette, alpha or number type."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

COLOR = 1 << 24
"""Added to 0xRRGGBB: the mask value of a pixel that is not gray."""
LARGEST = 2**32 - 1
"""The largest number in a mask."""
GRAY_MODES = ("1", "L", "LA", "La")
_FAX = ("group3", "group4", "tiff_ccitt")
"""Compressions in which white is 0 by convention, so that the colors are meant as they look."""


class Mask(NamedTuple):
    """The values of a mask."""

    pixels: np.ndarray
    """(H, W) integers."""
    more_frames: bool = False
    palette: Mapping[int, int] = {}
    """Index -> color, as the value of a mask, of a file with a colored palette."""
    remark: str = ""
    """What had to be decided, see `remark_warnings`; empty: nothing."""


def is_color(value: int) -> bool:
    """Return whether a mask value stands for a color that is not gray."""
    return COLOR <= value < 2 * COLOR


def stored_number(number: int) -> int:
    """Return the mask value of a number: itself, or beyond all colors where it is so large."""
    return number if number < COLOR else number + COLOR


def note_storage(image: Image.Image, orientation: int) -> None:
    """Keep in `image.info` what is lost when the opened image is turned upright."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    image.info["stored"] = {
        "format": image.format,
        "white_is_zero": tags.get(262) == 0 and image.info.get("compression") not in _FAX,
        "unsigned": tags.get(339, (1,)) in (1, (1,)),
        "orientation": orientation,
    }


def mask_values(image: Image.Image, more_frames: bool) -> Mask:
    """Return the values of a mask that is open and upright.

    1. Palette files give the index (as in Pascal VOC), or the gray when the whole palette is gray
    and does not run backwards. 2. 1-bit files give 0 and 255. 3. Where TIFF says that white is 0
    the stored value counts, as in ImageJ. 4. Alpha is dropped, unless nothing else varies. 5. A
    pixel with three equal channels gives that value; a pixel of color gives COLOR + 0xRRGGBB, which
    label maps write as "#rrggbb". 6. Fractions from 0 to 1 become 0 to 255. ValueError for other
    fractions, negative and very large numbers.
    """
    stored = image.info.get("stored", {})
    if image.mode == "P":
        return _from_palette(image, stored.get("format"), more_frames)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values, remark = whole_numbers(np.asarray(image), bool(stored.get("unsigned")))
        return Mask(values, more_frames, remark=remark)
    if image.mode in GRAY_MODES:
        values = gray(image)
        if stored.get("white_is_zero"):
            return Mask(255 - values, more_frames, remark="stored")
    else:
        values = from_colors(color(image))
    if image.mode in ("LA", "RGBA", "PA") and (values == values[0, 0]).all():
        alpha = np.array(image.getchannel("A"))
        if (alpha != alpha[0, 0]).any():
            return Mask(alpha, more_frames, remark="alpha")
        values = values if alpha[0, 0] else alpha
    return Mask(values, more_frames)


def _from_palette(image: Image.Image, file_format: str | None, more_frames: bool) -> Mask:
    index = np.array(image)
    colors = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    if (colors == colors[:, :1]).all():
        grays = colors[:, 0]
        # GIF and BMP always have a palette, in any order; in others it is only for display
        backwards = len(grays) > 1 and grays[0] > grays[1] and (np.diff(grays) <= 0).all()
        if backwards and file_format not in ("GIF", "BMP"):
            return Mask(index, more_frames, remark="stored")
        return Mask(gray(image), more_frames)
    used = np.flatnonzero(np.bincount(index.ravel(), minlength=256)[: len(colors)])
    values = from_colors(colors[used][None].astype(np.uint8))[0]
    return Mask(index, more_frames, dict(zip(used.tolist(), values.tolist(), strict=True)))


def one_palette(masks: Sequence[Mask]) -> Sequence[Mask]:
    """Return masks with colors in place of indices, if an index has more than one color."""
    pairs = {pair for mask in masks for pair in mask.palette.items()}
    if len({index for index, _ in pairs}) == len(pairs):
        return masks
    return [_in_colors(mask) if mask.palette else mask for mask in masks]


def _in_colors(mask: Mask) -> Mask:
    lookup = np.zeros(max(mask.palette) + 1, np.int32)
    lookup[list(mask.palette)] = list(mask.palette.values())
    return mask._replace(pixels=lookup[mask.pixels], palette={})


def gray(image: Image.Image) -> np.ndarray:
    """Return an image of one of GRAY_MODES, or with a palette of grays, as (H, W) uint8."""
    return np.array(image if image.mode == "L" else image.convert("LA").getchannel(0))


def color(image: Image.Image) -> np.ndarray:
    """Return an image as (H, W, 3) uint8."""
    # Through RGBA because Pillow warns when it drops a palette's transparency.
    wanted = "RGB" if image.mode in ("RGB", "CMYK", "YCbCr", "LAB", "HSV") else "RGBA"
    return np.array(image if image.mode == wanted else image.convert(wanted))[..., :3]


def from_colors(rgb: np.ndarray) -> np.ndarray:
    """Return the values (H, W) of colors (H, W, 3) uint8: see `mask_values`, 5."""
    grays = (rgb == rgb[..., :1]).all(axis=2)
    if grays.all():
        return np.ascontiguousarray(rgb[..., 0])
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    code = COLOR + (red << 16) + (green << 8) + blue
    return np.where(grays, red, code).astype(np.int32)


def whole_numbers(values: np.ndarray, unsigned: bool = True) -> tuple[np.ndarray, str]:
    """Return integers as mask values, and the remark; see `mask_values`, 6."""
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())  # nan where any value is
        if low >= 0 and high <= 1 and (values != np.floor(values)).any():
            return np.rint(values * 255).astype(np.uint8), "fractions"
        if not (low >= 0 and high <= LARGEST and (values == np.floor(values)).all()):
            raise ValueError(_RULE)
    if values.dtype == np.int32 and unsigned:
        values = values.view(np.uint32)  # Pillow has no unsigned type
    if values.min() < 0 or values.max() > LARGEST:
        raise ValueError(_RULE)
    if values.max() < COLOR:
        return values.astype(np.int32), ""
    large = values.astype(np.int64)
    return np.where(large < COLOR, large, large + COLOR), ""


_RULE = (
    f"a mask needs whole values from 0 to {LARGEST}, or fractions from 0 to 1; save it with 8 bits"
)
