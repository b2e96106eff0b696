"""Split images into training, validation and test: by a file, by folders, or by fractions."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tinyseg.common.files import write_json
from tinyseg.config import DataConfig
from tinyseg.data.sample import name_some
from tinyseg.data.splits.groups import draw, group_of, in_order, seeded, size, strata_of
from tinyseg.errors import DataError

if TYPE_CHECKING:
    from tinyseg.data.dataset import Dataset

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """The names of the images in each part, in natural order; each name appears once."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write JSON atomically."""
        write_json(path, asdict(self))

    @staticmethod
    def load(path: str | Path) -> "Split":
        """Read a saved split; DataError when it is missing or something else."""
        split = load_split(path)
        if isinstance(split, Folds):
            raise DataError(f"{path}: holds folds, not one split")
        return split


@dataclass(frozen=True)
class Folds:
    """Validation parts that together hold every image once, except the test images."""

    folds: tuple[tuple[str, ...], ...]
    test: tuple[str, ...] = ()

    def split(self, fold: int) -> Split:
        """Return the split in which one fold (from 0) validates and the others train."""
        others = (name for index, names in enumerate(self.folds) if index != fold for name in names)
        return Split(in_order(others), self.folds[fold], self.test)

    def save(self, path: str | Path) -> None:
        """Write JSON atomically: {"folds": [[...], ...], "test": [...]}."""
        write_json(path, asdict(self))


def load_split(path: str | Path) -> Split | Folds:
    """Read a file that `save` of either wrote; DataError when it is missing or neither."""
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give data.split_file a saved split") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a saved split (JSON): {error}") from None
    keys = set(table) if isinstance(table, dict) else set()
    if {"train", "val"} <= keys <= set(PARTS):
        parts = _named_lists(table, path)
        return Split(*(parts.get(part, ()) for part in PARTS))
    if not {"folds"} <= keys <= {"folds", "test"}:
        raise DataError(
            f'{path}: not a saved split: it must be {{"train": [...], "val": [...]}} or '
            '{"folds": [[...], [...]]}'
        )
    folds = table["folds"]
    if not isinstance(folds, list) or len(folds) < 2:
        raise DataError(f"{path}: folds must be a list of at least two lists of names")
    numbered = {f"fold {index}": names for index, names in enumerate(folds)}
    parts = _named_lists(numbered | {"test": table.get("test", [])}, path)
    return Folds(tuple(parts[fold] for fold in numbered), parts["test"])


def _named_lists(table: Mapping[str, object], path: str | Path) -> dict[str, tuple[str, ...]]:
    parts: dict[str, tuple[str, ...]] = {}
    for part, names in table.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path}: {part} must be a list of names")
        parts[part] = tuple(names)
    counts = Counter(name for names in parts.values() for name in names)
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise DataError(
            f"{path}: names that appear twice: {name_some(repeated)}; keep each in one part"
        )
    return parts


def make_split(dataset: "Dataset", config: DataConfig) -> Split:
    """Split a dataset: a saved file precedes folds, split folders, and seed and fractions.

    By fractions the order is that of a hash of seed and name: the same on every machine, and new
    images move few of the old ones. Images of one group (`config.groups`) and duplicates stay
    together. With `config.stratify` each part gets its share of empty, small and large masks
    (two classes) or of the images with rare classes (more). `max_train_images` cuts the training
    names last. DataError when a part is empty or a given split scatters a group.
    """
    split = draw_split(dataset, config)
    source, count = dataset.source, len(dataset)
    val_fraction = f"data.val_fraction={config.val_fraction:g}"
    if not split.val:
        raise DataError(
            f"{source}: zero validation samples of {count} ({val_fraction}); "
            "raise data.val_fraction, add images, or name some in data.split_file"
        )
    if not split.train:
        raise DataError(
            f"{source}: zero training samples of {count} ({val_fraction}, "
            f"data.test_fraction={config.test_fraction:g}); lower both, add images, or check "
            "data.groups" + " and the duplicates (`tinyseg data check`)" * bool(dataset.duplicates)
        )
    scattered = scattered_groups(split, config.groups)
    if scattered:
        raise DataError(
            f"{source}: groups in more than one part of the split: {name_some(scattered)}; "
            "move their images into one part, or leave data.groups empty"
        )
    return split


def draw_split(dataset: "Dataset", config: DataConfig) -> Split:
    """Return the split of `make_split`, even when a part is empty or a group scattered."""
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
        split = replace(split, train=in_order(kept[: config.max_train_images]))
    return split


def make_folds(dataset: "Dataset", config: DataConfig) -> Folds:
    """Divide a dataset into `config.folds` validation parts, by the rules of `make_split`.

    The test images are those of the test folder, else `config.test_fraction` of all; the folders of
    training and validation are divided anew. DataError when there are fewer units than folds.
    """
    folders = dataset.predefined or {}
    test = folders.get("test", ())
    reserved = set(test)
    names = [name for name in dataset.names if name not in reserved]
    strata = strata_of(dataset, names, config)
    if not folders:
        test = tuple(draw(strata, config.test_fraction * len(dataset)))
    units = sum(map(len, strata))
    if units < config.folds:
        raise DataError(
            f"{dataset.source}: data.folds={config.folds} needs as many images or groups, there "
            f"are {units}; lower data.folds or add images"
        )
    remaining = range(config.folds, 0, -1)
    folds = [draw(strata, sum(map(size, strata)) / count) for count in remaining]
    return Folds(tuple(map(in_order, folds)), in_order(test))


def _from_file(dataset: "Dataset", config: DataConfig) -> Split:
    split = load_split(config.split_file)
    if isinstance(split, Folds):
        count = len(split.folds)
        if config.fold >= count or config.folds not in (0, count):
            raise DataError(
                f"{config.split_file}: holds {count} folds; set data.fold to 0 ... {count - 1} and "
                "omit data.folds"
            )
        split = split.split(config.fold)
    elif config.folds:
        raise DataError(f"{config.split_file}: holds one split; omit data.folds={config.folds}")
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
    return replace(_by_fractions(dataset, folders["train"], config, 0.0), test=test)


def _by_fractions(
    dataset: "Dataset", names: Sequence[str], config: DataConfig, test_fraction: float
) -> Split:
    strata = strata_of(dataset, names, config)
    test = draw(strata, test_fraction * len(names))
    val = draw(strata, config.val_fraction * len(names))
    train = draw(strata, sum(map(size, strata)))
    return Split(in_order(train), in_order(val), in_order(test))


def scattered_groups(split: Split, pattern: str) -> dict[str, tuple[str, ...]]:
    """Return the groups that are in more than one part, and in which."""
    parts: dict[str, dict[str, None]] = {}
    for part in PARTS if pattern else ():
        for name in getattr(split, part):
            parts.setdefault(group_of(name, pattern), {})[part] = None
    return {group: tuple(where) for group, where in parts.items() if len(where) > 1}
