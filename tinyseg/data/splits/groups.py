"""Groups of images that must stay together, drawn evenly from strata of similar images."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.reading.files import natural
from tinyseg.errors import DataError

if TYPE_CHECKING:
    from tinyseg.data.dataset import Dataset

Unit = tuple[str, ...]
"""Names that must stay together."""
Stratum = list[Unit]
"""Similar units, in the order in which they are drawn."""


def size(units: Sequence[Unit]) -> int:
    """Return the number of names."""
    return sum(map(len, units))


def draw(strata: Sequence[Stratum], wanted: float) -> list[str]:
    """Move units of about `wanted` names in all out of the strata, from each its share."""
    total, passed, drawn = max(sum(map(size, strata)), 1), 0, list[str]()
    for units in strata:
        passed += size(units)
        missing = wanted * passed / total - len(drawn)  # what one stratum lacks the next gives
        for unit in list(units):
            if abs(len(unit) - missing) < abs(missing):
                drawn += unit
                missing -= len(unit)
                units.remove(unit)
    if not drawn and wanted > 0 and any(strata):
        smallest = min((unit for units in strata for unit in units), key=len)
        next(units for units in strata if smallest in units).remove(smallest)
        drawn = list(smallest)
    return drawn


def strata_of(dataset: "Dataset", names: Sequence[str], config: DataConfig) -> list[Stratum]:
    """Return the names as units in seeded order, in strata by what their labels hold.

    A stratum has the same rarest class and a like share of it. Strata of one class are next to
    each other, so that `draw` is even over classes first.
    """
    units = _units(names, dataset.duplicates, config)
    keys = _strata_keys(dataset, units) if config.stratify else [(0, 0)] * len(units)
    strata: dict[tuple[int, int], Stratum] = {}
    for unit, key in zip(units, keys, strict=True):
        strata.setdefault(key, []).append(unit)

    def order(key: tuple[int, int]) -> tuple[bytes, bytes]:
        return seeded(config.split_seed, f"class {key[0]}"), seeded(config.split_seed, str(key))

    return [strata[key] for key in sorted(strata, key=order)]


def _strata_keys(dataset: "Dataset", units: Sequence[Unit]) -> list[tuple[int, int]]:
    """Return the rarest class of each unit (0: none), and the quartile of its share of it."""
    pixels = [_class_pixels(dataset, unit) for unit in units]
    objects = [[c for c in counts if c not in (0, IGNORE)] for counts in pixels]
    images = Counter(c for classes in objects for c in classes)
    rarest = [min(classes, key=lambda c: (images[c], c), default=0) for classes in objects]
    shares = np.array([c[r] / max(c.total(), 1) for c, r in zip(pixels, rarest, strict=True)])
    quartiles = np.zeros(len(units), int)
    for class_id in set(rarest) - {0}:
        members = np.equal(rarest, class_id)
        edges = np.quantile(shares[members], (0.25, 0.5, 0.75))
        quartiles[members] = np.searchsorted(edges, shares[members])
    return list(zip(rarest, quartiles.tolist(), strict=True))


def _class_pixels(dataset: "Dataset", unit: Unit) -> Counter[int]:
    total: Counter[int] = Counter()
    for name in unit:
        total.update(dataset.class_pixels(dataset.index(name)))
    return total


def _units(names: Sequence[str], duplicates: Sequence[Duplicate], config: DataConfig) -> list[Unit]:
    """Return the names that must stay together, in the seeded order of their first group."""
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
    """Return the first group of the pattern in the name, or the match if it has no group."""
    if not pattern:
        return name
    try:
        match = re.search(pattern, name)
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        shown = pattern if len(pattern) <= 80 else f"{pattern[:80]}..."
        raise DataError(f"data.groups={shown!r} is not a regular expression: {error}") from None
    if not match:
        return name
    return (match[1] or name) if match.re.groups else match[0]


def seeded(seed: int, key: str) -> bytes:
    """Return a sort key, for an order that depends only on seed and key."""
    return hashlib.sha256(f"{seed}/{key}".encode(errors="surrogateescape")).digest()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in natural order."""
    return tuple(sorted(names, key=natural))
