"""What every threshold would give, from one pass: histograms of the scores and what follows.

A score is the probability of a class against the rest: the foreground of a one-channel head, each
class from 1 up of a softmax head. It falls into one of BINS = 1024 equal bins. Their inner edges
k/1024 are the thresholds, and the bins are exact: k/1024 and p * 1024 are without rounding in
float32, so `p >= k/1024` (what `predict` asks) and `bin of p >= k` always agree.

A sure network has nearly all its scores in the first and the last bin, as 1e-6 and 1e-9. Numbers
that depend on the order of scores alone are therefore of finer counts, in which these two bins are
split by the distance to 0 or 1: eight bins for each power of two, down to the smallest float32.
"""

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.metrics.pixel import Counts, Floats, Map, Outcomes, mean, ratio

BINS = 1024
EDGES = np.arange(1, BINS) / BINS
"""The thresholds, (1023,)."""
HALF = 0.5
"""The threshold where none was found."""
MOST_BYTES = 64 * 2**20
"""Of histograms that are kept image by image."""
END_SHIFT = 20
"""Bits of a float32 that are dropped: eight bins for each power of two."""
END_BINS, ALL_BINS = (int(np.float32(d).view(np.uint32) >> END_SHIFT) for d in (1 / BINS, 2))
"""Of the distances below 1/1024, and below 2."""
PIECE = 65536
"""Pixels that are counted at once."""
COARSE = 16
"""Within a resample every sixteenth threshold is tried: curves of Dice are flat over 1/64."""


class Histograms:
    """Counts of pixels by class, label and score, image after image."""

    def __init__(self) -> None:
        self._rows: list[Counts] = []
        self._ends: Counts = np.zeros((), np.int64)
        self.images = 0

    def add(self, p_khw: Map, label_hw: Map) -> Counts:
        """Counts one image: probabilities (K, H, W) float32 in [0, 1], label (H, W) class ids.

        Returns the image's own counts (classes, 2, BINS). Above MOST_BYTES (8192 images of one
        foreground class) images share rows in turn.
        """
        first = min(1, len(p_khw) - 1)  # a softmax head's background is no class to find
        pairs = [_count(p, label_hw, k) for k, p in enumerate(p_khw[first:], start=1)]
        counts = np.stack([counts for counts, _ in pairs])
        self._ends = self._ends + np.stack([ends for _, ends in pairs])
        if (len(self._rows) + 1) * counts.nbytes <= MOST_BYTES:
            self._rows.append(counts)
        else:
            shared = self.images % len(self._rows)
            self._rows[shared] = self._rows[shared] + counts
        self.images += 1
        return counts

    @property
    def counts(self) -> Counts:
        """Pixels (images, classes, 2, BINS) by label (rest, class) and bin of the score."""
        return np.stack(self._rows)

    @property
    def pooled(self) -> Counts:
        """The sum over images, (classes, 2, BINS) int64."""
        return np.asarray(self.counts.sum(0, dtype=np.int64))

    @property
    def ordered(self) -> Counts:
        """`pooled` with the first and last bin split finely, (classes, 2, many) by rising score."""
        low, high = self._ends[..., 0, :], self._ends[..., 1, ::-1]
        middle = self.pooled[..., 1:]
        middle[..., -1] -= high.sum(-1)  # what is left has the score 1023/1024
        return np.concatenate([low, middle, high], axis=-1)


def _count(p_hw: Map, label_hw: Map, class_id: int) -> tuple[Counts, Counts]:
    """Counts (2, BINS) uint32, and of the end bins (2, low and high, END_BINS).

    Unsigned short codes, as the pass must cost next to nothing.
    """
    width = BINS + 1  # p = 1 has a bin of its own: to clip the codes takes as long as to make them
    codes = (p_hw * np.float32(BINS)).astype(np.uint16)
    side = (label_hw == class_id).view(np.uint8) + 2 * (label_hw == IGNORE).view(np.uint8)
    ends = _count_ends(p_hw, side)
    codes += side * np.uint16(width)
    counted = np.bincount(codes.ravel(), minlength=3 * width).reshape(3, width)[:2]
    counted[:, BINS - 1] += counted[:, BINS]
    return counted[:, :BINS].astype(np.uint32), ends


def _count_ends(p_hw: Map, side: Map) -> Counts:
    """Counts (2, 2, END_BINS) of the scores near 0, and near 1, by their distance to it."""
    p, offset = p_hw.ravel(), side.ravel() * np.uint16(ALL_BINS)
    counted = np.zeros((2, 3 * ALL_BINS), np.int64)
    for start in range(0, p.size, PIECE):  # small pieces, whose memory is not given back each time
        part, add = p[start : start + PIECE], offset[start : start + PIECE]
        for row, distance in zip(counted, (part, 1 - part), strict=True):  # exact where it is small
            row += np.bincount(_distance_bin(distance) + add, minlength=len(row))
    return counted.reshape(2, 3, ALL_BINS)[:, :2, :END_BINS].swapaxes(0, 1)


def _distance_bin(distance: Map) -> Map:
    return (distance.view(np.uint32) >> np.uint32(END_SHIFT)).astype(np.uint16)


# 1. Curves over the thresholds


def sweep(counts: Counts) -> Outcomes:
    """Return the outcomes at each of EDGES (..., 1023), of histograms (..., 2, BINS)."""
    above = np.cumsum(counts[..., ::-1], axis=-1, dtype=np.int64)[..., -2::-1]
    fp, tp = above[..., 0, :], above[..., 1, :]
    total = counts.sum(-1, dtype=np.int64)[..., None]
    return Outcomes(tp, fp, total[..., 1, :] - tp, total[..., 0, :] - fp)


def image_measures(counts: Counts) -> dict[str, Floats]:
    """Return means over images at each threshold, of histograms (images, 2, BINS).

    Dice and IoU over the images whose label has the class, as in `metrics.Summary`; the others
    over those in which they exist.
    """
    values, present = sweep(counts).measures(), counts[:, 1].sum(1, keepdims=True) > 0
    for name in ("dice", "iou"):
        values[name] = np.where(present, values[name], np.nan)
    return {name: mean(value) for name, value in values.items()}


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


# 2. Numbers that no threshold changes


def average_precision(counts: Counts) -> float:
    """Sum over descending scores of precision times the gain in recall.

    Of counts (2, bins) by rising score. Pixels of one bin are tied, so it equals scikit-learn's
    on scores rounded down to the bin.
    """
    fp, tp = np.cumsum(counts[:, ::-1], axis=1, dtype=np.int64)
    precision, recall = ratio(tp, tp + fp), ratio(tp, tp[-1:])
    return float(np.nansum(precision * np.diff(recall, prepend=0.0))) if tp[-1] else np.nan


def roc_auc(counts: Counts) -> tuple[float, float]:
    """Probability that a foreground pixel scores above another one, ties half; and its error.

    Mann and Whitney's statistic on counts (2, bins) by rising score. Only pairs within a bin are
    not told apart, so the exact area differs by at most the second number.
    """
    rest, own = counts.astype(np.float64)
    pairs = float(rest.sum() * own.sum())
    if not pairs:
        return np.nan, np.nan
    tied = float(rest @ own) / pairs
    below = float((np.cumsum(rest) - rest) @ own) / pairs
    return below + tied / 2, tied / 2
