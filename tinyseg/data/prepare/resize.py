"""Any image to the network's square and the network's map back to the image's size."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinyseg.config import IGNORE
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Placement:
    """Where the resized image lies, in pixels of the square, and its original size.

    An image that reaches out of the square is seen in part: `top` or `left` may be negative.
    """

    original: tuple[int, int]
    top: int
    left: int
    rows: int
    cols: int


def place_image(height: int, width: int, size: int, fit: str) -> Placement:
    """The place of an image in the square: scaled until it fits (resize) or as it is (pad).

    Of `window` the one in the middle.
    """
    if fit in ("pad", "window"):
        rows, cols = height, width
        if fit == "pad" and max(rows, cols) > size:
            raise DataError(
                f"image of {height} x {width} pixels is larger than data.size={size} and "
                f"data.fit=pad keeps the scale; set data.size={-(-max(rows, cols) // 16) * 16} "
                "or data.fit=window"
            )
    else:
        longest = max(height, width)
        rows = max(1, (2 * height * size + longest) // (2 * longest))
        cols = max(1, (2 * width * size + longest) // (2 * longest))
    return Placement((height, width), (size - rows) // 2, (size - cols) // 2, rows, cols)


def place_tiles(height: int, width: int, size: int, fit: str, overlap: float) -> list[Placement]:
    """The places of an image in the squares that together show all of it, row by row.

    One, but for `window`: there neighbours share at least `overlap` of the side, evenly spread, so
    that the last one ends with the image.
    """
    if fit != "window":
        return [place_image(height, width, size, fit)]
    tops, lefts = (_places(length, size, overlap) for length in (height, width))
    return [Placement((height, width), top, left, height, width) for top in tops for left in lefts]


def _places(length: int, size: int, overlap: float) -> list[int]:
    over = length - size
    if over <= 0:
        return [-over // 2]
    steps = math.ceil(over / max(1, int(size * (1 - overlap))))
    return [-(step * over // steps) for step in range(steps + 1)]


def fit_image(image_hwc: np.ndarray, size: int, fit: str) -> tuple[np.ndarray, Placement]:
    """Scales (bilinear, anti-aliased) and pads an image to (size, size, C) of the same dtype.

    The padding mirrors the image: it adds no edge and no grey level that the image does not have,
    so that normalisation layers see the same statistics. Labels are ignored there.
    """
    box = place_image(image_hwc.shape[0], image_hwc.shape[1], size, fit)
    return cut_image(resize_image(image_hwc, box), box, size), box


def resize_image(image_hwc: np.ndarray, box: Placement) -> np.ndarray:
    """Scales an image (H, W, C) to the size that it has in the square."""
    return resize_planes(image_hwc.transpose(2, 0, 1), box.rows, box.cols).transpose(1, 2, 0)


def cut_image(image_hwc: np.ndarray, box: Placement, size: int) -> np.ndarray:
    """What the square shows of an image that has its size there (see `resize_image`)."""
    part = image_hwc[visible_part(box, size)]
    return np.pad(part, [*_margins(box, size), (0, 0)], mode="symmetric")


def fit_label(label_hw: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Scales (nearest neighbour) and pads (255, ignored) a label to (size, size) uint8."""
    height, width = label_hw.shape
    return cut_label(label_hw, place_image(height, width, size, fit), size)


def cut_label(label_hw: np.ndarray, box: Placement, size: int) -> np.ndarray:
    """What the square shows of a label of the original size; 255 where there is no image."""
    height, width = label_hw.shape
    rows = (2 * np.arange(box.rows)[_visible(box.top, size)] + 1) * height // (2 * box.rows)
    cols = (2 * np.arange(box.cols)[_visible(box.left, size)] + 1) * width // (2 * box.cols)
    return np.pad(label_hw[rows[:, None], cols], _margins(box, size), constant_values=IGNORE)


def restore_size(p_khw: np.ndarray, box: Placement) -> np.ndarray:
    """Cuts the padding off (K, size, size) float32 and scales it back (bilinear) to (K, H, W)."""
    p_khw = image_part(p_khw.transpose(1, 2, 0), box).transpose(2, 0, 1)
    return np.ascontiguousarray(resize_planes(p_khw, *box.original))


def image_part(square_hwc: np.ndarray, box: Placement) -> np.ndarray:
    """The part of a square (S, S, ...) that is the image, a view."""
    rows, cols = box.top + box.rows, box.left + box.cols
    return square_hwc[max(0, box.top) : rows, max(0, box.left) : cols]


def visible_part(box: Placement, size: int) -> tuple[slice, slice]:
    """The rows and columns of the scaled image that the square shows."""
    return _visible(box.top, size), _visible(box.left, size)


def _visible(start: int, size: int) -> slice:
    return slice(max(0, -start), size - start)


def _margins(box: Placement, size: int) -> list[tuple[int, int]]:
    ends = ((box.top, box.top + box.rows), (box.left, box.left + box.cols))
    return [(max(0, first), max(0, size - last)) for first, last in ends]


def resize_planes(planes_khw: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Scales planes (K, H, W), uint8 or float32, bilinear and anti-aliased, unless equal."""
    if planes_khw.shape[1:] == (rows, cols):
        return planes_khw
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in planes_khw)
    to = ((cols, rows), Image.Resampling.BILINEAR)
    return np.stack([np.asarray(plane.resize(*to)) for plane in planes])
