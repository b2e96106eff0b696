"""The proof that a pipeline moves image and label alike, for any pipeline."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from tinyseg.config import IGNORE

Array = np.ndarray[Any, np.dtype[Any]]
Pipeline = Callable[[Array, Array], tuple[Array, Array]]
"""An image (H, W, C) and a label (H, W) to both, augmented."""

MARK = 100
"""The label of the bright squares: far from 0, so that a blend of the two is a new value."""

SQUARE = 16
"""Side of the squares, in pixels."""


@dataclass(frozen=True)
class Alignment:
    """What a pipeline did to a checkerboard that was image and label at once."""

    distance: float
    """The farthest that image and label disagree, in pixels."""
    new_values: tuple[int, ...]
    """Values in the label that were neither there before nor mean ignored."""
    rounds: int

    @property
    def passed(self) -> bool:
        """Whether they agree to one pixel, and the label has no value of its own."""
        return self.distance <= 1 and not self.new_values

    def __str__(self) -> str:
        values = f", new label values {list(self.new_values)}" if self.new_values else ""
        verdict = "aligned" if self.passed else "NOT aligned"
        return f"{verdict}: at most {self.distance:g} pixels apart in {self.rounds} rounds{values}"


def alignment(
    pipeline: Pipeline,
    size: int = 128,
    channels: int = 1,
    rounds: int = 16,
    levels: tuple[float, float] = (0, 255),
) -> Alignment:
    """Sends checkerboards through a pipeline as image *and* label and compares what comes back.

    The squares of the board are dark or bright at random, so that no turn or mirror image of it is
    like another. `levels` are the image's values, in whole numbers for uint8, else float32. What
    is bright in the image must have the bright label, to one pixel; noise on single pixels is
    smoothed away first, so distances below one pixel are told as 0.
    """
    rng = np.random.default_rng(0)
    kind = np.uint8 if all(isinstance(level, int) for level in levels) else np.float32
    farthest, values = 0.0, set[int]()
    for _ in range(rounds):
        board = _board(rng, size)
        image = np.where(board, levels[1], levels[0]).astype(kind)
        given = np.where(board, MARK, 0).astype(np.uint8)
        image, label = pipeline(np.repeat(image[..., None], channels, axis=2), given)
        values |= set(np.unique(label).tolist()) - {0, MARK, IGNORE}
        farthest = max(farthest, _apart(image.mean(axis=2), label, sum(levels) / 2))
    return Alignment(farthest, tuple(sorted(map(int, values))), rounds)


def _board(rng: np.random.Generator, size: int) -> Array:
    """Squares that are dark or bright at random."""
    count = -(-size // SQUARE)
    squares = rng.random((count, count)) < 0.5
    return squares.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)[:size, :size]


def _apart(image: Array, label: Array, middle: float) -> float:
    """How far a pixel's brightness lies from the nearest label that says the same."""
    valid = label != IGNORE
    marked = label >= MARK / 2
    bright = _split(image, valid, marked, middle)
    # noise on single pixels is no misalignment
    bright, marked = (ndimage.median_filter(m & valid, 5, mode="nearest") for m in (bright, marked))
    # at the rim a blur mixes in the border, and a square's last pixel may be in one of both only
    inner = ndimage.binary_erosion(valid, np.ones((9, 9)))
    away = np.zeros(label.shape)
    for state in (True, False):
        here = inner & (bright == state) & (marked != state)
        if here.any():
            same = ndimage.distance_transform_cdt(marked != state, "chessboard")
            away[here] = same[here] if (marked == state).any() else np.inf
    # nor are corners that a blur rounds: where an edge has moved, half an edge lies too far
    parts, _ = ndimage.label(away > 1, np.ones((3, 3)))
    small = np.bincount(parts.ravel()) < SQUARE // 2
    return float(np.where(small[parts], np.minimum(away, 1), away).max())


def _split(image: Array, valid: Array, marked: Array, middle: float) -> Array:
    """Dark or bright: halfway between what is labelled dark and what is labelled bright."""
    sides = [image[valid & side] for side in (marked, ~marked)]
    if all(side.size for side in sides):
        middle = sum(float(np.median(side)) for side in sides) / 2
    return np.asarray(image > middle)
