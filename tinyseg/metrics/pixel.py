"""Measures of a predicted class map against its label, on the host in NumPy.

Everything is counted from one confusion matrix: rows are the label's classes, columns the
prediction's, pixels labeled IGNORE are left out. Matrices add, so pooling over images is a sum.
Each class is measured against the rest. What would be 0/0 is nan, and None in JSON.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyseg.config import IGNORE
from tinyseg.errors import DataError

Map = NDArray[Any]
Floats = NDArray[np.float64]
Counts = NDArray[Any]

MEASURES = ("accuracy", "precision", "recall", "specificity", "dice", "iou")


class Outcomes(NamedTuple):
    """Pixels counted by their outcome for a class against the rest; arrays of one shape."""

    tp: Counts
    fp: Counts
    fn: Counts
    tn: Counts

    @property
    def size(self) -> Counts:
        """Pixels of the class in prediction and label together, 2TP+FP+FN."""
        return 2 * self.tp + self.fp + self.fn

    def measures(self) -> dict[str, Floats]:
        """Return all MEASURES, each in [0, 1] or nan.

        accuracy (TP+TN)/all, precision TP/(TP+FP), recall or sensitivity TP/(TP+FN), specificity
        TN/(TN+FP), dice or F1 2TP/(2TP+FP+FN), iou TP/(TP+FP+FN).
        """
        tp, fp, fn, tn = self
        return {
            "accuracy": ratio(tp + tn, tp + fp + fn + tn),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
            "specificity": ratio(tn, tn + fp),
            "dice": dice_of_counts(tp, self.size),
            "iou": ratio(tp, tp + fp + fn),
        }


def dice_of_counts(tp: Counts, size: Counts) -> Floats:
    """Return the Dice of true positives and `Outcomes.size`, nan where both are 0."""
    return ratio(2 * tp, size)


def outcomes(matrix: Counts) -> Outcomes:
    """Return the outcomes of each class (K,) of a confusion matrix."""
    tp = matrix.diagonal()
    fp, fn = matrix.sum(0) - tp, matrix.sum(1) - tp
    return Outcomes(tp, fp, fn, matrix.sum() - tp - fp - fn)


def scores(matrix: Counts) -> dict[str, Floats]:
    """Return all MEASURES of each class (K,) of a confusion matrix."""
    return outcomes(matrix).measures()


def confusion(prediction: Map, label: Map, classes: int | None = None) -> Counts:
    """Return counts of pixels (K, K) by label (row) and prediction (column).

    Args:
        prediction: Class ids from 0 to K-1, or true and false for the foreground; of any shape.
        label: The same in the same shape; 255 is ignored.
        classes: K; without, one more than the largest class id, and at least 2.

    Raises:
        DataError: For another shape, other values, and floats such as probabilities.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.shape != label.shape:
        raise DataError(f"prediction has shape {prediction.shape}, label {label.shape}: not equal")
    rows, columns = _to_uint8(label, "label", classes), _to_uint8(prediction, "prediction", classes)
    codes = rows.astype(np.uint16) << np.uint16(8) | columns
    counts = np.bincount(codes.ravel(), minlength=1 << 16).reshape(256, 256)[:IGNORE]
    present = {"label": np.flatnonzero(counts.any(1)), "prediction": np.flatnonzero(counts.any(0))}
    if classes is None:
        classes = min(IGNORE, max(2, *(int(ids.max(initial=0)) + 1 for ids in present.values())))
    for name, ids in present.items():
        if ids.max(initial=0) >= classes:
            raise _out_of_range(name, ids, classes)
    return counts[:classes, :classes].astype(np.int64)


def _to_uint8(values: Map, name: str, classes: int | None) -> Map:
    """As uint8, in which two maps are quickly counted as pairs."""
    refuse_floats(values, name)
    if values.dtype != np.uint8 and values.size and not 0 <= values.min() <= values.max() <= 255:
        raise _out_of_range(name, values, classes)
    return values.astype(np.uint8, copy=False)


def refuse_floats(values: Map, name: str) -> None:
    """Raise DataError for what is no class id: a probability of 0.9 would be cut to 0."""
    if values.dtype.kind not in "biu":
        raise DataError(
            f"{name} has dtype {values.dtype}: it must contain class ids as integers or true and "
            f"false; of probabilities pass {name} >= 0.5, of class ids {name}.astype(np.uint8)"
        )


def _out_of_range(name: str, values: Map, classes: int | None) -> DataError:
    ends = sorted({int(values.min()), int(values.max())})
    return DataError(f"{name} has values {ends}: they must be 0 to {(classes or IGNORE) - 1}")


def ratio(part: Map, whole: Map) -> Floats:
    """Return part / whole, nan where the whole is 0."""
    empty: Floats = np.full(np.broadcast_shapes(np.shape(part), np.shape(whole)), np.nan)
    return np.divide(part, whole, out=empty, where=np.asarray(whole) > 0)


def mean(values: Floats) -> Floats:
    """Return the mean over the first axis of what is not nan; nan where nothing is left."""
    exists = ~np.isnan(values)
    return ratio(np.where(exists, values, 0).sum(0), exists.sum(0))


def mean_dice(counts: Counts) -> float:
    """Return the mean Dice of classes by their TP, FP and FN (3, K), without those in no pixel.

    Of the foreground classes of all images it is the mean of `Summary.pooled["dice"]`.
    """
    tp, fp, fn = counts
    return float(mean(dice_of_counts(tp, 2 * tp + fp + fn)))
