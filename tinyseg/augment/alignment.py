"""Test that a pipeline moves image and label alike, whatever the pipeline does."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE

Pipeline = Callable[[Array, Array], tuple[Array, Array]]
"""From an image (H, W, C) and its label (H, W) to both, augmented."""
MARK = 100
"""The label of the bright squares: far from 0, so that a blend of the two is a new value."""
SQUARE = 16
"""Side of the squares, in pixels."""


@dataclass(frozen=True)
class Alignment:
    """What a pipeline did to a checkerboard that was image and label at once."""

    distance: float
    """The farthest that image and label are apart, in pixels."""
    new_values: tuple[int, ...]
    """Values in the label that it did not have before, except 255 (ignored)."""
    rounds: int

    @property
    def passed(self) -> bool:
        """Whether they agree to one pixel, and the label has no new value."""
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
    """Send checkerboards through a pipeline as image *and* label and compare the results.

    The squares of a board are dark or bright at random, so that no rotation or mirror image of it
    is like another. `levels` are the image's two values: integers for uint8, else float32. What is
    bright in the image must have the bright label, to one pixel; noise on single pixels is
    filtered out first, so that distances below one pixel are reported as 0.
    """
    rng = np.random.default_rng(0)
    dtype = np.uint8 if all(isinstance(level, int) for level in levels) else np.float32
    count, farthest, values = -(-size // SQUARE), 0.0, set[int]()
    for _ in range(rounds):
        board = np.kron(rng.random((count, count)) < 0.5, np.ones((SQUARE, SQUARE), bool))
        board = board[:size, :size]
        image = np.where(board, levels[1], levels[0]).astype(dtype)
        label = np.where(board, MARK, 0).astype(np.uint8)
        image, label = pipeline(np.repeat(image[..., None], channels, axis=2), label)
        values |= set(np.unique(label).tolist()) - {0, MARK, IGNORE}
        farthest = max(farthest, _distance(image.mean(axis=2), label, sum(levels) / 2))
    return Alignment(farthest, tuple(sorted(map(int, values))), rounds)


def _distance(image: Array, label: Array, middle: float) -> float:
    """Return how far a bright or dark pixel lies from the nearest label that agrees."""
    valid, marked = label != IGNORE, label >= MARK / 2
    # bright is above the middle between what is labeled dark and what is labeled bright
    sides = [image[valid & side] for side in (marked, ~marked)]
    if all(side.size for side in sides):
        middle = sum(float(np.median(side)) for side in sides) / 2
    bright = image > middle
    # noise on single pixels is no misalignment
    bright, marked = (ndimage.median_filter(m & valid, 5, mode="nearest") for m in (bright, marked))
    # at the edge a blur mixes in the border, and a square's last pixel may be in one of both only
    inner = ndimage.binary_erosion(valid, np.ones((9, 9)))
    distance = np.zeros(label.shape)
    for state in (True, False):
        wrong = inner & (bright == state) & (marked != state)
        if wrong.any():
            nearest = ndimage.distance_transform_cdt(marked != state, "chessboard")
            distance[wrong] = nearest[wrong] if (marked == state).any() else np.inf
    # nor are corners that a blur rounds: where an edge has moved, half an edge is too far
    parts, _ = ndimage.label(distance > 1, np.ones((3, 3)))
    small = np.bincount(parts.ravel()) < SQUARE // 2
    return float(np.where(small[parts], np.minimum(distance, 1), distance).max())
