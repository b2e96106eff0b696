"""How well labels match images: the share of a label that local features of an image explain."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage, optimize

from tinyseg.config import IGNORE

Array = np.ndarray[Any, np.dtype[Any]]

SIDE = 96
"""Pixels of a side at which images and labels are compared."""
SCALES = (1.0, 3.0)
"""Deviations, in these pixels, of the Gaussians under which features are seen."""
PERMUTATIONS = 500
REACH, PACE = 8, 2
"""Shifts that are tried, in these pixels: the farthest, and the pace of the first search."""


FACTORS = tuple(np.geomspace(0.5, 2, 13).tolist())
PLACES = (0.0, 0.5, 1.0)
"""Stretches that are tried, and what they leave in place: the begin, middle or end of an axis."""
SOME = 16
"""Images on which they are tried."""

Axis = tuple[float, float]
"""A factor, and the place that it leaves where it is, as a share of the axis."""


@dataclass(frozen=True)
class Pairs:
    """Images as local features, and labels as classes, on one grid."""

    features: Array
    """(N, F, P) float32: of each image, rows of length 1 at right angles to each other and to 1."""
    targets: Array
    """(N, K, rows, columns) float32: each class but the first of a label, its mean taken away, 0
    where it is ignored; all of a label together have length 1."""

    def half(self, bottom: bool) -> "Pairs":
        """The upper or lower half of all images and labels."""
        rows, columns = self.targets.shape[-2:]
        part = slice(rows // 2, rows) if bottom else slice(0, rows // 2)
        planes = self.features.reshape(*self.features.shape[:2], rows, columns)[:, :, part]
        features = [_orthonormal(image.reshape(len(image), -1)) for image in planes]
        targets = self.targets[:, :, part]
        targets = targets - targets.mean(axis=(2, 3), keepdims=True)
        return Pairs(np.stack(features), np.stack([_scaled(target) for target in targets]))


def pairs_of(images: Sequence[Array], labels: Array, classes: int) -> Pairs:
    """From images (S, S, C) and labels (N, S, S) of class ids, each with more than one class."""
    size = labels.shape[1]
    places = (np.arange(min(SIDE, size)) * size / min(SIDE, size)).astype(int)
    features = [_features(image, places) for image in images]
    targets = [_targets(label[np.ix_(places, places)], classes) for label in labels]
    return Pairs(np.stack(features), np.stack(targets))


def _features(image: Array, places: Array) -> Array:
    """Levels, their surroundings, roughness and edges: (F, P), orthonormal."""
    planes = image.astype(np.float32).transpose(2, 0, 1)
    step = max(1.0, image.shape[0] / len(places))
    grey = planes.mean(axis=0)
    found = [ndimage.gaussian_filter(plane, step * SCALES[0] / 2) for plane in planes]
    for scale in SCALES:
        smooth = ndimage.gaussian_filter(grey, step * scale)
        square = ndimage.gaussian_filter(grey * grey, step * scale)
        found += [smooth, np.sqrt(np.maximum(square - smooth**2, 0))]
        found += [ndimage.gaussian_gradient_magnitude(grey, step * scale)]
    return _orthonormal(np.stack([plane[np.ix_(places, places)].ravel() for plane in found]))


def _orthonormal(rows: Array) -> Array:
    rows = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    kept = sizes > 1e-3 * max(sizes[0], 1e-12)
    return np.asarray(np.where(kept[:, None], directions, 0), np.float32)


def _targets(label: Array, classes: int) -> Array:
    known = label != IGNORE
    found = np.stack([(label == kind) & known for kind in range(1, classes)]).astype(np.float32)
    means = found[:, known].mean(axis=1) if known.any() else np.zeros(classes - 1)
    return _scaled(np.where(known, found - means[:, None, None], 0))


def _scaled(target: Array) -> Array:
    size = np.sqrt((target.astype(np.float64) ** 2).sum())
    return np.asarray(target / size if size > 1e-6 else target * 0, np.float32)


def explained(features: Array, targets: Array) -> Array:
    """The share (0 to 1) of each label (N, K, ...) that its image's features (N, F, P) explain."""
    flat = targets.reshape(*targets.shape[:2], -1)
    return np.asarray((np.matmul(features, flat.transpose(0, 2, 1)) ** 2).sum(axis=(1, 2)))


def table_of(pairs: Pairs) -> Array:
    """(N, N): the share of label j that the features of image i explain."""
    flat = pairs.targets.reshape(*pairs.targets.shape[:2], -1)
    count, kinds, pixels = flat.shape
    matrix = flat.reshape(count * kinds, pixels).T
    rows = [
        ((f @ matrix) ** 2).sum(axis=0).reshape(count, kinds).sum(axis=1) for f in pairs.features
    ]
    return np.stack(rows)


