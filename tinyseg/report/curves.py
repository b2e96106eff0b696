"""Curves over the thresholds k/256 of the page, from the histograms of an evaluation."""

from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.metrics.best_threshold import ThresholdReport, find_thresholds
from tinyseg.metrics.calibration import MIDDLES, RELIABILITY_BINS
from tinyseg.metrics.threshold_curves import BINS, Histograms, sweep

STEP = BINS // 256
"""Fine bins of a histogram in one level of the page."""

FACTS = ("threshold", "average_precision", "calibration_error")


def curves(histograms: Histograms) -> list[dict[str, Any]]:
    """Return, for each foreground class, measures at k/256, k = 1 ... 255, and the calibration.

    The pixels of all images are counted together; 0/0 is None.
    """
    thresholds = find_thresholds(histograms)
    return [_curves(*pair) for pair in zip(histograms.pooled, thresholds, strict=True)]


def _curves(counts: Array, report: ThresholdReport) -> dict[str, Any]:
    facts, measures = report.to_dict(), sweep(counts).measures()
    at_levels = {name: measures[name][STEP - 1 :: STEP] for name in ("precision", "recall", "dice")}
    return {
        **{name: numbers(values) for name, values in at_levels.items()},
        **{name: facts[name] for name in FACTS},
        "reliability": reliability(counts),
    }


def reliability(counts: Array) -> list[list[float]]:
    """Return mean score, share of the class and pixels of each bin that is not empty."""
    pixels = counts.sum(0)
    mass, own, total = (
        values.reshape(RELIABILITY_BINS, -1).sum(1)
        for values in (pixels * MIDDLES, counts[1], pixels)
    )
    there = total > 0
    points = np.stack([mass[there] / total[there], own[there] / total[there], total[there]], axis=1)
    rows: list[list[float]] = points.round(6).tolist()
    return rows


def numbers(values: Array) -> list[float | None]:
    """Return the values with six digits; None for nan."""
    return [None if np.isnan(value) else round(value, 6) for value in values.tolist()]
