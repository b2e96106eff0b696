"""Images that must stay together, and an even draw of them from what is alike."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.reading.layouts import natural
from tinyseg.errors import DataError

if TYPE_CHECKING:
    from tinyseg.data.dataset import Dataset

Unit = tuple[str, ...]
"""Names that must stay together."""
Stratum = list[Unit]
"""Units that are alike, in the order in which they are taken."""


def size(units: Sequence[Unit]) -> int:
    """Number of names."""
    return sum(map(len, units))


def draw(strata: Sequence[Stratum], wanted: float) -> list[str]:
    """Moves units of about `wanted` names in all out of the strata, from each its share."""
    total, seen, taken = max(sum(map(size, strata)), 1), 0, list[str]()
    for units in strata:
        seen += size(units)
        taken += _take(units, wanted * seen / total - len(taken))  # what one lacks the next gives
    if not taken and wanted > 0 and any(strata):
        smallest = min((unit for units in strata for unit in units), key=len)
        next(units for units in strata if smallest in units).remove(smallest)
        taken = list(smallest)
    return taken


def _take(units: Stratum, wanted: float) -> list[str]:
    """Moves units out of the list while that comes nearer to the wanted number of names."""
    taken: list[str] = []
    for unit in list(units):
        if abs(len(taken) + len(unit) - wanted) < abs(len(taken) - wanted):
            taken += unit
            units.remove(unit)
    return taken


def strata_of(dataset: "Dataset", names: Sequence[str], config: DataConfig) -> list[Stratum]:
    """The names as units in seeded order, by what their labels hold: see `_kinds`.

    The strata of one class stand side by side, so that the draw is even over classes first.
    """
    units = _units(names, dataset.duplicates, config)
    kinds = _kinds(dataset, units) if config.stratify else [(0, 0)] * len(units)
    strata: dict[tuple[int, int], Stratum] = {}
    for unit, kind in zip(units, kinds, strict=True):
        strata.setdefault(kind, []).append(unit)

    def place(kind: tuple[int, int]) -> tuple[bytes, bytes]:
        return seeded(config.split_seed, f"class {kind[0]}"), seeded(config.split_seed, str(kind))

    return [strata[kind] for kind in sorted(strata, key=place)]


def _kinds(dataset: "Dataset", units: Sequence[Unit]) -> list[tuple[int, int]]:
    """The rarest class that each unit holds (0: none), and in which quarter by its share of it."""
    pixels = [_class_pixels(dataset, unit) for unit in units]
    objects = [[kind for kind in counts if kind not in (0, IGNORE)] for counts in pixels]
    common = Counter(kind for kinds in objects for kind in kinds)
    rarest = [min(kinds, key=lambda c: (common[c], c), default=0) for kinds in objects]
    shares = np.array([c[r] / max(c.total(), 1) for c, r in zip(pixels, rarest, strict=True)])
    quarters = np.zeros(len(units), int)
    for kind in set(rarest) - {0}:
        of_kind = np.equal(rarest, kind)
        edges = np.quantile(shares[of_kind], (0.25, 0.5, 0.75))
        quarters[of_kind] = np.searchsorted(edges, shares[of_kind])
    return list(zip(rarest, quarters.tolist(), strict=True))


def _class_pixels(dataset: "Dataset", unit: Unit) -> Counter[int]:
    total: Counter[int] = Counter()
    for name in unit:
        total.update(dataset.class_pixels(dataset.index(name)))
    return total


def _units(names: Sequence[str], duplicates: Sequence[Duplicate], config: DataConfig) -> list[Unit]:
    """Names that must stay together, in the seeded order of their first name's group."""
    keys = {name: group_of(name, config.groups) for name in names}
    for same in duplicates:
        joined = {keys[name] for name in same.names if name in keys}
        if len(joined) > 1:
            keys = {name: min(joined) if key in joined else key for name, key in keys.items()}
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(keys[name], []).append(name)
    ordered = sorted(units, key=lambda key: seeded(config.split_seed, key))
    return [tuple(units[key]) for key in ordered]


def group_of(name: str, pattern: str) -> str:
    """The first group of the pattern in the name (all of the match when it has no group)."""
    if not pattern:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise DataError(f"data.groups={pattern!r} is no regular expression: {error}") from None
    if not found:
        return name
    return (found[1] or name) if found.re.groups else found[0]


def seeded(seed: int, key: str) -> bytes:
    """Sort key: an order that only seed and key decide."""
    return hashlib.sha256(f"{seed}/{key}".encode(errors="surrogateescape")).digest()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Names in natural order."""
    return tuple(sorted(names, key=natural))
