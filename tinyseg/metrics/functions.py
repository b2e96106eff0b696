"""The public measures of two arrays: `tinyseg.dice(prediction, label)` and others."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.config import IGNORE
from tinyseg.errors import DataError
from tinyseg.metrics.pixel import Floats, Map, confusion, scores
from tinyseg.metrics.summary import foreground_mean


def dice(
    prediction: ArrayLike,
    label: ArrayLike,
    *,
    threshold: float | None = None,
    per_class: bool = False,
) -> Any:
    """Return the Dice coefficient (F1) of all pixels together, 2TP/(2TP+FP+FN).

    Args:
        prediction: Class ids, or true and false for the foreground, of any shape. Probabilities of
            the foreground are refused, unless `threshold` is given.
        label: The class ids in the same shape; 255 is ignored.
        threshold: Probability from which a pixel is foreground.
        per_class: Return the value of each class (K,), class 0 first, not the mean.

    Returns:
        The mean over the classes from 1 up that prediction or label has, nan where there is none.

    Raises:
        DataError: The arrays cannot be compared.
    """
    return _measure("dice", prediction, label, threshold, per_class)


def iou(
    prediction: ArrayLike,
    label: ArrayLike,
    *,
    threshold: float | None = None,
    per_class: bool = False,
) -> Any:
    """Return intersection over union (Jaccard index), TP/(TP+FP+FN); see `dice`."""
    return _measure("iou", prediction, label, threshold, per_class)


def precision(
    prediction: ArrayLike,
    label: ArrayLike,
    *,
    threshold: float | None = None,
    per_class: bool = False,
) -> Any:
    """Return the share of the predicted pixels that are right, TP/(TP+FP); see `dice`."""
    return _measure("precision", prediction, label, threshold, per_class)


def recall(
    prediction: ArrayLike,
    label: ArrayLike,
    *,
    threshold: float | None = None,
    per_class: bool = False,
) -> Any:
    """Return the share of the labeled pixels that are predicted, TP/(TP+FN); see `dice`."""
    return _measure("recall", prediction, label, threshold, per_class)


def accuracy(prediction: ArrayLike, label: ArrayLike, *, threshold: float | None = None) -> float:
    """Return the share of all pixels that have the right class; see `dice`.

    It is high for a prediction of nothing where the foreground is small: look at `dice` or `iou`.
    """
    matrix = confusion(*_to_class_ids(prediction, label, threshold))
    return float(matrix.trace() / matrix.sum()) if matrix.any() else float("nan")


def _measure(
    name: str, prediction: ArrayLike, label: ArrayLike, threshold: float | None, per_class: bool
) -> float | Floats:
    values = scores(confusion(*_to_class_ids(prediction, label, threshold)))[name]
    return values if per_class else foreground_mean(values)


def _to_class_ids(
    prediction: ArrayLike, label: ArrayLike, threshold: float | None
) -> tuple[Map, Map]:
    classes, truth = np.asarray(prediction), np.asarray(label)
    if threshold is not None:
        if classes.dtype.kind != "f":
            raise DataError(
                f"threshold={threshold} is for probabilities: prediction has dtype {classes.dtype}"
            )
        classes = classes >= threshold
    if classes.max(initial=0) <= 1 and np.isin(truth, (0, IGNORE)).all() and truth.any():
        warnings.warn(
            "label has no values but 0 and 255, and 255 is ignored: of a mask of 0 and 255 pass "
            "label > 0",
            stacklevel=4,
        )
    return classes, truth
