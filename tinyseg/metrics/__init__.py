"""Scores of label maps and of probabilities. NumPy and SciPy only."""

from tinyseg.metrics.baselines import Baseline, Threshold, baselines, best_threshold
from tinyseg.metrics.pixel import MEASURES, confusion, outcomes, scores
from tinyseg.metrics.summary import (
    ImageScores,
    Summary,
    evaluate_image,
    foreground_mean,
    mean,
    mean_dice,
    summarize,
)
from tinyseg.metrics.surface import surface_distances

__all__ = [
    "MEASURES",
    "Baseline",
    "ImageScores",
    "Summary",
    "Threshold",
    "baselines",
    "best_threshold",
    "confusion",
    "evaluate_image",
    "foreground_mean",
    "mean",
    "mean_dice",
    "outcomes",
    "scores",
    "summarize",
    "surface_distances",
]
