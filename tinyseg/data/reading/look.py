"""A glance at a file: whether it looks like a photograph or like a label, by its pixels."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

PIXELS = 1 << 16
"""About as many are looked at."""


@dataclass(frozen=True)
class Look:
    """What a glance tells."""

    is_label: bool
    values: int
    """Distinct values or colors."""
    size: tuple[int, int]
    """Rows and columns."""
    small: np.ndarray
    """(32, 32) bool: where the file differs from its most common value."""


def look(path: Path, most_pixels: int = 1 << 28) -> Look | None:
    """Look at a file; None if it cannot be opened or is too large to be glanced at."""
    if not path.is_file():  # a pipe would wait for somebody to write
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as picture:
                if picture.width * picture.height > most_pixels:
                    return None
                lossy, indexed = picture.format in ("JPEG", "WEBP"), picture.mode in ("P", "1")
                pixels = np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, MemoryError):
        return None
    return _judge(_as_numbers(pixels), lossy, indexed)


def _as_numbers(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W): gray values, or one number for each color; alpha is left out."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 2:
        return pixels[..., 0]
    numbers = pixels[..., :3].astype(np.int64)
    return np.asarray(numbers[..., 0] << 32 | numbers[..., 1] << 16 | numbers[..., 2])


def _judge(numbers: np.ndarray, lossy: bool, indexed: bool) -> Look:
    """Labels have few values, and beside a pixel of an object lies one of the same value."""
    rows, columns = numbers.shape
    step = max(1, rows * columns // PIXELS)
    some = numbers[:: min(step, max(1, rows // 64))]  # whole rows: neighbors stay neighbors
    values, counts = np.unique(some, return_counts=True)
    common = values[counts.argmax()]
    inside = some[:, 1:] != common
    same = some[:, 1:] == some[:, :-1]
    flat = same[inside].mean() if inside.any() else 1.0
    few = len(values) <= (4 if flat < 0.5 else 64)
    bimodal = lossy and _is_bimodal(some)
    is_label = bool(few or bimodal or (flat > 0.8 and len(values) < 4096))
    at = [np.linspace(0, side - 1, 32).astype(int) for side in numbers.shape]
    return Look(is_label, len(values), (rows, columns), numbers[np.ix_(*at)] != common)


def _is_bimodal(numbers: np.ndarray) -> bool:
    """Whether nearly all pixels lie near the darkest or the brightest value."""
    low, high = numbers.min(), numbers.max()
    margin = max(1, (int(high) - int(low)) // 16)
    near = (numbers <= low + margin) | (numbers >= high - margin)
    return bool(high > low and near.mean() > 0.97)
