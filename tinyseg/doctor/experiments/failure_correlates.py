"""What the images with a low score have in common, if it is more than chance."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage, stats

from tinyseg.common.arrays import Array
from tinyseg.data import Dataset, is_foreground
from tinyseg.evaluation.result import Evaluation
from tinyseg.evaluation.score import label_of, load_samples
from tinyseg.metrics.summary import foreground_mean

MIN_IMAGES, MAX_GROUPS = 8, 8
"""Images below which nothing can be said, and groups of images that are compared."""
PERMUTATIONS = 2000
SIGNIFICANCE = 0.05
"""Chance, over all features together, that a reported correlation is a coincidence."""

Words = tuple[str, str]
"""Which images score low when a feature rises with the Dice, and when it falls."""


def dice_of(evaluation: Evaluation) -> Array:
    """Return the Dice of each image, mean of its foreground classes; nan if it has none."""
    return np.array([foreground_mean(one.values["dice"]) for one in evaluation.images])


def failure_correlates(dataset: Dataset, evaluation: Evaluation) -> list[str]:
    """Return sentences on what images with a low Dice have in common; none without evidence.

    Each feature's Spearman correlation with the Dice is compared with the largest one of all
    features under 2000 permutations of the images (Westfall & Young 1993), so that testing many
    features finds nothing where there is nothing. Images without foreground are counted apart: a
    prediction in them has a Dice of 0, whatever they look like.
    """
    dice = dice_of(evaluation)
    has_foreground = np.array([one.present[1:].any() for one in evaluation.images], bool)
    chosen = np.flatnonzero(has_foreground & np.isfinite(dice))
    false = int((~has_foreground & (dice == 0)).sum())
    empty = f"{false} of {int((~has_foreground).sum())} images without foreground"
    sentences = [f"the run predicts foreground in {empty}"] * bool(false)
    if len(chosen) < MIN_IMAGES or dice[chosen].std() < 1e-3:
        return sentences
    names = [evaluation.names[i] for i in chosen]
    samples = list(load_samples(dataset, names))
    columns = {
        words: [measure(sample.image, label_of(sample)) for sample in samples]
        for words, measure in FEATURES.items()
    }
    columns |= class_features([label_of(sample) for sample in samples], dataset.class_names)
    columns |= group_features(names)
    return sentences + correlated(columns, dice[chosen])


def correlated(columns: Mapping[Words, Sequence[float]], dice: Array) -> list[str]:
    """Return the sentences for features of N images and their Dice (N,)."""
    ranks = np.column_stack([_standardize(stats.rankdata(column)) for column in columns.values()])
    own = _standardize(stats.rankdata(dice))
    rng, count = np.random.default_rng(0), len(dice)
    largest = [np.abs(rng.permutation(own) @ ranks / count).max() for _ in range(PERMUTATIONS)]
    limit = float(np.quantile(largest, 1 - SIGNIFICANCE))
    pairs = sorted(zip(columns, own @ ranks / count, strict=True), key=lambda pair: -abs(pair[1]))
    return [
        f"{words[0 if value > 0 else 1]} have a low Dice (rank correlation {value:+.2f})"
        for words, value in pairs
        if abs(value) > limit
    ]


def _standardize(values: Array) -> Array:
    std = values.std()
    return np.asarray((values - values.mean()) / std if std else values * 0)


def class_features(labels: Sequence[Array], names: Sequence[str]) -> dict[Words, list[float]]:
    """Return the share of each foreground class if there are several."""
    return {
        (f"images with little {name}", f"images with much {name}"): [
            float((label == class_id).mean()) for label in labels
        ]
        for class_id, name in enumerate(names)
        if class_id > 0 and len(names) > 2
    }


def group_features(names: Sequence[str]) -> dict[Words, list[float]]:
    """Return membership in each large group: a folder, or names with the same letters in front."""
    groups = [name.rpartition("/")[0] or re.split(r"[\W\d_]", name)[0] for name in names]
    counts = Counter(groups).most_common(MAX_GROUPS)
    large = [group for group, count in counts if count >= MIN_IMAGES / 2]
    if len(set(groups)) == 2 == len(large):
        large = large[:1]  # the other one is the rest
    return {
        (f"images outside {group!r}", f"images in {group!r}"): [float(g == group) for g in groups]
        for group in large
        if len(set(groups)) > 1
    }


def _objects(image: Array, label: Array) -> float:
    return float(ndimage.label(is_foreground(label))[1])


def _at_border(image: Array, label: Array) -> float:
    mask = is_foreground(label)
    return float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())


def _contrast(image: Array, label: Array) -> float:
    gray, mask = image.mean(axis=2, dtype=np.float64), is_foreground(label)
    if not mask.any() or mask.all():
        return 0.0
    return float(abs(gray[mask].mean() - gray[~mask].mean()) / (gray.std() + 1e-9))


FEATURES: dict[Words, Callable[[Array, Array], float]] = {
    ("images with little foreground", "images with much foreground"): lambda image, label: float(
        is_foreground(label).mean()
    ),
    ("images with few objects", "images with many objects"): _objects,
    ("images with objects away from the border", "images with objects at the border"): _at_border,
    ("dark images", "bright images"): lambda image, label: float(image.mean()),
    ("images with low contrast", "images with high contrast"): _contrast,
    ("small images", "large images"): lambda image, label: float(label.size),
}
"""Features of an image and its label."""
