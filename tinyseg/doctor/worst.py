"""What goes with a low score: features of images and labels, and whether they really do."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage, stats

from tinyseg.backend import Array
from tinyseg.config import IGNORE
from tinyseg.data import Dataset
from tinyseg.evaluate import Evaluation
from tinyseg.metrics import foreground_mean

FEW = 8
"""Images below which nothing can be said."""
PERMUTATIONS = 2000
SURE = 0.05
"""Chance, over all features together, that nothing is behind what is told."""


def common(dataset: Dataset, found: Evaluation) -> list[str]:
    """Sentences on what the images with a low Dice share; none without evidence.

    Spearman's correlation of each feature with the Dice; its chance is that of the largest of all
    features under 2000 permutations of the images (Westfall & Young 1993), so that looking at many
    features finds nothing where there is nothing.
    """
    dice = np.array([foreground_mean(one.values["dice"]) for one in found.images])
    chosen = np.flatnonzero(np.isfinite(dice))
    if len(chosen) < FEW or dice[chosen].std() < 1e-3:
        return []
    samples = [dataset.load(dataset.index(found.names[i])) for i in chosen]
    rows = [[measure(s.image, _label(s.label)) for measure in MEASURES.values()] for s in samples]
    return told(np.array(rows, float), dice[chosen])


def told(features: Array, dice: Array) -> list[str]:
    """The sentences from features (N, F), in the order of MEASURES, and Dice (N,)."""
    ranks = np.column_stack([_standard(stats.rankdata(column)) for column in features.T])
    own = _standard(stats.rankdata(dice))
    rng, count = np.random.default_rng(0), len(dice)
    drawn = [np.abs(rng.permutation(own) @ ranks / count).max() for _ in range(PERMUTATIONS)]
    limit = float(np.quantile(drawn, 1 - SURE))
    correlations = own @ ranks / count
    return [
        WORDS[name][0 if value > 0 else 1] + f" score low (rank correlation {value:+.2f})"
        for name, value in sorted(
            zip(MEASURES, correlations, strict=True), key=lambda pair: -abs(pair[1])
        )
        if abs(value) > limit
    ]


def _standard(values: Array) -> Array:
    deviation = values.std()
    return np.asarray((values - values.mean()) / deviation if deviation else values * 0)


def _label(label: Array | None) -> Array:
    assert label is not None  # the images of a run have labels
    return label


def _marked(label: Array) -> Array:
    return np.asarray((label > 0) & (label != IGNORE))


def _area(image: Array, label: Array) -> float:
    return float(_marked(label).mean())


def _objects(image: Array, label: Array) -> float:
    return float(ndimage.label(_marked(label))[1])


def _border(image: Array, label: Array) -> float:
    marked = _marked(label)
    edge = np.concatenate([marked[0], marked[-1], marked[:, 0], marked[:, -1]])
    return float(edge.mean())


def _level(image: Array, label: Array) -> float:
    return float(image.mean())


def _contrast(image: Array, label: Array) -> float:
    grey, marked = image.mean(axis=2, dtype=np.float64), _marked(label)
    if not marked.any() or marked.all():
        return 0.0
    return float(abs(grey[marked].mean() - grey[~marked].mean()) / (grey.std() + 1e-9))


def _size(image: Array, label: Array) -> float:
    return float(image.shape[0] * image.shape[1])


MEASURES: dict[str, Callable[[Array, Array], float]] = {
    "area": _area,
    "objects": _objects,
    "border": _border,
    "level": _level,
    "contrast": _contrast,
    "size": _size,
}
WORDS = {
    "area": ("images with small objects", "images with large objects"),
    "objects": ("images with few objects", "images with many objects"),
    "border": ("objects away from the border", "objects at the border"),
    "level": ("dark images", "bright images"),
    "contrast": ("objects of low contrast", "objects of high contrast"),
    "size": ("small images", "large images"),
}
"""Which images score low when the correlation with the Dice is above 0, and when it is below."""
