"""Any image to the network's square and the network's map back to the image's size."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinyseg.config import IGNORE
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Box:
    """Where the resized image lies in the padded square, in pixels, and its original size."""

    original: tuple[int, int]
    top: int
    left: int
    rows: int
    cols: int


def box_of(height: int, width: int, size: int, fit: str) -> Box:
    """The place of an image in the square: scaled until it fits (resize) or as it is (pad)."""
    if fit == "pad":
        rows, cols = height, width
        if max(rows, cols) > size:
            raise DataError(
                f"image of {height} x {width} pixels is larger than data.size={size} and "
                f"data.fit=pad keeps the scale; set data.size={-(-max(rows, cols) // 16) * 16} "
                "or data.fit=resize"
            )
    else:
        longest = max(height, width)
        rows = max(1, (2 * height * size + longest) // (2 * longest))
        cols = max(1, (2 * width * size + longest) // (2 * longest))
    return Box((height, width), (size - rows) // 2, (size - cols) // 2, rows, cols)


def fit_image(image_hwc: np.ndarray, size: int, fit: str) -> tuple[np.ndarray, Box]:
    """Scales (bilinear, anti-aliased) and pads an image to (size, size, C) of the same dtype.

    The padding mirrors the image: it adds no edge and no grey level that the image does not have,
    so that normalisation layers see the same statistics. Labels are ignored there.
    """
    box = box_of(image_hwc.shape[0], image_hwc.shape[1], size, fit)
    if (box.rows, box.cols) != box.original:
        image_hwc = _resize(image_hwc, box.rows, box.cols)
    return np.pad(image_hwc, [*_margins(box, size), (0, 0)], mode="symmetric"), box


def fit_label(label_hw: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Scales (nearest neighbour) and pads (255, ignored) a label to (size, size) uint8."""
    height, width = label_hw.shape
    box = box_of(height, width, size, fit)
    rows = (2 * np.arange(box.rows) + 1) * height // (2 * box.rows)
    cols = (2 * np.arange(box.cols) + 1) * width // (2 * box.cols)
    label_hw = label_hw[rows[:, None], cols]
    return np.pad(label_hw, _margins(box, size), constant_values=IGNORE)


def unfit(p_khw: np.ndarray, box: Box) -> np.ndarray:
    """Cuts the padding off (K, size, size) float32 and scales it back (bilinear) to (K, H, W)."""
    p_khw = p_khw[:, box.top : box.top + box.rows, box.left : box.left + box.cols]
    if (box.rows, box.cols) == box.original:
        return np.ascontiguousarray(p_khw)
    return np.stack([_resize_plane(p_hw, *box.original) for p_hw in p_khw])


def inside(square_hwc: np.ndarray, box: Box) -> np.ndarray:
    """The part of a square (S, S, ...) that is the image, a view."""
    return square_hwc[box.top : box.top + box.rows, box.left : box.left + box.cols]


def _margins(box: Box, size: int) -> list[tuple[int, int]]:
    return [
        (box.top, size - box.top - box.rows),
        (box.left, size - box.left - box.cols),
    ]


def _resize(image_hwc: np.ndarray, rows: int, cols: int) -> np.ndarray:
    planes = [_resize_plane(image_hwc[..., c], rows, cols) for c in range(image_hwc.shape[2])]
    return np.stack(planes, axis=2)


def _resize_plane(plane_hw: np.ndarray, rows: int, cols: int) -> np.ndarray:
    plane = Image.fromarray(np.ascontiguousarray(plane_hw))
    return np.asarray(plane.resize((cols, rows), Image.Resampling.BILINEAR))
