"""Random numbers and smooth random fields for the simulated images.

Only uniform numbers and elementwise arithmetic, so that every platform gives the same bytes.
"""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return one uniform number."""
    return low + (high - low) * float(rng.random())


def normal(rng: np.random.Generator, *shape: int) -> Field:
    """Return nearly normal numbers of mean 0 and std 1: the sum of four uniform ones."""
    total: Field = rng.random(shape) + rng.random(shape) + rng.random(shape) + rng.random(shape)
    return (total - 2) * 3**0.5


def grid(size: int) -> tuple[Field, Field]:
    """Return row and column of each pixel's center, (size, 1) and (1, size)."""
    centers: Field = np.arange(size, dtype=np.float64) + 0.5
    return centers[:, None], centers[None, :]


def smooth(rng: np.random.Generator, size: int, rows: int, cols: int = 0) -> Field:
    """Return a smooth field (size, size) in -1..1 with about `rows` x `cols` hills and hollows."""
    row, col = grid(size)
    return warped(rng, row / size, col / size, rows, cols or rows)


def warped(rng: np.random.Generator, row: Field, col: Field, rows: int, cols: int) -> Field:
    """Return such a field at given places; outside 0..1 it has the value of the edge."""
    coarse = 2 * rng.random((rows + 2, cols + 2)) - 1
    i, s = _cell(row * rows, rows)
    j, t = _cell(col * cols, cols)
    upper = coarse[i, j] * (1 - t) + coarse[i, j + 1] * t
    lower = coarse[i + 1, j] * (1 - t) + coarse[i + 1, j + 1] * t
    return upper * (1 - s) + lower * s


def _cell(place: Field, cells: int) -> tuple[NDArray[np.int64], Field]:
    place = np.clip(place, 0, cells)
    index = place.astype(np.int64)
    t = place - index
    return index, t * t * (3 - 2 * t)


def blur(field: Field, passes: int, *axes: int) -> Field:
    """Average 1-2-1 repeatedly along each axis: a std of sqrt(passes / 2) pixels."""
    for axis in axes:
        lines = np.moveaxis(field, axis, 0)
        for _ in range(passes):
            padded = np.concatenate([lines[:1], lines, lines[-1:]])
            lines = 0.25 * padded[:-2] + 0.5 * lines + 0.25 * padded[2:]
        field = np.moveaxis(lines, 0, axis)
    return field


def to_bytes(field: Field) -> NDArray[np.uint8]:
    """Round values in 0..255 to uint8."""
    return np.floor(np.clip(field, 0, 255) + 0.5).astype(np.uint8)
