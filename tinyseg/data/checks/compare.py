"""How far the levels of two datasets are apart, and which normalisation brings them together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from tinyseg.data.checks.stats import DatasetStats, weighted_quantiles
from tinyseg.data.prepare.normalize import FLAT

WORTH = 0.9
"""Another way than the plain one is advised when it leaves less than this of the distance."""

Way = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Values of an image and their weights (L,) to its values as network input."""


def _plain(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values


def _by_image(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = np.average(values, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    return np.asarray((values - mean) / (deviation if deviation >= FLAT else 1))


def _by_range(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    there = values[weights > 0]
    return _stretched(values, there.min(), there.max())


def _clipped(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    low, high = weighted_quantiles(values, weights, (0.01, 0.99))
    return _stretched(values.clip(low, high), low, high)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.asarray((values - low) / (high - low if high - low >= FLAT else 1))


PLAIN = "data.normalize=dataset"
"""Stands for every fixed scale (fixed, none): one scale for all changes no distance."""
WAYS: dict[str, Way] = {
    PLAIN: _plain,
    "data.normalize=image": _by_image,
    "data.normalize=minmax": _by_range,
    'data.preprocess="clip(low=1,high=99)" data.normalize=minmax': _clipped,
}


@dataclass(frozen=True)
class Comparison:
    """Distances of two datasets by settings, a number for each channel."""

    distances: dict[str, tuple[float, ...]]

    @property
    def best(self) -> str:
        """The settings under which the channels are nearest on average."""
        means = {way: float(np.mean(row)) for way, row in self.distances.items()}
        way = min(means, key=lambda way: means[way])
        return way if means[way] < WORTH * means[PLAIN] else PLAIN

    def advice(self) -> str:
        """What to do, in words."""
        before, after = (float(np.mean(self.distances[way])) for way in (PLAIN, self.best))
        if self.best == PLAIN:
            return f"no normalisation brings them nearer by a tenth: keep {PLAIN}"
        return (
            f"{self.best} brings them together best: {after:.2f} deviations apart, not {before:.2f}"
        )

    def table(self, channel_names: tuple[str, ...]) -> str:
        """Rows of settings, columns of channels, and the advice."""
        head = "".join(f"{name:>8}" for name in channel_names)
        lines = [f"{'distance of the levels, in deviations':62}{head}"]
        for way, row in self.distances.items():
            lines.append(f"{way:62}" + "".join(f"{distance:8.3f}" for distance in row))
        return "\n".join([*lines, self.advice()])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"distances": self.distances, "best": self.best, "advice": self.advice()}


def compare(one: DatasetStats, other: DatasetStats) -> Comparison:
    """The distance of each channel under each way of normalising; see `distance`."""
    found = {}
    for way in WAYS:
        pairs = zip(normalized(one, way), normalized(other, way), strict=True)
        found[way] = tuple(distance(*ours, *theirs) for ours, theirs in pairs)
    return Comparison(found)


def normalized(stats: DatasetStats, way: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each channel the values as network input and their weights; each image weighs 1."""
    found = []
    for channel in range(len(stats.images[0].counts)):
        values, weights = [], []
        for image in stats.images:
            counts = image.counts[channel]
            share = counts / counts.sum()
            values.append(WAYS[way](np.linspace(0, 1, len(counts)), share))
            weights.append(share)
        found.append((np.concatenate(values), np.concatenate(weights)))
    return found


def distance(
    values: np.ndarray, weights: np.ndarray, others: np.ndarray, other_weights: np.ndarray
) -> float:
    """Wasserstein-1 of two weighted sets, divided by the deviation of both taken together.

    So it has no unit: 0 for equal sets, and the same when both are shifted or scaled alike.
    """
    both = np.concatenate([values, others])
    half = np.concatenate([weights / weights.sum(), other_weights / other_weights.sum()]) / 2
    deviation = np.sqrt(half @ (both - half @ both) ** 2)
    if deviation < FLAT:
        return 0.0
    return float(wasserstein_distance(values, others, weights, other_weights) / deviation)