def own_share(pairs: Pairs) -> Array:
    """(N,): the share of each label that its image explains, less what other images do."""
    table, count = table_of(pairs), len(pairs.targets)
    own = np.diag(table)
    return np.asarray(own - (table.sum(axis=0) - own) / max(count - 1, 1))


def own_match(table: Array) -> float:
    """By how many deviations labels fit their own images better than images drawn at random."""
    rng, count = np.random.default_rng(0), len(table)
    rows = np.arange(count)
    drawn = [table[rows, rng.permutation(count)].mean() for _ in range(PERMUTATIONS)]
    return float((np.diag(table).mean() - np.mean(drawn)) / max(float(np.std(drawn)), 1e-12))


@dataclass(frozen=True)
class Rearranged:
    """Which label fits which image, found in one half of the images and tried in the other."""

    match: float
    """`own_match` of the labels so rearranged, in the half in which they were not chosen."""
    agreed: dict[int, int]
    """Images for which both halves choose one and the same label of another image."""


def rearrange(pairs: Pairs) -> Rearranged:
    """Gives every image the label that fits it best, each to one image."""
    upper, lower = (table_of(pairs.half(bottom)) for bottom in (False, True))
    chosen = [optimize.linear_sum_assignment(-table)[1] for table in (upper, lower)]
    match = min(own_match(lower[:, chosen[0]]), own_match(upper[:, chosen[1]]))
    both = zip(*chosen, strict=True)
    return Rearranged(match, {i: int(a) for i, (a, b) in enumerate(both) if a == b != i})


TURNS: dict[str, Callable[[Array], Array]] = {
    "mirrored left to right": lambda y: y[..., ::-1],
    "mirrored top to bottom": lambda y: y[..., ::-1, :],
    "turned by 180 degrees": lambda y: y[..., ::-1, ::-1],
    "turned by 90 degrees": lambda y: np.rot90(y, 1, (-2, -1)),
    "turned by 270 degrees": lambda y: np.rot90(y, 3, (-2, -1)),
    "transposed": lambda y: y.swapaxes(-2, -1),
}
"""What may have happened to all labels of a data set."""


def shift(targets: Array, rows: int, columns: int) -> Array:
    """Labels moved down and to the right; what comes in is 0, of no class."""
    moved = np.roll(targets, (rows, columns), (-2, -1))
    if rows:
        moved[..., slice(None, rows) if rows > 0 else slice(rows, None), :] = 0
    if columns:
        moved[..., slice(None, columns) if columns > 0 else slice(columns, None)] = 0
    return moved


def stretch(targets: Array, rows: Axis, columns: Axis) -> Array:
    """Labels stretched on each axis by a factor around a place, each of length 1 again.

    What comes in is 0, of no class.
    """
    picks, inside = zip(*map(_pick, targets.shape[-2:], (rows, columns)), strict=True)
    made = targets[..., picks[0][:, None], picks[1]]
    known = inside[0][:, None] & inside[1]
    means = (made * known).sum(axis=(-2, -1), keepdims=True) / max(known.sum(), 1)
    return np.stack([_scaled(np.where(known, label, 0)) for label in made - means])


def _pick(length: int, axis: Axis) -> tuple[Array, Array]:
    """For each place of a stretched axis: where it was, and whether it was on the axis."""
    factor, fixed = axis[0], axis[1] * (length - 1)
    found = np.rint(fixed + (np.arange(length) - fixed) / factor).astype(int)
    return found.clip(0, length - 1), (found >= 0) & (found < length)


def best_stretch(pairs: Pairs) -> tuple[Axis, Axis]:
    """The stretch of rows and columns with which labels fit best beside those of other images.

    A stretch makes labels larger and simpler, which every image explains better: hence the others.
    First both axes alike, then each for itself, on some of the images.
    """
    some = np.linspace(0, len(pairs.targets) - 1, min(len(pairs.targets), SOME)).astype(int)
    features, targets = pairs.features[some], pairs.targets[some]

    def fit(axes: tuple[Axis, Axis]) -> float:
        made = stretch(targets, *axes)
        others = explained(features, np.roll(made, 1, axis=0))
        return float((explained(features, made) - others).mean())

    places = product(FACTORS, PLACES, PLACES)
    best = max((((factor, a), (factor, b)) for factor, a, b in places), key=fit)
    best = max(((axis, best[1]) for axis in product(FACTORS, PLACES)), key=fit)
    return max(((best[0], axis) for axis in product(FACTORS, PLACES)), key=fit)


def best_shift(pairs: Pairs) -> tuple[int, int]:
    """The rows and columns by which labels have to be moved to fit best, coarse to fine."""

    def fit(place: tuple[int, int]) -> float:
        return float(explained(pairs.features, shift(pairs.targets, *place)).mean())

    coarse = range(-REACH, REACH + 1, PACE)
    best = max(((r, c) for r in coarse for c in coarse), key=fit)
    near = [(best[0] + r, best[1] + c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    return max(near, key=fit)
