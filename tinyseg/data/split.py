"""Which images train, which validate, which test: by file, by folders, or by seed and fractions."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tinyseg.config import DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.layout import natural
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError
from tinyseg.files import write_json

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Names of the images in each part, in natural order; no name stands twice."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Writes JSON atomically: it is whole or not there."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: str | Path) -> "Split":
        """Reads a saved split; DataError when it is missing or not one."""
        try:
            table = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; give data.split_file a saved split") from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{path}: not a saved split (JSON): {error}") from None
        return _from_table(table, path)


def _from_table(table: object, path: str | Path) -> Split:
    if not isinstance(table, dict) or not {"train", "val"} <= set(table) <= set(PARTS):
        raise DataError(f'{path}: not a saved split: it must be {{"train": [...], "val": [...]}}')
    for part, names in table.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: {part} must be a list of names")
    split = Split(*(tuple(table.get(part, ())) for part in PARTS))
    twice = _twice([*split.train, *split.val, *split.test])
    if twice:
        raise DataError(
            f"{path}: names that stand twice: {name_some(twice)}; keep each in one part"
        )
    return split


def _twice(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def make_split(dataset: Dataset, config: DataConfig) -> Split:
    """Splits a dataset: a saved file goes before split folders, those before seed and fractions.

    By fractions the order is that of a hash of seed and name: the same on every machine, and new
    images move few of the old ones. Images of one group (`config.groups`) and equal images stay
    together. `config.limit` cuts the training names last. DataError when a part is left empty.
    """
    if config.split_file:
        split = _from_file(dataset, config)
    elif dataset.predefined:
        split = _from_folders(dataset, dataset.predefined, config)
    else:
        split = _by_fractions(dataset, dataset.names, config, config.test)
    _check(split, dataset, config)
    _check_groups(split, config.groups, dataset.source)
    if config.limit:
        kept = sorted(split.train, key=lambda name: _hash(config.split_seed, name))[: config.limit]
        split = Split(_sorted(kept), split.val, split.test)
    return split


def _from_file(dataset: Dataset, config: DataConfig) -> Split:
    split = Split.load(config.split_file)
    unknown = set(split.train + split.val + split.test) - set(dataset.names)
    if unknown:
        raise DataError(
            f"{config.split_file}: {len(unknown)} names are not in {dataset.source}: "
            f"{name_some(_sorted(unknown))}; use the data it was made for or split anew"
        )
    return split


def _from_folders(
    dataset: Dataset, folders: Mapping[str, tuple[str, ...]], config: DataConfig
) -> Split:
    test = folders.get("test", ())
    if "val" in folders:
        return Split(folders["train"], folders["val"], test)
    split = _by_fractions(dataset, folders["train"], config, 0.0)
    return Split(split.train, split.val, test)


def _by_fractions(
    dataset: Dataset, names: Sequence[str], config: DataConfig, test_fraction: float
) -> Split:
    units = _units(names, dataset.twins, config)
    test = _take(units, test_fraction * len(names))
    val = _take(units, config.val * len(names))
    return Split(_sorted(name for unit in units for name in unit), _sorted(val), _sorted(test))


def _take(units: list[list[str]], wanted: float) -> list[str]:
    """Moves units out of the list while that comes nearer to the wanted number of names."""
    taken: list[str] = []
    for unit in list(units):
        if abs(len(taken) + len(unit) - wanted) < abs(len(taken) - wanted):
            taken += unit
            units.remove(unit)
    if not taken and wanted > 0 and units:
        smallest = min(units, key=len)
        units.remove(smallest)
        taken = smallest
    return taken


def _units(
    names: Sequence[str], twins: Sequence[tuple[str, ...]], config: DataConfig
) -> list[list[str]]:
    """Names that must stay together, in the seeded order of their first name's group."""
    keys = {name: group_of(name, config.groups) for name in names}
    for same in twins:
        known = [name for name in same if name in keys]
        joined = {keys[name] for name in known}
        keys = {name: min(joined) if key in joined else key for name, key in keys.items()}
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(keys[name], []).append(name)
    return [units[key] for key in sorted(units, key=lambda key: _hash(config.split_seed, key))]


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


def _hash(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}/{key}".encode(errors="surrogateescape")).digest()


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=natural))


def _check_groups(split: Split, pattern: str, source: str) -> None:
    """A split by folders or from a file may tear a group apart; that is for its maker to mend."""
    parts: dict[str, set[str]] = {}
    for part in PARTS if pattern else ():
        for name in getattr(split, part):
            parts.setdefault(group_of(name, pattern), set()).add(part)
    torn = [group for group, where in parts.items() if len(where) > 1]
    if torn:
        raise DataError(
            f"{source}: groups that stand in more than one part of the split: {name_some(torn)}; "
            "move their images into one part, or leave data.groups empty"
        )


def _check(split: Split, dataset: Dataset, config: DataConfig) -> None:
    count = len(dataset)
    if not split.val:
        raise DataError(
            f"{dataset.source}: zero validation samples of {count} (data.val={config.val:g}); "
            "raise data.val, add images, or name some in data.split_file"
        )
    if not split.train:
        raise DataError(
            f"{dataset.source}: zero training samples of {count} (data.val={config.val:g}, "
            f"data.test={config.test:g}); lower both, add images, or check data.groups"
        )
