"""How a label lies in its image: what it has at the border, and how bright its parts are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

GRID = 64
"""Rows and columns at which brightness is looked up."""


@dataclass(frozen=True)
class Lay:
    """For each set of mask values (see `CaseFacts`) where it lies."""

    border: tuple[int, ...] = ()
    """Pixels at the border of the image."""
    tones: tuple[float, ...] = ()
    """Sum of the gray of its pixels on a grid."""
    places: tuple[int, ...] = ()
    """Their number."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        return asdict(self)

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Lay":
        """Read what `to_json` wrote."""
        return Lay(**{name: tuple(values) for name, values in facts.items()})

    def border_share(self, foreground: np.ndarray, known: np.ndarray) -> float:
        """Return the share of foreground at the border; sets are named by bool (S,)."""
        pixels = np.array(self.border)
        return float(pixels[foreground].sum() / max(1, pixels[known].sum()))

    def contrast(self, foreground: np.ndarray, background: np.ndarray) -> float:
        """Return by how much the foreground is brighter than the background; nan if unknown."""
        tones, places = np.array(self.tones), np.array(self.places)
        counts = [places[part].sum() for part in (foreground, background)]
        if not all(counts):
            return np.nan
        inside, outside = (tones[part].sum() for part in (foreground, background))
        return float(inside / counts[0] - outside / counts[1])


def lay_of(image_hwc: np.ndarray, sets_hw: np.ndarray, count: int) -> Lay:
    """Return how the numbers 0 to count - 1 lie in an image."""
    sides = (sets_hw[0], sets_hw[-1], sets_hw[1:-1, 0], sets_hw[1:-1, -1])
    border = np.bincount(np.concatenate(sides), minlength=count)
    rows, columns = (max(1, side // GRID) for side in sets_hw.shape)
    numbers = sets_hw[::rows, ::columns].ravel()
    gray = image_hwc[::rows, ::columns].mean(axis=2, dtype=np.float64).ravel()
    tones = np.bincount(numbers, gray, minlength=count)
    places = np.bincount(numbers, minlength=count)
    return Lay(tuple(border.tolist()), tuple(tones.tolist()), tuple(places.tolist()))
