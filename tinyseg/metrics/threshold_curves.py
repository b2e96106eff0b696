"""What every threshold would give, from one pass: histograms of the scores and what follows.

A score is the probability of a class against the rest: the foreground of a one-channel head, each
class from 1 up of a softmax head. It falls into one of BINS = 1024 equal bins. Their inner edges
k/1024 are the thresholds, and the bins are exact: k/1024 and p * 1024 are without rounding in
float32, so `p >= k/1024` (what `predict` asks) and `bin of p >= k` always agree.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.config import IGNORE

Map = NDArray[Any]
Floats = NDArray[np.float64]
Counts = NDArray[Any]

BINS = 1024
EDGES = np.arange(1, BINS) / BINS
"""The thresholds, (1023,)."""
HALF = 0.5
"""The threshold where none was found."""
MOST_BYTES = 64 * 2**20
"""Of histograms that are kept image by image."""
COARSE = 16
"""Within a resample every sixteenth threshold is tried: curves of Dice are flat over 1/64."""


class Histograms:
    """Counts of pixels by class, label and score, image after image."""

    def __init__(self) -> None:
        self._rows: list[Counts] = []
        self.images = 0

    def add(self, p_khw: Map, label_hw: Map) -> Counts:
        """Counts one image: probabilities (K, H, W) float32 in [0, 1], label (H, W) class ids.

        Returns the image's own counts (classes, 2, BINS). Above MOST_BYTES (8192 images of one
        foreground class) images share rows in turn.
        """
        first = min(1, len(p_khw) - 1)  # a softmax head's background is no class to find
        found = np.stack([_count(p, label_hw, k) for k, p in enumerate(p_khw[first:], start=1)])
        if (len(self._rows) + 1) * found.nbytes <= MOST_BYTES:
            self._rows.append(found)
        else:
            shared = self.images % len(self._rows)
            self._rows[shared] = self._rows[shared] + found
        self.images += 1
        return found

    @property
    def counts(self) -> Counts:
        """Pixels (images, classes, 2, BINS) by label (rest, class) and bin of the score."""
        return np.stack(self._rows)

    @property
    def pooled(self) -> Counts:
        """The sum over images, (classes, 2, BINS) int64."""
        return np.asarray(self.counts.sum(0, dtype=np.int64))


def _count(p_hw: Map, label_hw: Map, kind: int) -> Counts:
    """(2, BINS) uint32; unsigned short codes, as the pass must cost next to nothing."""
    width = BINS + 1  # p = 1 has a bin of its own: to clip the codes takes as long as to make them
    codes = (p_hw * np.float32(BINS)).astype(np.uint16)
    side = (label_hw == kind).view(np.uint8) + 2 * (label_hw == IGNORE).view(np.uint8)
    codes += side * np.uint16(width)
    counted = np.bincount(codes.ravel(), minlength=3 * width).reshape(3, width)[:2]
    counted[:, BINS - 1] += counted[:, BINS]
    return counted[:, :BINS].astype(np.uint32)


# 1. Curves over the thresholds


@dataclass(frozen=True)
class Outcomes:
    """Pixels at every threshold; all arrays end in the thresholds (..., T)."""

    hit: Counts
    false: Counts
    missed: Counts

    def measures(self) -> dict[str, Floats]:
        """dice, iou, precision and recall at every threshold, nan where they would be 0/0."""
        hit, false, missed = self.hit, self.false, self.missed
        return {
            "dice": ratio(2 * hit, 2 * hit + false + missed),
            "iou": ratio(hit, hit + false + missed),
            "precision": ratio(hit, hit + false),
            "recall": ratio(hit, hit + missed),
        }


def outcomes(counts: Counts) -> Outcomes:
    """Outcomes at EDGES of histograms (..., 2, BINS)."""
    above = np.cumsum(counts[..., ::-1], axis=-1, dtype=np.int64)[..., -2::-1]
    false, hit = above[..., 0, :], above[..., 1, :]
    return Outcomes(hit, false, counts[..., 1, :].sum(-1, dtype=np.int64)[..., None] - hit)


def image_measures(counts: Counts) -> dict[str, Floats]:
    """Mean over images of the measures at every threshold, of histograms (images, 2, BINS).

    Dice and IoU over the images whose label has the class, as in `metrics.Summary`; precision and
    recall over those in which they exist.
    """
    found, present = outcomes(counts).measures(), counts[:, 1].sum(1, keepdims=True) > 0
    for name in ("dice", "iou"):
        found[name] = np.where(present, found[name], np.nan)
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: Floats) -> Floats:
    """Over the first axis, of what is not nan; nan where nothing is left."""
    there = ~np.isnan(values)
    return ratio(np.where(there, values, 0).sum(0), there.sum(0))


def best_edge(dice: Floats) -> Counts:
    """Index of the best threshold of each curve (..., T): the middle of its first flat maximum.

    It is flat where no pixel's score lies between the thresholds: they decide alike on these
    images, and the middle keeps the largest distance to the scores on both sides.
    """
    best, index = dice == dice.max(-1, keepdims=True), np.arange(dice.shape[-1])
    first = best.argmax(-1)
    after = ~best & (index > first[..., None])
    end = np.where(after.any(-1), after.argmax(-1), dice.shape[-1])
    return np.asarray((first + end - 1) // 2)


def ratio(part: Map, whole: Map) -> Floats:
    """part / whole, nan where the whole is 0."""
    empty: Floats = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=empty, where=whole > 0)


# 2. Numbers that no threshold changes


def average_precision(counts: Counts) -> float:
    """Sum over descending scores of precision times the gain in recall, of counts (2, BINS).

    Pixels of one bin are tied, so it equals scikit-learn's on scores rounded down to the bin.
    """
    false, hit = np.cumsum(counts[:, ::-1], axis=1, dtype=np.int64)
    precision, recall = ratio(hit, hit + false), ratio(hit, hit[-1:])
    return float(np.nansum(precision * np.diff(recall, prepend=0.0))) if hit[-1] else np.nan


def roc_auc(counts: Counts) -> tuple[float, float]:
    """Probability that a foreground pixel scores above another one, ties half; and its error.

    Mann and Whitney's statistic on scores rounded to bins (2, BINS). Only pairs within a bin are
    not told apart, so the exact area differs by at most the second number.
    """
    rest, found = counts.astype(np.float64)
    pairs = float(rest.sum() * found.sum())
    if not pairs:
        return np.nan, np.nan
    tied = float(rest @ found) / pairs
    below = float((np.cumsum(rest) - rest) @ found) / pairs
    return below + tied / 2, tied / 2
