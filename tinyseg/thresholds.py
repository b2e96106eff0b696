"""What every threshold would give, from one pass: histograms of the scores and what follows.

A score is the probability of a class against the rest: the foreground of a one-channel head, each
class from 1 up of a softmax head. It falls into one of BINS = 1024 equal bins. Their inner edges
k/1024 are the thresholds, and the bins are exact: k/1024 and p * 1024 are without rounding in
float32, so `p >= k/1024` (what `predict` asks) and `bin of p >= k` always agree.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
RESAMPLES = 1000
COARSE = 16
"""Within a resample every sixteenth threshold is tried: curves of Dice are flat over 1/64."""
RELIABILITY_BINS = 16
MIDDLES = (np.arange(BINS) + 0.5) / BINS


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


def matrix_at(counts: Counts, threshold: float) -> Counts | None:
    """The confusion matrix (2, 2) that a threshold of EDGES gives, of counts (2, BINS).

    As `metrics.confusion` of the class against the rest; None for a threshold between two edges.
    """
    edge = threshold * BINS
    if edge != int(edge):
        return None
    above = counts[:, int(edge) :].sum(1, dtype=np.int64)
    return np.stack([counts.sum(1, dtype=np.int64) - above, above], axis=1)


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


def calibration_error(counts: Counts, temperature: float = 1.0) -> float:
    """Expected calibration error of the class's probability, of counts (2, BINS), in [0, 1].

    Naeini et al. 2015: pixels in 16 equal bins of the score; the mean over pixels of the bins'
    |mean score - share of foreground|. The score is the middle of its fine bin, which is off by
    1/2048 at most. Here it is that of the foreground's probability, not of the winning class.
    """
    rest, found = counts.astype(np.float64)
    score = _logistic(_logit(MIDDLES) / temperature)
    bins = np.minimum((score * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    gap = np.bincount(bins, (rest + found) * score - found, minlength=RELIABILITY_BINS)
    return float(ratio(np.abs(gap).sum(), (rest + found).sum()))


def fit_temperature(counts: Counts) -> float:
    """The temperature T for which sigmoid(logit(score) / T) is most likely, in [1/20, 20].

    Guo et al. 2017, on counts (2, BINS) with each score at the middle of its bin: scores nearer to
    0 or 1 than 1/2048 count as that. T > 1 tells of a network that is too sure. It leaves the order
    of the scores, so what is above the best threshold, as it is; it is for reading a probability as
    a frequency, and moves no decision here. nan where only one side has pixels.
    """
    from scipy.optimize import minimize_scalar  # 0.2 s, and most processes fit nothing

    rest, found = counts.astype(np.float64)
    if not rest.any() or not found.any():
        return np.nan
    logit = _logit(MIDDLES)

    def loss(log_temperature: float) -> float:
        z = logit / np.exp(log_temperature)
        return float(found @ np.logaddexp(0, -z) + rest @ np.logaddexp(0, z))

    limit = np.log(20)
    done = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(done.x))


def _logit(p: Floats) -> Floats:
    return np.asarray(np.log(p / (1 - p)))


def _logistic(z: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-z)))


# 3. What the threshold is worth


@dataclass(frozen=True)
class Interval:
    """A mean and the 95 % of its resamples in the middle."""

    mean: float
    low: float
    high: float

    @staticmethod
    def of(values: Floats) -> "Interval":
        """Of resampled values; nan where none of them exists."""
        values = values[~np.isnan(values)]
        if not values.size:
            return Interval(np.nan, np.nan, np.nan)
        return Interval(float(values.mean()), *map(float, np.percentile(values, (2.5, 97.5))))


def gain_of_choosing(counts: Counts, seed: int = 0) -> Interval:
    """What choosing a threshold gains over 0.5 on images it was not chosen on: pooled Dice.

    Of histograms (images, 2, BINS). A threshold looks best on the images it was chosen on, so in
    each of 1000 resamples of the images it is chosen anew on those drawn and measured on those
    not drawn (Efron 1983's out-of-bag error). It is chosen on two thirds of the images and measured
    on a third, so the mean is rather too low and the interval too wide. nan for a single image.
    """
    every, edges = outcomes(counts), np.arange(COARSE - 1, BINS - 1, COARSE)
    parts = np.stack([2 * every.hit[:, edges], _sizes(every)[:, edges]]).astype(np.float64)
    draws = _draws(len(counts), seed)
    hit, size = draws @ parts
    chosen = best_edge(hit / np.maximum(size, 1))
    left = (draws == 0).astype(np.float64)
    # of those not drawn one column is wanted for each resample: no product of all
    at_chosen = np.einsum("ri,pri->pr", left, parts.transpose(0, 2, 1)[:, chosen])
    at_half = parts[..., np.searchsorted(EDGES[edges], HALF)] @ left.T
    return Interval.of(ratio(*at_chosen) - ratio(*at_half))


def gain_of(hit: Counts, size: Counts, seed: int = 0) -> Interval:
    """Difference in pooled Dice of a given second rule over a first one, with its interval.

    Per image and rule, (images, 2): pixels hit, and pixels of prediction and label together. The
    images are drawn anew 1000 times, the same for both rules; the mean is of the images themselves.
    """
    draws = _draws(len(hit), seed)
    dice = ratio(2 * (draws @ hit), draws @ size)
    found = Interval.of(dice[:, 1] - dice[:, 0])
    first, second = ratio(2 * hit.sum(0), size.sum(0))
    return Interval(float(second - first), found.low, found.high)


def dice_interval(hit: Counts, size: Counts, seed: int = 0) -> Interval:
    """The pooled Dice, mean of the classes that are anywhere, and its interval.

    Per image and class, (images, K): pixels hit, and pixels of prediction and label together. The
    images are drawn anew 1000 times; the mean is of the images themselves.
    """
    draws = _draws(len(hit), seed)
    found = Interval.of(_mean(ratio(2 * (draws @ hit), draws @ size).T))
    own = _mean(ratio(2 * hit.sum(0), size.sum(0)))
    return Interval(float(own), found.low, found.high)


def _sizes(found: Outcomes) -> Counts:
    return 2 * found.hit + found.false + found.missed


def _draws(images: int, seed: int) -> Floats:
    """How often each image is in each resample, (RESAMPLES, images)."""
    drawn = np.random.default_rng(seed).integers(images, size=(RESAMPLES, images))
    drawn += images * np.arange(RESAMPLES)[:, None]
    counted = np.bincount(drawn.ravel(), minlength=RESAMPLES * images)
    return counted.reshape(RESAMPLES, images).astype(np.float64)


# 4. All of it, for a checkpoint


@dataclass(frozen=True)
class Found:
    """What one pass tells of one class; nan where there is nothing to tell it from."""

    threshold: float
    """With the best pooled Dice on these images; 0.5 where the class has no pixel."""
    dice: float
    dice_at_half: float
    gain: Interval | None
    """Of choosing a threshold over 0.5, on images it was not chosen on; None: not asked for."""
    average_precision: float
    roc_auc: float
    calibration_error: float
    temperature: float

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with None for nan."""
        table = asdict(self)
        gain = table.pop("gain")
        named = {name: _number(value) for name, value in table.items()}
        return named | {"gain": gain and {name: _number(value) for name, value in gain.items()}}


def find(histograms: Histograms, resample: bool = True) -> list[Found]:
    """One for each foreground class; the gain costs more than all else: None unless `resample`."""
    counts = histograms.counts
    return [_find(counts[:, kind], resample) for kind in range(counts.shape[1])]


def _find(counts: Counts, resample: bool) -> Found:
    pooled = np.asarray(counts.sum(0, dtype=np.int64))
    half = BINS // 2 - 1
    dice = outcomes(pooled).measures()["dice"]
    best = int(best_edge(dice)) if pooled[1].any() else half
    return Found(
        float(EDGES[best]),
        float(dice[best]),
        float(dice[half]),
        gain_of_choosing(counts) if resample else None,
        average_precision(pooled),
        roc_auc(pooled)[0],
        calibration_error(pooled),
        fit_temperature(pooled),
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def to_facts(histograms: Histograms, found: Sequence[Found]) -> dict[str, Any]:
    """What a checkpoint keeps: per class the numbers and the pooled counts they came from."""
    pooled = histograms.pooled
    classes = [
        {**one.to_dict(), "counts": counts.tolist()}
        for one, counts in zip(found, pooled, strict=True)
    ]
    return {"bins": BINS, "images": histograms.images, "classes": classes}


def curves(histograms: Histograms) -> dict[str, Any]:
    """For JSON: per class what was found, and every measure at every threshold.

    Pooled, and as the mean over images where each has its own histogram.
    """
    counts = histograms.counts
    classes = []
    for kind, found in enumerate(find(histograms)):
        table = {"pooled": outcomes(counts[:, kind].sum(0)).measures()}
        if len(counts) == histograms.images:
            table["per_image"] = image_measures(counts[:, kind])
        measured = {
            how: {name: [_number(v) for v in values.tolist()] for name, values in found.items()}
            for how, found in table.items()
        }
        classes.append({**found.to_dict(), **measured})
    return {"thresholds": EDGES.tolist(), "images": histograms.images, "classes": classes}


def learned(facts: dict[str, Any]) -> float:
    """The threshold in a checkpoint's facts; 0.5 in those from before, ValueError if it is none."""
    if "thresholds" not in facts:
        return HALF
    try:
        value = facts["thresholds"]["classes"][0]["threshold"]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"its thresholds are damaged ({error!r})") from None
    if not isinstance(value, float) or not 0 < value < 1:
        raise ValueError(f"its threshold {value!r} is not between 0 and 1")
    return value
