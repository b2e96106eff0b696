"""Resize images and labels to the tiles that a network takes, and its output back again."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinyseg.config import IGNORE
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Placement:
    """Where a scaled image lies in a tile, in the tile's pixels.

    `top` or `left` is negative where the image is larger than the tile, which then shows a part.
    """

    original: tuple[int, int]
    """Height and width of the image before it was scaled."""
    top: int
    left: int
    rows: int
    """Height of the scaled image."""
    cols: int
    """Width of the scaled image."""


def place_image(height: int, width: int, size: int, fit: str) -> Placement:
    """Return the placement of an image in the middle of one tile of side `size`.

    `fit` is that of `data.fit`; only "resize" changes the scale. DataError when the image is
    larger than the tile and `fit` is "pad".
    """
    if fit == "resize":
        longest = max(height, width)
        rows = max(1, (2 * height * size + longest) // (2 * longest))
        cols = max(1, (2 * width * size + longest) // (2 * longest))
    else:
        rows, cols = height, width
        if fit == "pad" and max(rows, cols) > size:
            raise DataError(
                f"image of {height} x {width} pixels is larger than data.size={size} and "
                f"data.fit=pad keeps the scale; set data.size={-(-max(rows, cols) // 16) * 16} "
                "or data.fit=tile"
            )
    return Placement((height, width), (size - rows) // 2, (size - cols) // 2, rows, cols)


def place_tiles(height: int, width: int, size: int, fit: str, overlap: float) -> list[Placement]:
    """Return the placements of an image in the tiles that together show all of it, row by row.

    More than one only where `fit` tiles large images: then neighbors share at least `overlap` of
    their side, evenly spread, so that the last tile ends with the image.
    """
    if fit in ("resize", "pad"):
        return [place_image(height, width, size, fit)]
    tops, lefts = (_offsets(length, size, overlap) for length in (height, width))
    return [Placement((height, width), top, left, height, width) for top in tops for left in lefts]


def _offsets(length: int, size: int, overlap: float) -> list[int]:
    excess = length - size
    if excess <= 0:
        return [-excess // 2]
    steps = math.ceil(excess / max(1, int(size * (1 - overlap))))
    return [-(step * excess // steps) for step in range(steps + 1)]


def scale_image(image_hwc: np.ndarray, placement: Placement) -> np.ndarray:
    """Scale an image (H, W, C) to the size that it has in its tiles."""
    planes = resize_planes(image_hwc.transpose(2, 0, 1), placement.rows, placement.cols)
    return planes.transpose(1, 2, 0)


def image_tile(scaled_hwc: np.ndarray, placement: Placement, size: int) -> np.ndarray:
    """Return the tile (size, size, C) of an image that `scale_image` has scaled.

    What lies beyond the image mirrors it, which adds no edge and no gray level: normalization
    layers see the image's own statistics. Labels are ignored there.
    """
    part = scaled_hwc[visible_part(placement, size)]
    return np.pad(part, [*_margins(placement, size), (0, 0)], mode="symmetric")


def label_tile(label_hw: np.ndarray, placement: Placement, size: int) -> np.ndarray:
    """Return the tile (size, size) of a label of the original size, by nearest neighbor.

    255 (ignored) where there is no image.
    """
    height, width = label_hw.shape
    visible_rows, visible_cols = visible_part(placement, size)
    rows = (2 * np.arange(placement.rows)[visible_rows] + 1) * height // (2 * placement.rows)
    cols = (2 * np.arange(placement.cols)[visible_cols] + 1) * width // (2 * placement.cols)
    part = label_hw[rows[:, None], cols]
    return np.pad(part, _margins(placement, size), constant_values=IGNORE)


def prepare_label(label_hw: np.ndarray, size: int, fit: str) -> np.ndarray:
    """Return the tile (size, size) of a label that is placed as `place_image` places it."""
    height, width = label_hw.shape
    return label_tile(label_hw, place_image(height, width, size, fit), size)


def restore_size(p_khw: np.ndarray, placement: Placement) -> np.ndarray:
    """Crop the padding from (K, size, size) float32 and scale the rest to the original size."""
    p_khw = image_part(p_khw.transpose(1, 2, 0), placement).transpose(2, 0, 1)
    return np.ascontiguousarray(resize_planes(p_khw, *placement.original))


def image_part(tile_hwc: np.ndarray, placement: Placement) -> np.ndarray:
    """Return the part of a tile (S, S, ...) that the image covers, without a copy."""
    rows, cols = placement.top + placement.rows, placement.left + placement.cols
    return tile_hwc[max(0, placement.top) : rows, max(0, placement.left) : cols]


def visible_part(placement: Placement, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of the scaled image that its tile shows."""
    rows, cols = (slice(max(0, -first), size - first) for first in (placement.top, placement.left))
    return rows, cols


def _margins(placement: Placement, size: int) -> list[tuple[int, int]]:
    last_row, last_col = placement.top + placement.rows, placement.left + placement.cols
    ends = ((placement.top, last_row), (placement.left, last_col))
    return [(max(0, first), max(0, size - last)) for first, last in ends]


def resize_planes(planes_khw: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Scale planes (K, H, W), uint8 or float32, bilinearly with antialiasing."""
    if planes_khw.shape[1:] == (rows, cols):
        return planes_khw
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in planes_khw)
    bilinear = Image.Resampling.BILINEAR
    return np.stack([np.asarray(plane.resize((cols, rows), bilinear)) for plane in planes])
