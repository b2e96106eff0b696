"""Which images train, which validate, which test: by file, by folders, or by seed and fractions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyseg.common.files import write_json
from tinyseg.config import DataConfig
from tinyseg.data.sample import name_some
from tinyseg.data.splits.strata import draw, group_of, in_order, seeded, size, strata_of
from tinyseg.errors import DataError

if TYPE_CHECKING:
    from tinyseg.data.dataset import Dataset

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
        split = load_split(path)
        if isinstance(split, Folds):
            raise DataError(f"{path}: holds folds, not one split")
        return split


@dataclass(frozen=True)
class Folds:
    """Validation parts that together hold every image once, but for the test images."""

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()

    def split(self, fold: int) -> Split:
        """The split in which one fold (from 0) validates and the others train."""
        others = (name for index, names in enumerate(self.folds) if index != fold for name in names)
        return Split(in_order(others), self.folds[fold], self.test)

    def save(self, path: str | Path) -> None:
        """Writes JSON atomically: {"folds": [[...], ...], "test": [...]}."""
        write_json(path, asdict(self))


def load_split(path: str | Path) -> Split | Folds:
    """Reads a file that `save` of either wrote; DataError when it is missing or neither."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give data.split_file a saved split") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a saved split (JSON): {error}") from None
    return _from_table(table, path)


def _from_table(table: object, path: str | Path) -> Split | Folds:
    keys = set(table) if isinstance(table, dict) else set()
    if not isinstance(table, dict) or not (
        {"train", "val"} <= keys <= set(PARTS) or {"folds"} <= keys <= {"folds", "test"}
    ):
        raise DataError(
            f'{path}: not a saved split: it must be {{"train": [...], "val": [...]}} or '
            '{"folds": [[...], [...]]}'
        )
    if "train" in keys:
        parts = _named_lists(table, path)
        return Split(*(parts.get(part, ()) for part in PARTS))
    folds, test = table["folds"], table.get("test", [])
    if not isinstance(folds, list) or len(folds) < 2:
        raise DataError(f"{path}: folds must be a list of at least two lists of names")
    numbered = {f"fold {index}": names for index, names in enumerate(folds)}
    parts = _named_lists({"test": test, **numbered}, path)
    return Folds(tuple(parts[fold] for fold in numbered), parts["test"])


def _named_lists(table: Mapping[str, object], path: str | Path) -> dict[str, tuple[str, ...]]:
    parts: dict[str, tuple[str, ...]] = {}
    for part, names in table.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: {part} must be a list of names")
        parts[part] = tuple(names)
    twice = _twice([name for names in parts.values() for name in names])
    if twice:
        raise DataError(
            f"{path}: names that stand twice: {name_some(twice)}; keep each in one part"
        )
    return parts


def _twice(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]


def make_split(dataset: "Dataset", config: DataConfig) -> Split:
    """Splits a dataset: a saved file goes before folds, split folders, and seed and fractions.

    By fractions the order is that of a hash of seed and name: the same on every machine, and new
    images move few of the old ones. Images of one group (`config.groups`) and duplicates stay
    together. With `config.stratify` each part gets its share of empty, small and large masks
    (two classes) or of the images with rare classes (more). `max_train_images` cuts the training
    names last. DataError when a part is left empty.
    """
    split = draw_split(dataset, config)
    _check(split, dataset, config)
    _check_groups(split, config.groups, dataset.source)
    return split


def draw_split(dataset: "Dataset", config: DataConfig) -> Split:
    """The split of `make_split`, also when a part is empty or a given one tears groups apart."""
    if config.split_file:
        split = _from_file(dataset, config)
    elif config.folds:
        split = make_folds(dataset, config).split(config.fold)
    elif dataset.predefined:
        split = _from_folders(dataset, dataset.predefined, config)
    else:
        split = _by_fractions(dataset, dataset.names, config, config.test_fraction)
    if config.max_train_images:
        kept = sorted(split.train, key=lambda name: seeded(config.split_seed, name))
        split = Split(in_order(kept[: config.max_train_images]), split.val, split.test)
    return split


