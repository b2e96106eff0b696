"""Measure how far the pixel values of two datasets are apart, and which normalization helps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import wasserstein_distance

from tinyseg.data.checks.stats import DatasetStats, weighted_quantiles
from tinyseg.data.prepare.normalize import FLAT

WORTH = 0.9
"""Other settings than the plain ones are advised when they leave less than this of the distance."""

Way = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the pixel values of an image and their weights (L,) to the network's input."""


def _by_image(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean = np.average(values, weights=weights)
    return _scaled(values, mean, np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _by_range(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    present = values[weights > 0]
    return _scaled(values, present.min(), np.ptp(present))


def _clipped(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    low, high = weighted_quantiles(values, weights, (0.01, 0.99))
    return _scaled(values.clip(low, high), low, high - low)


def _scaled(values: np.ndarray, mean: float, std: float) -> np.ndarray:
    return np.asarray((values - mean) / (std if std >= FLAT else 1))


PLAIN = "data.normalize=dataset"
"""Stands for every fixed scale (fixed, none): one scale for all changes no distance."""
WAYS: dict[str, Way] = {
    PLAIN: lambda values, weights: values,
    "data.normalize=image": _by_image,
    "data.normalize=minmax": _by_range,
    'data.preprocess="clip(low=1,high=99)" data.normalize=minmax': _clipped,
}
"""The settings that are compared."""


@dataclass(frozen=True)
class Comparison:
    """The distance of two datasets under each of some settings, per channel."""

    distances: dict[str, tuple[float, ...]]

    @property
    def best(self) -> str:
        """The settings under which the channels are nearest on average."""
        way = min(self.distances, key=self._mean)
        return way if self._mean(way) < WORTH * self._mean(PLAIN) else PLAIN

    def _mean(self, way: str) -> float:
        return float(np.mean(self.distances[way]))

    def advice(self) -> str:
        """Return what to do, in words."""
        if self.best == PLAIN:
            return f"no normalization reduces the difference by 10 % or more: keep {PLAIN}"
        return (
            f"{self.best} reduces the difference most: {self._mean(self.best):.2f} std apart, "
            f"not {self._mean(PLAIN):.2f}"
        )

    def table(self, channel_names: tuple[str, ...]) -> str:
        """Return a row for each setting, a column for each channel, and the advice."""
        lines = [f"{'distance of the pixel values, in std':62}"]
        lines[0] += "".join(f"{name:>8}" for name in channel_names)
        for way, row in self.distances.items():
            lines.append(f"{way:62}" + "".join(f"{distance:8.3f}" for distance in row))
        return "\n".join([*lines, self.advice()])

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        return {"distances": self.distances, "best": self.best, "advice": self.advice()}


def compare(one: DatasetStats, other: DatasetStats) -> Comparison:
    """Return the `distance` of each channel under each of the settings in WAYS."""

    def distances(way: str) -> tuple[float, ...]:
        pairs = zip(normalized(one, way), normalized(other, way), strict=True)
        return tuple(distance(*ours, *theirs) for ours, theirs in pairs)

    return Comparison({way: distances(way) for way in WAYS})


def normalized(stats: DatasetStats, way: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each channel the network's input and its weights; each image weighs 1."""
    columns = []
    for channel in range(len(stats.channel_names)):
        weights = [i.counts[channel] / i.counts[channel].sum() for i in stats.images]
        values = [WAYS[way](np.linspace(0, 1, len(weight)), weight) for weight in weights]
        columns.append((np.concatenate(values), np.concatenate(weights)))
    return columns


def distance(
    values: np.ndarray, weights: np.ndarray, others: np.ndarray, other_weights: np.ndarray
) -> float:
    """Return Wasserstein-1 of two weighted sets, divided by the std of both taken together.

    So it has no unit: 0 for equal sets, and the same when both are shifted or scaled alike.
    """
    both = np.concatenate([values, others])
    half = np.concatenate([weights / weights.sum(), other_weights / other_weights.sum()]) / 2
    std = np.sqrt(half @ (both - half @ both) ** 2)
    if std < FLAT:
        return 0.0
    return float(wasserstein_distance(values, others, weights, other_weights) / std)
