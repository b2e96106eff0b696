"""The best threshold of a class, what it gains over 0.5, and how it is stored."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyseg.metrics.bootstrap import Interval, gain_of_choosing
from tinyseg.metrics.calibration import calibration_error, fit_temperature
from tinyseg.metrics.pixel import Counts
from tinyseg.metrics.threshold_curves import (
    BINS,
    EDGES,
    HALF,
    Histograms,
    average_precision,
    best_edge,
    image_measures,
    roc_auc,
    sweep,
)

CURVES = ("dice", "iou", "precision", "recall")


@dataclass(frozen=True)
class ThresholdReport:
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


def find_thresholds(histograms: Histograms, resample: bool = True) -> list[ThresholdReport]:
    """One for each foreground class; the gain costs more than all else: None unless `resample`."""
    counts, ordered = histograms.counts, histograms.ordered
    return [_find_threshold(counts[:, k], ordered[k], resample) for k in range(len(ordered))]


def _find_threshold(counts: Counts, ordered: Counts, resample: bool) -> ThresholdReport:
    pooled = np.asarray(counts.sum(0, dtype=np.int64))
    half = BINS // 2 - 1
    dice = sweep(pooled).measures()["dice"]
    best = int(best_edge(dice)) if pooled[1].any() else half
    return ThresholdReport(
        float(EDGES[best]),
        float(dice[best]),
        float(dice[half]),
        gain_of_choosing(counts) if resample else None,
        average_precision(ordered),
        roc_auc(ordered)[0],
        calibration_error(pooled),
        fit_temperature(pooled),
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def to_facts(histograms: Histograms, found: Sequence[ThresholdReport]) -> dict[str, Any]:
    """What a checkpoint keeps: per class the numbers and the pooled counts they came from."""
    pooled = histograms.pooled
    classes = [
        {**one.to_dict(), "counts": counts.tolist()}
        for one, counts in zip(found, pooled, strict=True)
    ]
    return {"bins": BINS, "images": histograms.images, "classes": classes}


def curves(histograms: Histograms) -> dict[str, Any]:
    """Return, for JSON, a report for each class with CURVES at every threshold.

    Pooled, and as the mean over images where each has its own histogram.
    """
    counts = histograms.counts
    classes = []
    reports = find_thresholds(histograms)
    for class_counts, report in zip(counts.swapaxes(0, 1), reports, strict=True):
        tables = {"pooled": sweep(class_counts.sum(0)).measures()}
        if len(counts) == histograms.images:
            tables["per_image"] = image_measures(class_counts)
        measured = {
            how: {name: [_number(value) for value in table[name].tolist()] for name in CURVES}
            for how, table in tables.items()
        }
        classes.append({**report.to_dict(), **measured})
    return {"thresholds": EDGES.tolist(), "images": histograms.images, "classes": classes}


def stored_threshold(facts: dict[str, Any]) -> float:
    """Return the threshold to predict with from a checkpoint's facts.

    It is the best one of the validation images if it gains over 0.5 on images that did not choose
    it, with the whole 95 % interval above 0; else 0.5. Checkpoints from before thresholds were
    stored give 0.5, damaged facts ValueError.
    """
    if "thresholds" not in facts:
        return HALF
    try:
        report = facts["thresholds"]["classes"][0]
        value, gain = report["threshold"], report.get("gain") or {}
        clear = (gain.get("low") or 0) > 0
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"its thresholds are damaged ({error!r})") from None
    if not isinstance(value, float) or not 0 < value < 1:
        raise ValueError(f"its threshold {value!r} is not between 0 and 1")
    return value if clear else HALF
