"""What is kept of a mask's values without its pixels: how often each is there, and how it lies."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.data.reading.mask_pixels import Mask

MOST_VALUES = 256
"""Of masks with more values only the first 257 are counted."""


@dataclass(frozen=True)
class MaskFacts:
    """The values of one mask file, and how they lie."""

    path: Path
    counts: dict[int, int]
    """Value -> pixels, in order; of a file with more than MOST_VALUES only the first 257."""
    thin: dict[int, int] = field(default_factory=dict)
    """Of values between the ends, the pixels that differ from their left or upper neighbor."""
    palette: Mapping[int, int] = field(default_factory=dict)
    """Index -> color, see `Mask`."""
    remark: str = ""
    """See `Mask`."""

    @property
    def pixels(self) -> int:
        """Pixels that are counted."""
        return sum(self.counts.values())

    @property
    def edges(self) -> int:
        """Pixels of `thin`."""
        return sum(self.thin.values())

    @property
    def between(self) -> int:
        """Pixels whose value is neither the smallest nor the largest."""
        return self.pixels - sum(self.counts[end] for end in {min(self.counts), max(self.counts)})

    def without(self, values: Collection[int]) -> "MaskFacts":
        """Return the facts as if these values were at no pixel."""
        counts, thin = (
            {v: n for v, n in t.items() if v not in values} for t in (self.counts, self.thin)
        )
        return replace(self, counts=counts, thin=thin)

    def to_json(self) -> list[object]:
        """Return all but the path."""
        tables = (self.counts, self.thin, self.palette)
        return [*(list(table.items()) for table in tables), self.remark]

    @staticmethod
    def from_json(facts: Sequence[Any], path: Path) -> "MaskFacts":
        """Read what `to_json` wrote."""
        counts, thin, palette, remark = facts
        return MaskFacts(path, dict(counts), dict(thin), dict(palette), remark)


def mask_facts(mask: Mask, path: Path) -> MaskFacts:
    """Count the values of one mask, and the pixels that look like soft edges."""
    values_hw = mask.pixels
    counts = _table(*count_values(values_hw))
    if len(counts) <= 2:
        return MaskFacts(path, counts, {}, mask.palette, mask.remark)
    differs = np.zeros(values_hw.shape, bool)
    differs[1:] = values_hw[1:] != values_hw[:-1]
    differs[:, 1:] |= values_hw[:, 1:] != values_hw[:, :-1]
    differs &= (values_hw > values_hw.min()) & (values_hw < values_hw.max())
    return MaskFacts(
        path, counts, _table(*count_values(values_hw[differs])), mask.palette, mask.remark
    )


def _table(values: np.ndarray, counts: np.ndarray) -> dict[int, int]:
    kept = slice(0, MOST_VALUES + 1)
    return dict(zip(values[kept].tolist(), counts[kept].tolist(), strict=True))


def count_values(values_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a mask in order, and the pixels of each."""
    if values_hw.dtype != np.uint8 or not values_hw.size:
        return np.unique(values_hw, return_counts=True)
    # most masks have two values, and these take a fiftieth of the time
    ends = np.unique([values_hw.min(), values_hw.max()])
    counts = np.array([np.count_nonzero(values_hw == value) for value in ends])
    if counts.sum() == values_hw.size:
        return ends, counts
    bins = np.bincount(values_hw.ravel())
    values = np.flatnonzero(bins)
    return values, bins[values]
