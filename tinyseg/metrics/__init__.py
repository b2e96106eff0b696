"""How good predictions are: from class maps and probabilities to scores. NumPy and SciPy only.

`dice`, `iou`, `precision`, `recall`, `accuracy` and `confusion` compare two arrays.
`evaluate_image` scores an image and `summarize` many of them; `baselines` are what needs no
training. What a threshold does is in `threshold_curves` and `best_threshold`, intervals in
`bootstrap`, expected calibration error in `calibration`. Nothing here knows of networks, datasets
or files.
"""

from tinyseg.metrics.baselines import Baseline, GrayThreshold, baselines, best_gray_threshold
from tinyseg.metrics.functions import accuracy, dice, iou, precision, recall
from tinyseg.metrics.pixel import MEASURES, confusion, mean_dice, outcomes, scores
from tinyseg.metrics.summary import ImageScores, Summary, evaluate_image, foreground_mean, summarize
from tinyseg.metrics.surface import surface_distances

__all__ = [
    "MEASURES",
    "Baseline",
    "GrayThreshold",
    "ImageScores",
    "Summary",
    "accuracy",
    "baselines",
    "best_gray_threshold",
    "confusion",
    "dice",
    "evaluate_image",
    "foreground_mean",
    "iou",
    "mean_dice",
    "outcomes",
    "precision",
    "recall",
    "scores",
    "summarize",
    "surface_distances",
]
