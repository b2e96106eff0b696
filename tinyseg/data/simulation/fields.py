"""Random numbers and smooth random fields for the simulated images.

Only uniform numbers and elementwise arithmetic, so that every platform gives the same bytes.
"""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """One uniform number."""
    return low + (high - low) * float(rng.random())


def normal(rng: np.random.Generator, *shape: int) -> Field:
    """Nearly normal numbers, mean 0 and deviation 1: the sum of four uniform ones."""
    total: Field = rng.random(shape) + rng.random(shape) + rng.random(shape) + rng.random(shape)
    return (total - 2) * 3**0.5


def grid(size: int) -> tuple[Field, Field]:
    """Row and column of each pixel's centre, (size, 1) and (1, size)."""
    centres: Field = np.arange(size, dtype=np.float64) + 0.5
    return centres[:, None], centres[None, :]


def smooth(rng: np.random.Generator, size: int, rows: int, cols: int = 0) -> Field:
    """A smooth field (size, size) in -1..1 with about `rows` x `cols` hills and hollows."""
    row, col = grid(size)
    return warped(rng, row / size, col / size, rows, cols or rows)


def warped(rng: np.random.Generator, row: Field, col: Field, rows: int, cols: int) -> Field:
    """The same field read at other places; rows and columns outside 0..1 take the rim's value."""
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


def blur(field: Field, passes: int, axis: int) -> Field:
    """Repeated 1-2-1 average along an axis: deviation sqrt(passes / 2) pixels."""
    for _ in range(passes):
        padded = np.pad(field, [(1, 1) if a == axis else (0, 0) for a in range(field.ndim)], "edge")
        low, high = np.split(padded, [1], axis)[1], np.split(padded, [-1], axis)[0]
        last, first = np.split(low, [1], axis)[1], np.split(high, [-1], axis)[0]
        field = 0.25 * first + 0.5 * field + 0.25 * last
    return field


def to_bytes(field: Field) -> NDArray[np.uint8]:
    """Rounds values in 0..255 to uint8."""
    return np.floor(np.clip(field, 0, 255) + 0.5).astype(np.uint8)
