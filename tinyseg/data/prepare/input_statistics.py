"""Statistics of the training images as the network gets them, and the drift of new images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 4.0
"""Standard errors that the mean of new images may be away, as the training images vary."""
MOST = 16
"""More new images than this do not narrow the tolerance: they are often alike."""
FLOOR = 0.25
"""Share of a channel's std that is always tolerated."""
DARKEST = 1e-3
"""A smaller std of a single image counts as this: the image is flat."""


@dataclass(frozen=True)
class ChannelStatistics:
    """One channel of all training images, normalized; `spread_*` is how the images vary."""

    mean: float
    std: float
    min: float
    max: float
    spread_mean: float
    """Standard deviation, over the images, of their means."""
    typical_std: float
    """Geometric mean, over the images, of their standard deviations."""
    spread_std: float
    """Standard deviation, over the images, of the logarithm of their standard deviations."""


@dataclass(frozen=True)
class InputStatistics:
    """What the network input looks like in training; in run.json."""

    images: int
    channels: tuple[ChannelStatistics, ...]

    @staticmethod
    def of(moments: np.ndarray) -> "InputStatistics":
        """Return the statistics of all training images from their `moments` (N, 4, C)."""
        means, stds, lows, highs = moments.transpose(1, 0, 2)
        mean = means.mean(axis=0)
        std = np.sqrt(np.maximum((stds**2 + means**2).mean(axis=0) - mean**2, 0))
        logs = np.log(np.maximum(stds, DARKEST))
        alone = len(moments) == 1  # one image does not show how images vary
        overall = (mean, std, lows.min(axis=0), highs.max(axis=0))
        spread_mean = std if alone else means.std(axis=0, ddof=1)
        spread_std = np.ones_like(std) if alone else logs.std(axis=0, ddof=1)
        columns = (*overall, spread_mean, np.exp(logs.mean(axis=0)), spread_std)
        rows = np.stack(columns, axis=1).tolist()
        return InputStatistics(len(moments), tuple(ChannelStatistics(*row) for row in rows))

    @staticmethod
    def from_json(table: dict[str, Any]) -> "InputStatistics":
        """Read what `asdict` wrote; KeyError, TypeError or ValueError when it is something else."""
        rows = [{name: float(value) for name, value in row.items()} for row in table["channels"]]
        channels = tuple(ChannelStatistics(**row) for row in rows)
        statistics = InputStatistics(int(table["images"]), channels)
        if statistics.images < 1 or any(channel.typical_std <= 0 for channel in channels):
            raise ValueError("statistics of no images")
        return statistics

    def drift(self, moments: np.ndarray) -> str:
        """Return how new images differ, from their moments (N, 4, C), in one line; "" if not.

        The mean of the images' means (and of the logarithms of their stds) has drifted when it is
        farther from that of the training images than TOLERANCE standard errors, as the training
        images vary, plus FLOOR of the channel's std.
        """
        error = np.sqrt(1 / min(len(moments), MOST) + 1 / self.images) * (1 + 3 / self.images)
        means = moments[:, 0].mean(axis=0)
        stds = np.exp(np.log(np.maximum(moments[:, 1], DARKEST)).mean(axis=0))
        room = TOLERANCE * error * self._all("spread_mean") + FLOOR * self._all("std")
        far = np.abs(means - self._all("mean")) > room
        differences = self._differences("mean", far, means, self._all("mean"))
        room = TOLERANCE * error * self._all("spread_std") + np.log1p(FLOOR)
        far = np.abs(np.log(stds / self._all("typical_std"))) > room
        differences += self._differences("std", far, stds, self._all("typical_std"))
        return "; ".join(differences)

    def _all(self, name: str) -> np.ndarray:
        return np.array([getattr(channel, name) for channel in self.channels])

    def _differences(
        self, what: str, far: np.ndarray, new: np.ndarray, old: np.ndarray
    ) -> list[str]:
        """Return ["red, blue mean 3.00, 2.10 where training had 0.00, 0.01"] if anything is far."""
        if not far.any():
            return []
        names = np.array(channel_names(len(self.channels)))
        now, before = (", ".join(f"{v + 0.0:.2f}" for v in a[far].round(2)) for a in (new, old))
        return [f"{', '.join(names[far])} {what} {now} where training had {before}"]


def channel_names(count: int) -> tuple[str, ...]:
    """Return the names of so many channels of images."""
    known = {1: ("gray",), 3: ("red", "green", "blue")}
    return known.get(count) or tuple(f"channel {number}" for number in range(1, count + 1))


class DriftMonitor:
    """Collect the moments of network inputs, to compare them with the training set at the end."""

    def __init__(self) -> None:
        self.moments: list[np.ndarray] = []

    def __call__(self, x_bchw: np.ndarray) -> None:
        """Add a network input (B, C, H, W)."""
        self.moments.append(image_moments(x_bchw))

    def warning(self, statistics: InputStatistics | None) -> str:
        """Return one line when the images differ from the training set, else ""."""
        if statistics is None or not self.moments:
            return ""
        drift = statistics.drift(np.concatenate(self.moments))
        if not drift:
            return ""
        return (
            f"the images differ from the training set (as network input): {drift}; look for "
            "values 0..1 saved as 0..255, inverted grays, channels in the order BGR, another "
            "device or stain"
        )


def image_moments(x_bchw: np.ndarray) -> np.ndarray:
    """Return mean, std, minimum and maximum of each image and channel: (B, 4, C)."""
    x_bcn = x_bchw.reshape(*x_bchw.shape[:2], -1).astype(np.float64)
    return np.stack([x_bcn.mean(2), x_bcn.std(2), x_bcn.min(2), x_bcn.max(2)], axis=1)
