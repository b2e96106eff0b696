"""Segmentation losses on logits, and weighted sums of them read from text.

In come logits (B, K, H, W) and labels of class ids, out comes a scalar Tensor with a gradient. This
room knows neither networks nor datasets, and not the metrics that judge a prediction.
"""

from tinyseg.losses.functions import (
    LOSSES,
    Function,
    Number,
    Targets,
    bce,
    ce,
    continuous_dice,
    dice,
    focal,
    focal_tversky,
    jaccard,
    prepare,
    tversky,
)
from tinyseg.losses.weighted_sum import Loss, Part

__all__ = [
    "LOSSES",
    "Function",
    "Loss",
    "Number",
    "Part",
    "Targets",
    "bce",
    "ce",
    "continuous_dice",
    "dice",
    "focal",
    "focal_tversky",
    "jaccard",
    "prepare",
    "tversky",
]
