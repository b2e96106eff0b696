"""Trivial baselines: constant predictions, and the best grey threshold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tinyseg.metrics.pixel import Map, dice_of_counts
from tinyseg.metrics.summary import Summary, evaluate_image, summarize

Rule = tuple[str, str, Callable[[Map], Map]]


@dataclass(frozen=True)
class GrayThreshold:
    """Foreground is where the gray value is `value` or more (bright), or below it (dark)."""

    value: int
    bright: bool

    def __call__(self, image: Map) -> Map:
        """Return the mask (H, W) of an image, see `baselines`."""
        return np.asarray((_gray(image) >= self.value) == self.bright).astype(np.uint8)

    def __str__(self) -> str:
        return f"gray {'>=' if self.bright else '<'} {self.value}"


def best_gray_threshold(images: Sequence[Map], labels: Sequence[Map]) -> GrayThreshold:
    """Return the single gray value and side with the best pooled Dice on images of two classes.

    One pass of 256-bin histograms; among equals the lowest value, bright first.
    """
    histogram = np.zeros((2, 256), np.int64)
    for image, label in zip(images, labels, strict=True):
        for class_id in (0, 1):
            histogram[class_id] += np.bincount(_gray(image)[label == class_id], minlength=256)
    below = np.concatenate([np.zeros((2, 1), np.int64), histogram.cumsum(1)], 1)
    # columns are thresholds 0..256, rows the sides
    fp, tp = (np.stack([row[-1] - row, row]) for row in below)
    dice = np.nan_to_num(dice_of_counts(tp, tp + fp + below[1, -1]))
    side, value = np.unravel_index(int(dice.argmax()), dice.shape)
    return GrayThreshold(int(value), side == 0)


def _gray(image: Map) -> Map:
    """The luma (ITU-R 601) of an RGB image, else the mean of all channels, as (H, W) uint8."""
    scale = 1 if image.dtype == np.uint8 else 255
    image = image.reshape(*image.shape[:2], -1)
    count = image.shape[2]
    weights = np.array([0.299, 0.587, 0.114]) if count == 3 else np.full(count, 1 / count)
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
    """Return rules that the training images give, with their scores on the other images.

    Images are (H, W) or (H, W, C), uint8 or float from 0 to 1; labels (H, W).
    Two classes: all background, all foreground, best gray threshold. More: each class everywhere,
    the one with the most training pixels marked in its rule.
    """
    classes, pairs = len(class_names), list(zip(images, labels, strict=True))
    if classes == 2:
        rules = _binary_rules(train_images, train_labels)
    else:
        rules = _constant_rules(train_labels, class_names)
    return [
        Baseline(name, rule, summarize([evaluate_image(f(x), y, classes) for x, y in pairs]))
        for name, rule, f in rules
    ]


def constant_dice(labels: Map, classes: int) -> float:
    """Return the best pooled Dice (mean of the foreground classes) of one class everywhere.

    `labels` are class ids (N, H, W); 255 is ignored.
    """
    counts = np.bincount(labels.ravel(), minlength=256)[:classes]
    dice = dice_of_counts(counts, counts + max(int(counts.sum()), 1))
    return float(np.nan_to_num(dice[1:]).max()) / (classes - 1)


def _binary_rules(images: Sequence[Map], labels: Sequence[Map]) -> list[Rule]:
    best = best_gray_threshold(images, labels)
    return [
        ("background", "all background", _constant(0)),
        ("foreground", "all foreground", _constant(1)),
        ("threshold", str(best), best),
    ]


def _constant_rules(labels: Sequence[Map], names: Sequence[str]) -> list[Rule]:
    pixels = [sum(int((label == k).sum()) for label in labels) for k in range(len(names))]
    mark = {pixels.index(max(pixels)): " (most pixels)"}
    return [
        (f"class {k}", f"all {name}{mark.get(k, '')}", _constant(k)) for k, name in enumerate(names)
    ]


def _constant(class_id: int) -> Callable[[Map], Map]:
    return lambda image: np.full(image.shape[:2], class_id, np.uint8)
