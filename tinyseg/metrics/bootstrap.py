"""Intervals over images drawn anew (bootstrap)."""

from dataclasses import dataclass

import numpy as np

from tinyseg.metrics.pixel import Counts, Floats, dice_of_counts, mean
from tinyseg.metrics.threshold_curves import BINS, COARSE, EDGES, HALF, best_edge, sweep

RESAMPLES = 1000


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
    """Return what choosing a threshold gains over 0.5 on images it was not chosen on: pooled Dice.

    Of histograms (images, 2, BINS). A threshold looks best on the images it was chosen on, so in
    each of 1000 resamples of the images it is chosen anew on those drawn and measured on those
    not drawn (Efron 1983's out-of-bag error). It is chosen on two thirds of the images and measured
    on a third, so the mean is rather too low and the interval too wide. nan for a single image.
    """
    every, edges = sweep(counts), np.arange(COARSE - 1, BINS - 1, COARSE)
    parts = np.stack([every.tp[:, edges], every.size[:, edges]]).astype(np.float64)
    draws = _draws(len(counts), seed)
    tp, size = draws @ parts
    chosen = best_edge(2 * tp / np.maximum(size, 1))
    left = (draws == 0).astype(np.float64)
    # of those not drawn one column is wanted for each resample: no product of all
    at_chosen = np.einsum("ri,pri->pr", left, parts.transpose(0, 2, 1)[:, chosen])
    at_half = parts[..., np.searchsorted(EDGES[edges], HALF)] @ left.T
    return Interval.of(dice_of_counts(*at_chosen) - dice_of_counts(*at_half))


def gain_of(tp: Counts, size: Counts, seed: int = 0) -> Interval:
    """Return the difference in pooled Dice of a second rule over a first one, with its interval.

    Per image, rule and class, (images, 2, K): true positives, and pixels of prediction and label
    together; Dice is the mean over the classes that are anywhere. The images are drawn anew 1000
    times, the same for both rules; the mean is of the images themselves.
    """
    draws = _draws(len(tp), seed)
    dice = dice_of_counts(np.tensordot(draws, tp, 1), np.tensordot(draws, size, 1))
    first, second = mean(dice.transpose(2, 1, 0))
    resampled = Interval.of(second - first)
    before, after = mean(dice_of_counts(tp.sum(0), size.sum(0)).T)
    return Interval(float(after - before), resampled.low, resampled.high)


def dice_interval(tp: Counts, size: Counts, seed: int = 0) -> Interval:
    """Return the pooled Dice, mean of the classes that are anywhere, and its interval.

    Per image and class, (images, K): true positives, and pixels of prediction and label together.
    The images are drawn anew 1000 times; the mean is of the images themselves.
    """
    draws = _draws(len(tp), seed)
    resampled = Interval.of(mean(dice_of_counts(draws @ tp, draws @ size).T))
    own = mean(dice_of_counts(tp.sum(0), size.sum(0)))
    return Interval(float(own), resampled.low, resampled.high)


def _draws(images: int, seed: int) -> Floats:
    """How often each image is in each resample, (RESAMPLES, images)."""
    drawn = np.random.default_rng(seed).integers(images, size=(RESAMPLES, images))
    drawn += images * np.arange(RESAMPLES)[:, None]
    counted = np.bincount(drawn.ravel(), minlength=RESAMPLES * images)
    return counted.reshape(RESAMPLES, images).astype(np.float64)
