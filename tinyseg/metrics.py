"""Measures of a predicted class map against its label, on the host in NumPy.

Everything is counted from one confusion matrix per image: rows are the label's classes, columns
the prediction's, pixels labelled IGNORE are left out. Matrices add, so pooling over images is a
sum. Each class is measured against the rest; "mean" is over the foreground classes (1 and up) in
which the measure exists. What would be 0/0 is nan, and None in JSON.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinyseg.config import IGNORE
from tinyseg.errors import DataError

Map = NDArray[Any]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Rule = tuple[str, str, Callable[[Map], Map]]

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


def mean_dice(counts: Counts) -> float:
    """Return the mean Dice of classes by their TP, FP and FN (3,K); one that is nowhere is omitted.

    Of the foreground classes of all images it is the mean of `Summary.pooled["dice"]`.
    """
    return float(mean(dice_per_class(*counts)[:, None])[0])


def outcomes(matrix: Counts) -> tuple[Counts, Counts, Counts, Counts]:
    """True positives, false positives, false negatives and true negatives per class, each (K,)."""
    hit = matrix.diagonal()
    false, missed = matrix.sum(0) - hit, matrix.sum(1) - hit
    return hit, false, missed, matrix.sum() - hit - false - missed


def _ratio(part: Counts, whole: Counts) -> Floats:
    whole = np.broadcast_to(whole, part.shape)
    ratio: Floats = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=ratio, where=whole > 0)


# 1. Surface distances


def surface_distances(
    prediction: Map, label: Map, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float]:
    """Hausdorff 95 and average symmetric surface distance of two masks (H,W) of true and false.

    A mask's surface is its pixels with a 4-neighbour outside it, or at the image's edge. Hausdorff
    95 is the larger of the two directed 95th percentiles (as in MONAI); the average is over all
    points of both surfaces. In pixels, or in the unit of `spacing` (row, column). Both masks
    empty: 0; one empty: nan. Floats raise DataError, as in `confusion`.
    """
    _refuse_floats(prediction, "prediction")
    _refuse_floats(label, "label")
    from scipy.ndimage import distance_transform_edt  # 0.3 s, and most processes need no distance

    if not prediction.any() or not label.any():
        distance = np.nan if prediction.any() or label.any() else 0.0
        return distance, distance
    one, other = _surface(prediction), _surface(label)
    there = distance_transform_edt(~other, sampling=spacing)[one]
    back = distance_transform_edt(~one, sampling=spacing)[other]
    hausdorff = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hausdorff), float(np.concatenate([there, back]).mean())


def _surface(mask: Map) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    mask = mask.astype(bool)
    surface: NDArray[np.bool_] = mask & ~binary_erosion(mask)
    return surface


# 2. One image, and many


@dataclass(frozen=True)
class ImageScores:
    """What one image gives."""

    matrix: Counts
    """Confusion matrix (K,K)."""
    distances: dict[str, Floats]
    """"hd95" and "assd" per class (K,), when surfaces were asked for."""

    @property
    def values(self) -> dict[str, Floats]:
        """All measures per class (K,); Dice of a class that only the prediction has is 0."""
        return {**scores(self.matrix), **self.distances}

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which classes the label has, (K,)."""
        return np.asarray(self.matrix.sum(1) > 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: per measure the mean and the classes."""
        return {name: _json(values) for name, values in self.values.items()}


def evaluate_image(
    prediction: Map,
    label: Map,
    classes: int,
    *,
    surface: bool = False,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> ImageScores:
    """Compares class maps (H,W); `surface` adds the surface distances, which take far longer.

    Ignored pixels belong to no class, so they also bound the surfaces.
    """
    matrix = confusion(prediction, label, classes)
    if not surface:
        return ImageScores(matrix, {})
    valid = label != IGNORE
    pairs = [((prediction == k) & valid, label == k) for k in range(classes)]
    found = np.array([surface_distances(*pair, spacing) for pair in pairs])
    return ImageScores(matrix, {"hd95": found[:, 0], "assd": found[:, 1]})


@dataclass(frozen=True)
class Summary:
    """What many images give; every array is per class (K,)."""

    images: int
    """Images with at least one labelled pixel."""
    pooled: dict[str, Floats]
    """MEASURES of the pixels of all images together."""
    per_image: dict[str, Floats]
    """Mean over images. Dice, IoU and the distances: over the images whose label has the class;
    `dice_or_one` and `iou_or_one`: over all, where an empty label gives 1 if the prediction is
    empty too, else 0. Distances are left out where the prediction is empty, see `missed`."""
    empty: Counts
    """Images whose label does not have the class."""
    false_area: Floats
    """Share of the pixels of those images that are predicted as the class (mean of the shares)."""
    missed: Counts
    """Images whose label has the class and whose prediction does not."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: per measure the mean over foreground classes, and the classes."""
        return {
            "images": self.images,
            "pooled": {name: _json(values) for name, values in self.pooled.items()},
            "per_image": {name: _json(values) for name, values in self.per_image.items()},
            "empty_images": self.empty.tolist(),
            "false_positive_area": _json(self.false_area),
            "missed_images": self.missed.tolist(),
        }


def summarise(images: Sequence[ImageScores]) -> Summary:
    """Pools images and takes means over them; wholly ignored images count nowhere.

    Without a single labelled pixel there is nothing to measure: DataError.
    """
    images = [image for image in images if image.matrix.any()]
    if not images:
        raise DataError("no image has a labelled pixel, so there is nothing to measure: add labels")
    matrices = np.stack([image.matrix for image in images])
    present = np.stack([image.present for image in images])
    predicted = matrices.sum(1)
    pixels = matrices.sum((1, 2))[:, None]
    false_area = np.where(present, np.nan, predicted / pixels)
    return Summary(
        images=len(images),
        pooled=scores(matrices.sum(0)),
        per_image=_per_image(images, present, predicted > 0),
        empty=(~present).sum(0),
        false_area=mean(false_area),
        missed=(present & (predicted == 0)).sum(0),
    )


def _per_image(
    images: Sequence[ImageScores], present: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> dict[str, Floats]:
    every = [image.values for image in images]
    table = {name: np.stack([values[name] for values in every]) for name in every[0]}
    for name in ("dice", "iou"):
        table[f"{name}_or_one"] = np.where(present, table[name], ~predicted)
    for name in {"dice", "iou", "hd95", "assd"} & table.keys():
        table[name] = np.where(present, table[name], np.nan)
    return {name: mean(values) for name, values in table.items()}


def mean(values: Floats) -> Floats:
    """Mean over the first axis of what is not nan; nan where nothing is left."""
    there = ~np.isnan(values)
    return _ratio(np.where(there, values, 0).sum(0), there.sum(0))


def foreground_mean(values: Floats) -> float:
    """Mean of a measure (K,) over the classes 1 and up in which it exists, else nan."""
    return float(mean(values[1:, None])[0])


def _json(values: Floats) -> dict[str, Any]:
    numbers = [foreground_mean(values), *values.tolist()]
    first, *classes = [None if np.isnan(number) else number for number in numbers]
    return {"mean": first, "classes": classes}


# 3. Baselines: what a trained network has to beat


@dataclass(frozen=True)
class Threshold:
    """Foreground is where the grey value is `value` or more (bright), or below it (dark)."""

    value: int
    bright: bool

    def __call__(self, image: Map) -> Map:
        """The mask (H,W) of an image, see `baselines`."""
        return np.asarray((_grey(image) >= self.value) == self.bright).astype(np.uint8)

    def __str__(self) -> str:
        return f"grey {'>=' if self.bright else '<'} {self.value}"


def best_threshold(images: Sequence[Map], labels: Sequence[Map]) -> Threshold:
    """The single grey value and side with the best pooled Dice on these images, class 1 of 2.

    One pass of 256-bin histograms; among equals the lowest value, bright first.
    """
    histogram = np.zeros((2, 256), np.int64)
    for image, label in zip(images, labels, strict=True):
        for kind in (0, 1):
            histogram[kind] += np.bincount(_grey(image)[label == kind], minlength=256)
    below = np.concatenate([np.zeros((2, 1), np.int64), histogram.cumsum(1)], 1)
    total = below[1, -1]
    # columns are thresholds 0..256, rows the sides
    false, hit = (np.stack([row[-1] - row, row]) for row in below)
    dice = 2 * hit / np.maximum(hit + false + total, 1)
    side, value = np.unravel_index(int(dice.argmax()), dice.shape)
    return Threshold(int(value), side == 0)


def _grey(image: Map) -> Map:
    """The luma (ITU-R 601) of an image as (H,W) uint8."""
    scale = 1 if image.dtype == np.uint8 else 255
    image = image.reshape(*image.shape[:2], -1)
    weights = np.array([0.299, 0.587, 0.114]) if image.shape[2] == 3 else np.ones(1)
    return np.asarray((image @ weights * scale).round()).astype(np.uint8)


class Baseline(NamedTuple):
    """A rule that needs no network, and how well it does."""

    name: str
    """"background", "foreground", "threshold", or "class 0", "class 1", ... of many."""
    rule: str
    """The rule in words."""
    summary: Summary


def baselines(
    train_images: Sequence[Map],
    train_labels: Sequence[Map],
    images: Sequence[Map],
    labels: Sequence[Map],
    class_names: Sequence[str],
) -> list[Baseline]:
    """Rules found on the training images, measured on the others.

    Images are (H,W), (H,W,1) or (H,W,3), uint8 or float from 0 to 1; labels (H,W).
    Two classes: all background, all foreground, best grey threshold. More: each class everywhere,
    the one with the most training pixels marked in its rule.
    """
    classes, pairs = len(class_names), list(zip(images, labels, strict=True))
    if classes == 2:
        rules = _binary_rules(train_images, train_labels)
    else:
        rules = _constant_rules(train_labels, class_names)
    return [
        Baseline(name, rule, summarise([evaluate_image(f(x), y, classes) for x, y in pairs]))
        for name, rule, f in rules
    ]


def _binary_rules(images: Sequence[Map], labels: Sequence[Map]) -> list[Rule]:
    best = best_threshold(images, labels)
    return [
        ("background", "all background", _constant(0)),
        ("foreground", "all foreground", _constant(1)),
        ("threshold", str(best), best),
    ]


def _constant_rules(labels: Sequence[Map], names: Sequence[str]) -> list[Rule]:
    pixels = [sum(int((label == kind).sum()) for label in labels) for kind in range(len(names))]
    mark = {pixels.index(max(pixels)): " (most pixels)"}
    return [
        (f"class {k}", f"all {name}{mark.get(k, '')}", _constant(k)) for k, name in enumerate(names)
    ]


def _constant(kind: int) -> Callable[[Map], Map]:
    return lambda image: np.full(image.shape[:2], kind, np.uint8)
