"""Measures of a predicted class map against its label, on the host in NumPy.

Everything is counted from one confusion matrix per image: rows are the label's classes, columns
the prediction's, pixels labelled IGNORE are left out. Matrices add, so pooling over images is a
sum. Each class is measured against the rest; "mean" is over the foreground classes (1 and up) in
which the measure exists. What would be 0/0 is nan, and None in JSON.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.config import IGNORE
from tinyseg.errors import DataError

Map = NDArray[Any]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

MEASURES = ("accuracy", "precision", "recall", "specificity", "dice", "iou")


def confusion(prediction: Map, label: Map, classes: int) -> Counts:
    """Counts of pixels (K,K) by label (row) and prediction (column).

    Both maps have the same shape; values other than 0..K-1 (and IGNORE in the label), floats (such
    as probabilities) or another shape raise DataError.
    """
    if prediction.shape != label.shape:
        raise DataError(f"prediction has shape {prediction.shape}, label {label.shape}: not equal")
    rows, columns = _small(label, "label", classes), _small(prediction, "prediction", classes)
    codes = rows.astype(np.uint16) << np.uint16(8) | columns
    counts = np.bincount(codes.ravel(), minlength=1 << 16).reshape(256, 256)[:IGNORE]
    for name, axis in (("label", 1), ("prediction", 0)):
        seen = np.flatnonzero(counts.any(axis))
        if seen.size and seen[-1] >= classes:
            raise _strange(name, seen, classes)
    return counts[:classes, :classes].astype(np.int64)


def _small(values: Map, name: str, classes: int) -> Map:
    """As uint8, in which two maps are quickly counted as pairs."""
    _refuse_floats(values, name)
    if values.dtype != np.uint8 and values.size and not 0 <= values.min() <= values.max() <= 255:
        raise _strange(name, values, classes)
    return values.astype(np.uint8, copy=False)


def _refuse_floats(values: Map, name: str) -> None:
    """Raise DataError for what is no class id: a probability of 0.9 would be cut to 0."""
    if values.dtype.kind not in "biu":
        raise DataError(
            f"{name} has dtype {values.dtype}: it must hold class ids as integers or true and "
            f"false; of probabilities pass {name} >= 0.5, of class ids {name}.astype(np.uint8)"
        )


def _strange(name: str, values: Map, classes: int) -> DataError:
    seen = sorted({int(values.min()), int(values.max())})
    return DataError(f"{name} has values {seen}: they must be 0 to {classes - 1}")


def scores(matrix: Counts) -> dict[str, Floats]:
    """All MEASURES per class (K,) of a confusion matrix, each in [0,1] or nan.

    accuracy (TP+TN)/all, precision TP/(TP+FP), recall or sensitivity TP/(TP+FN), specificity
    TN/(TN+FP), dice or F1 2TP/(2TP+FP+FN), iou TP/(TP+FP+FN).
    """
    hit, false, missed, rest = outcomes(matrix)
    return {
        "accuracy": _ratio(hit + rest, matrix.sum()),
        "precision": _ratio(hit, hit + false),
        "recall": _ratio(hit, hit + missed),
        "specificity": _ratio(rest, rest + false),
        "dice": dice_per_class(hit, false, missed),
        "iou": _ratio(hit, hit + false + missed),
    }


def dice_per_class(tp: Counts, fp: Counts, fn: Counts) -> Floats:
    """Return Dice, 2TP/(2TP+FP+FN), of pixel counts (K,); nan for a class that is nowhere."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def outcomes(matrix: Counts) -> tuple[Counts, Counts, Counts, Counts]:
    """True positives, false positives, false negatives and true negatives per class, each (K,)."""
    hit = matrix.diagonal()
    false, missed = matrix.sum(0) - hit, matrix.sum(1) - hit
    return hit, false, missed, matrix.sum() - hit - false - missed


def _ratio(part: Counts, whole: Counts) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    ratio: Floats = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=ratio, where=whole > 0)
