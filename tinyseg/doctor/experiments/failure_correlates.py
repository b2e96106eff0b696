"""What goes with a low score: features of images and labels, and whether they really do."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import ndimage, stats

from tinyseg.common.arrays import Array
from tinyseg.data import Dataset, is_foreground
from tinyseg.evaluation.evaluate import Evaluation
from tinyseg.metrics.summary import foreground_mean

FEW, MOST_GROUPS = 8, 8
"""Images below which nothing can be said, and groups of images that are looked at."""
PERMUTATIONS = 2000
SURE = 0.05
"""Chance, over all features together, that nothing is behind what is told."""


def dice_of(found: Evaluation) -> Array:
    """(N,) Dice of each image, mean of its foreground classes; nan where it has none."""
    return np.array([foreground_mean(one.values["dice"]) for one in found.images])


def common(dataset: Dataset, found: Evaluation) -> list[str]:
    """Sentences on what the images with a low Dice share; none without evidence.

    Spearman's correlation of each feature with the Dice; its chance is that of the largest of all
    features under 2000 permutations of the images (Westfall & Young 1993), so that looking at many
    features finds nothing where there is nothing. Images without foreground are told apart: what
    is predicted in them has a Dice of 0, whatever they look like.
    """
    dice = dice_of(found)
    marked = np.array([one.present[1:].any() for one in found.images], bool)
    chosen = np.flatnonzero(marked & np.isfinite(dice))
    sentences = _hallucinated(int((~marked).sum()), int((~marked & (dice == 0)).sum()))
    if len(chosen) < FEW or dice[chosen].std() < 1e-3:
        return sentences
    samples = [dataset[found.names[i]] for i in chosen]
    columns = {
        words: [measure(sample.image, _label(sample.label)) for sample in samples]
        for words, measure in MEASURES.items()
    }
    columns |= _classes([_label(sample.label) for sample in samples], dataset.class_names)
    columns |= _groups([found.names[i] for i in chosen])
    return sentences + told(columns, dice[chosen])


def _hallucinated(empty: int, wrong: int) -> list[str]:
    return [f"in {wrong} of {empty} images without foreground there is a false one"] * bool(wrong)


Words = tuple[str, str]
"""Which images score low when a feature goes up with the Dice, and when it goes down."""


def told(columns: Mapping[Words, Sequence[float]], dice: Array) -> list[str]:
    """The sentences from features of N images and their Dice (N,)."""
    ranks = np.column_stack([_standard(stats.rankdata(column)) for column in columns.values()])
    own = _standard(stats.rankdata(dice))
    rng, count = np.random.default_rng(0), len(dice)
    drawn = [np.abs(rng.permutation(own) @ ranks / count).max() for _ in range(PERMUTATIONS)]
    limit = float(np.quantile(drawn, 1 - SURE))
    pairs = sorted(zip(columns, own @ ranks / count, strict=True), key=lambda pair: -abs(pair[1]))
    return [
        f"{words[0 if value > 0 else 1]} score low (rank correlation {value:+.2f})"
        for words, value in pairs
        if abs(value) > limit
    ]


def _classes(labels: Sequence[Array], names: Sequence[str]) -> dict[Words, list[float]]:
    """The share of each foreground class where there are several."""
    kinds = range(1, len(names)) if len(names) > 2 else ()
    return {
        (f"images with little {names[kind]}", f"images with much {names[kind]}"): [
            float((label == kind).mean()) for label in labels
        ]
        for kind in kinds
    }


def _groups(names: Sequence[str]) -> dict[Words, list[float]]:
    """Which of the larger groups an image is of: its folder, or its name up to a digit."""
    groups = [name.rpartition("/")[0] or re.split(r"[\W\d_]", name)[0] for name in names]
    large = [group for group, count in Counter(groups).most_common(MOST_GROUPS) if count >= FEW / 2]
    if len(set(groups)) == 2 == len(large):
        large = large[:1]  # the other one is the rest
    return {
        (f"images other than {group!r}", f"{group!r}"): [float(one == group) for one in groups]
        for group in large
        if len(set(groups)) > 1
    }


def _standard(values: Array) -> Array:
    deviation = values.std()
    return np.asarray((values - values.mean()) / deviation if deviation else values * 0)


def _label(label: Array | None) -> Array:
    assert label is not None  # the images of a run have labels
    return label


def _area(image: Array, label: Array) -> float:
    return float(is_foreground(label).mean())


def _objects(image: Array, label: Array) -> float:
    return float(ndimage.label(is_foreground(label))[1])


def _border(image: Array, label: Array) -> float:
    marked = is_foreground(label)
    edge = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    return float(edge.mean())


def _level(image: Array, label: Array) -> float:
    return float(image.mean())


def _contrast(image: Array, label: Array) -> float:
    grey, marked = image.mean(axis=2, dtype=np.float64), is_foreground(label)
    if not marked.any() or marked.all():
        return 0.0
    return float(abs(grey[marked].mean() - grey[~marked].mean()) / (grey.std() + 1e-9))


def _size(image: Array, label: Array) -> float:
    return float(image.shape[0] * image.shape[1])


MEASURES: dict[Words, Callable[[Array, Array], float]] = {
    ("images with small objects", "images with large objects"): _area,
    ("images with few objects", "images with many objects"): _objects,
    ("objects away from the border", "objects at the border"): _border,
    ("dark images", "bright images"): _level,
    ("objects of low contrast", "objects of high contrast"): _contrast,
    ("small images", "large images"): _size,
}
"""Features of an image and its label."""
