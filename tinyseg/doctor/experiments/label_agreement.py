"""How well labels match images: the share of a label that local features of an image explain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import optimize

from tinyseg.common.arrays import Array
from tinyseg.data.reading.agreement import (
    explained,
    features_of,
    grid_of,
    orthonormal,
    targets_of,
    unit_norm,
)

Axis = tuple[float, float]
"""A stretch of an axis: its factor, and the position that stays, as a share of the axis."""

PERMUTATIONS = 500
MAX_SHIFT, SHIFT_STEP = 8, 2
"""The largest shift that is tried, in these pixels, and the step of the coarse search."""
FACTORS = tuple(np.geomspace(0.5, 2, 13).tolist())
FIXED = (0.0, 0.5, 1.0)
"""Stretches that are tried, and the positions that they keep: start, middle or end of an axis."""
STRETCHED_IMAGES = 16
"""Images on which stretches are tried."""


@dataclass(frozen=True)
class Pairs:
    """Images as local features, and their labels, on one grid."""

    features: Array
    """(N, F, P) float32: for each image orthonormal rows with mean 0."""
    targets: Array
    """(N, K, rows, columns) float32: each class but the first, with mean 0, and 0 where it is
    ignored; each label has norm 1."""

    def half(self, bottom: bool) -> "Pairs":
        """Return the upper or lower half of all images and labels."""
        rows, columns = self.targets.shape[-2:]
        part = slice(rows // 2, rows) if bottom else slice(0, rows // 2)
        planes = self.features.reshape(*self.features.shape[:2], rows, columns)[:, :, part]
        features = [orthonormal(image.reshape(len(image), -1)) for image in planes]
        targets = self.targets[:, :, part]
        targets = targets - targets.mean(axis=(2, 3), keepdims=True)
        return Pairs(np.stack(features), np.stack([unit_norm(target) for target in targets]))


def pairs_of(images: Sequence[Array], labels: Array, classes: int) -> Pairs:
    """Return the pairs of images (S, S, C) and labels (N, S, S), each with at least two classes."""
    places = grid_of(labels.shape[1])
    features = [features_of(image, places, places) for image in images]
    targets = [targets_of(label[np.ix_(places, places)], classes) for label in labels]
    return Pairs(np.stack(features), np.stack(targets))


def table_of(pairs: Pairs) -> Array:
    """Return the share of label j that the features of image i explain, (N, N)."""
    flat = pairs.targets.reshape(*pairs.targets.shape[:2], -1)
    count, classes, pixels = flat.shape
    matrix = flat.reshape(count * classes, pixels).T
    rows = [
        ((f @ matrix) ** 2).sum(axis=0).reshape(count, classes).sum(axis=1) for f in pairs.features
    ]
    return np.stack(rows)


def own_share(pairs: Pairs) -> Array:
    """Return the share of each label that its image explains, less what other images do, (N,)."""
    table, count = table_of(pairs), len(pairs.targets)
    own = np.diag(table)
    return np.asarray(own - (table.sum(axis=0) - own) / max(count - 1, 1))


def match_z_score(table: Array) -> float:
    """Return how much better labels fit their own images than random ones, as a z-score."""
    rng, count = np.random.default_rng(0), len(table)
    rows = np.arange(count)
    random = [table[rows, rng.permutation(count)].mean() for _ in range(PERMUTATIONS)]
    spread = max(float(np.std(random)), 1e-12)
    return float((np.diag(table).mean() - np.mean(random)) / spread)


@dataclass(frozen=True)
class Rearranged:
    """Which label fits which image, chosen on one half of the images and tested on the other."""

    match: float
    """`match_z_score` of the labels so rearranged, in the half in which they were not chosen."""
    agreed: dict[int, int]
    """Images for which both halves choose the same label, of another image."""


def rearrange(pairs: Pairs) -> Rearranged:
    """Assign each image the label that fits it best, each label once."""
    upper, lower = (table_of(pairs.half(bottom)) for bottom in (False, True))
    chosen = [optimize.linear_sum_assignment(-table)[1] for table in (upper, lower)]
    match = min(match_z_score(lower[:, chosen[0]]), match_z_score(upper[:, chosen[1]]))
    both = zip(*chosen, strict=True)
    return Rearranged(match, {i: int(a) for i, (a, b) in enumerate(both) if a == b != i})


TURNS: dict[str, Callable[[Array], Array]] = {
    "mirrored left to right": lambda y: y[..., ::-1],
    "mirrored top to bottom": lambda y: y[..., ::-1, :],
    "rotated by 180 degrees": lambda y: y[..., ::-1, ::-1],
    "rotated by 90 degrees": lambda y: np.rot90(y, 1, (-2, -1)),
    "rotated by 270 degrees": lambda y: np.rot90(y, 3, (-2, -1)),
    "transposed": lambda y: y.swapaxes(-2, -1),
}
"""What may have happened to all labels of a dataset."""


def shift(targets: Array, rows: int, columns: int) -> Array:
    """Return labels moved down and right; pixels that come in are 0, of no class."""
    moved = np.roll(targets, (rows, columns), (-2, -1))
    if rows:
        moved[..., slice(None, rows) if rows > 0 else slice(rows, None), :] = 0
    if columns:
        moved[..., slice(None, columns) if columns > 0 else slice(columns, None)] = 0
    return moved


def stretch(targets: Array, rows: Axis, columns: Axis) -> Array:
    """Return labels stretched on each axis, with norm 1 again; pixels that come in are 0."""
    picks, inside = zip(*map(_pick, targets.shape[-2:], (rows, columns)), strict=True)
    stretched = targets[..., picks[0][:, None], picks[1]]
    known = inside[0][:, None] & inside[1]
    means = (stretched * known).sum(axis=(-2, -1), keepdims=True) / max(known.sum(), 1)
    return np.stack([unit_norm(np.where(known, label, 0)) for label in stretched - means])


def _pick(length: int, axis: Axis) -> tuple[Array, Array]:
    """Return the source of each position of a stretched axis, and whether it was on the axis."""
    factor, fixed = axis[0], axis[1] * (length - 1)
    source = np.rint(fixed + (np.arange(length) - fixed) / factor).astype(int)
    return source.clip(0, length - 1), (source >= 0) & (source < length)


def best_stretch(pairs: Pairs) -> tuple[Axis, Axis]:
    """Return the stretch of rows and columns with which labels fit best, on some of the images.

    A stretch makes labels larger and simpler, which every image explains better; so the fit is
    compared with that of other images. First both axes are stretched alike, then each on its own.
    """
    count = len(pairs.targets)
    some = np.linspace(0, count - 1, min(count, STRETCHED_IMAGES)).astype(int)
    features, targets = pairs.features[some], pairs.targets[some]

    def fit(axes: tuple[Axis, Axis]) -> float:
        stretched = stretch(targets, *axes)
        others = explained(features, np.roll(stretched, 1, axis=0))
        return float((explained(features, stretched) - others).mean())

    alike = product(FACTORS, FIXED, FIXED)
    best = max((((factor, a), (factor, b)) for factor, a, b in alike), key=fit)
    best = max(((axis, best[1]) for axis in product(FACTORS, FIXED)), key=fit)
    return max(((best[0], axis) for axis in product(FACTORS, FIXED)), key=fit)


def best_shift(pairs: Pairs) -> tuple[int, int]:
    """Return the shift (rows, columns) with which labels fit best, coarse to fine."""

    def fit(place: tuple[int, int]) -> float:
        return float(explained(pairs.features, shift(pairs.targets, *place)).mean())

    coarse = range(-MAX_SHIFT, MAX_SHIFT + 1, SHIFT_STEP)
    row, column = max(product(coarse, coarse), key=fit)
    return max(product(range(row - 1, row + 2), range(column - 1, column + 2)), key=fit)
