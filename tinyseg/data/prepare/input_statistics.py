"""What the training images look like at the network's door, and whether new ones look like them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 4.0
"""Deviations of the images' own statistics that new images may be away on average."""
MOST = 16
"""More new images than this do not narrow the tolerance: they are often of one kind."""
FLOOR = 0.25
"""Share of a channel's deviation that is always tolerated."""
DARKEST = 1e-3
"""Deviations of a single image below this count as this: it is flat."""


@dataclass(frozen=True)
class ChannelStatistics:
    """One channel of all training images, normalised; what varies between them is in `spread_*`."""

    mean: float
    std: float
    min: float
    max: float
    spread_mean: float
    """Standard deviation over the images of their means."""
    typical_std: float
    """Geometric mean over the images of their standard deviations."""
    spread_std: float
    """Standard deviation over the images of the logarithm of theirs."""


@dataclass(frozen=True)
class InputStatistics:
    """What a network may expect at its door; in run.json."""

    images: int
    channels: tuple[ChannelStatistics, ...]

    @staticmethod
    def of(moments: np.ndarray) -> "InputStatistics":
        """From the `moments` (N, 4, C) of all training images."""
        means, stds, lows, highs = moments.transpose(1, 0, 2)
        mean = means.mean(axis=0)
        std = np.sqrt(np.maximum((stds**2 + means**2).mean(axis=0) - mean**2, 0))
        logs = np.log(np.maximum(stds, DARKEST))
        alone = len(moments) == 1  # one image tells nothing of how images vary
        overall = (mean, std, lows.min(axis=0), highs.max(axis=0))
        spread_mean = std if alone else means.std(axis=0, ddof=1)
        spread_std = np.ones_like(std) if alone else logs.std(axis=0, ddof=1)
        columns = (*overall, spread_mean, np.exp(logs.mean(axis=0)), spread_std)
        rows = np.stack(columns, axis=1).tolist()
        return InputStatistics(len(moments), tuple(ChannelStatistics(*row) for row in rows))

    @staticmethod
    def from_json(table: dict[str, Any]) -> "InputStatistics":
        """Reads what `asdict` wrote; KeyError, TypeError or ValueError when it is not that."""
        rows = [{k: float(v) for k, v in row.items()} for row in table["channels"]]
        contract = InputStatistics(
            int(table["images"]), tuple(ChannelStatistics(**row) for row in rows)
        )
        if contract.images < 1 or any(c.typical_std <= 0 for c in contract.channels):
            raise ValueError("a contract of no images")
        return contract

    def mismatch(self, moments: np.ndarray) -> str:
        """What is unlike in new images, from their moments (N, 4, C), in one line; "" if nothing.

        The mean of the new images' means (and of the logarithms of their deviations) is unlike
        when it is farther from that of the training images than TOLERANCE standard errors, as the
        training images vary, plus FLOOR of the channel's deviation.
        """
        error = np.sqrt(1 / min(len(moments), MOST) + 1 / self.images) * (1 + 3 / self.images)
        means = moments[:, 0].mean(axis=0)
        stds = np.exp(np.log(np.maximum(moments[:, 1], DARKEST)).mean(axis=0))
        room = TOLERANCE * error * self._all("spread_mean") + FLOOR * self._all("std")
        far = np.abs(means - self._all("mean")) > room
        unlike = self._told("mean", far, means, self._all("mean"))
        room = TOLERANCE * error * self._all("spread_std") + np.log1p(FLOOR)
        far = np.abs(np.log(stds / self._all("typical_std"))) > room
        return "; ".join(unlike + self._told("deviation", far, stds, self._all("typical_std")))

    def _all(self, name: str) -> np.ndarray:
        return np.array([getattr(channel, name) for channel in self.channels])

    def _told(self, what: str, far: np.ndarray, now: np.ndarray, was: np.ndarray) -> list[str]:
        """ "red, blue mean 3.00, 2.10 where training had 0.00, 0.01", if anything is far."""
        names = ("red", "green", "blue") if len(self.channels) == 3 else ("grey",)
        chosen = [name for name, is_far in zip(names, far, strict=True) if is_far]
        new, old = (", ".join(f"{v + 0.0:.2f}" for v in a[far].round(2)) for a in (now, was))
        return [f"{', '.join(chosen)} {what} {new} where training had {old}"] * bool(chosen)


class DriftMonitor:
    """Keeps the moments of the images that pass the door, to be compared at the end."""

    def __init__(self) -> None:
        self.moments: list[np.ndarray] = []

    def __call__(self, x_bchw: np.ndarray) -> None:
        """Notes a batch at the door."""
        self.moments.append(image_moments(x_bchw))

    def warning(self, contract: InputStatistics | None) -> str:
        """One line when the images are unlike those of the contract, else ""."""
        if contract is None or not self.moments:
            return ""
        seen = np.concatenate(self.moments)
        unlike = contract.mismatch(seen)
        if not unlike:
            return ""
        return (
            f"the images are unlike those of the training (at the network's door): "
            f"{unlike}; look for values 0..1 saved as 0..255, inverted greys, channels in the "
            "order BGR, another device or stain"
        )


def image_moments(x_bchw: np.ndarray) -> np.ndarray:
    """Mean, standard deviation, minimum and maximum of each image and channel: (B, 4, C)."""
    x_bcn = x_bchw.reshape(*x_bchw.shape[:2], -1).astype(np.float64)
    return np.stack([x_bcn.mean(2), x_bcn.std(2), x_bcn.min(2), x_bcn.max(2)], axis=1)