def make_folds(dataset: "Dataset", config: DataConfig) -> Folds:
    """Deals a dataset to `config.folds` validation parts, by the rules of `make_split`.

    The test images are those of the test folder, else `config.test_fraction` of all; the folders of
    training and validation are dealt anew. DataError when there are fewer units than folds.
    """
    folders = dataset.predefined or {}
    test = folders.get("test", ())
    strata = strata_of(dataset, _without(dataset.names, test), config)
    if not folders:
        test = tuple(draw(strata, config.test_fraction * len(dataset)))
    if sum(map(len, strata)) < config.folds:
        raise DataError(
            f"{dataset.source}: data.folds={config.folds} needs as many images or groups, there "
            f"are {sum(map(len, strata))}; lower data.folds or add images"
        )
    left = range(config.folds, 0, -1)
    folds = [draw(strata, sum(map(size, strata)) / more) for more in left]
    return Folds(tuple(map(in_order, folds)), in_order(test))


def _without(names: Sequence[str], out: Sequence[str]) -> list[str]:
    gone = set(out)
    return [name for name in names if name not in gone]


def _from_file(dataset: "Dataset", config: DataConfig) -> Split:
    saved = load_split(config.split_file)
    if isinstance(saved, Folds):
        count = len(saved.folds)
        if config.fold >= count or config.folds not in (0, count):
            raise DataError(
                f"{config.split_file}: holds {count} folds; set data.fold to 0 ... {count - 1} and "
                "leave data.folds away"
            )
        split = saved.split(config.fold)
    elif config.folds:
        raise DataError(
            f"{config.split_file}: holds one split; leave data.folds={config.folds} away"
        )
    else:
        split = saved
    unknown = set(split.train + split.val + split.test) - set(dataset.names)
    if unknown:
        raise DataError(
            f"{config.split_file}: {len(unknown)} names are not in {dataset.source}: "
            f"{name_some(in_order(unknown))}; use the data it was made for or split anew"
        )
    return split


def _from_folders(
    dataset: "Dataset", folders: Mapping[str, tuple[str, ...]], config: DataConfig
) -> Split:
    test = folders.get("test", ())
    if "val" in folders:
        return Split(folders["train"], folders["val"], test)
    split = _by_fractions(dataset, folders["train"], config, 0.0)
    return Split(split.train, split.val, test)


def _by_fractions(
    dataset: "Dataset", names: Sequence[str], config: DataConfig, test_fraction: float
) -> Split:
    strata = strata_of(dataset, names, config)
    test = draw(strata, test_fraction * len(names))
    val = draw(strata, config.val_fraction * len(names))
    train = draw(strata, sum(map(size, strata)))
    return Split(in_order(train), in_order(val), in_order(test))


def torn_groups(split: Split, pattern: str) -> dict[str, tuple[str, ...]]:
    """The groups that stand in more than one part, and in which."""
    parts: dict[str, dict[str, None]] = {}
    for part in PARTS if pattern else ():
        for name in getattr(split, part):
            parts.setdefault(group_of(name, pattern), {})[part] = None
    return {group: tuple(where) for group, where in parts.items() if len(where) > 1}


def _check_groups(split: Split, pattern: str, source: str) -> None:
    """A split by folders or from a file may tear a group apart; that is for its maker to mend."""
    torn = torn_groups(split, pattern)
    if torn:
        raise DataError(
            f"{source}: groups that stand in more than one part of the split: {name_some(torn)}; "
            "move their images into one part, or leave data.groups empty"
        )


def _check(split: Split, dataset: "Dataset", config: DataConfig) -> None:
    count = len(dataset)
    if not split.val:
        raise DataError(
            f"{dataset.source}: zero validation samples of {count} "
            f"(data.val_fraction={config.val_fraction:g}); "
            "raise data.val_fraction, add images, or name some in data.split_file"
        )
    if not split.train:
        raise DataError(
            f"{dataset.source}: zero training samples of {count} "
            f"(data.val_fraction={config.val_fraction:g}, "
            f"data.test_fraction={config.test_fraction:g}); lower both, add images, or check "
            "data.groups" + " and the duplicates (`tinyseg data check`)" * bool(dataset.duplicates)
        )
