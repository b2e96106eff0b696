"""Check whether a split is fair: no image in two parts, and parts that are alike."""

from collections.abc import Iterator, Sequence

import numpy as np

from tinyseg.common.findings import Finding, listed
from tinyseg.config import Config, DataConfig
from tinyseg.data.checks.labels import class_name, foreground_share, pixels_of
from tinyseg.data.dataset import Dataset
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.splits.groups import strata_of
from tinyseg.data.splits.split import PARTS, Folds, Split, scattered_groups

FEW_TRAIN, FEW_VAL = 8, 5
"""With fewer images training is only a trial, and a validation score is noise."""
UNBALANCED = 2.0
"""Factor between the mean foreground of training and validation from which they differ."""
STOPS = "training would stop with an error"
NO_BEST = f"the best epoch could not be determined, and {STOPS}"


def duplicate_findings(dataset: Dataset, split: Split | None = None) -> Iterator[Finding]:
    """Yield the duplicates: one picture in two parts is a leak, within one part a note."""
    parts = {part: set(getattr(split, part)) for part in PARTS} if split else {}
    leaks, within = list[str](), list[Duplicate]()
    for same in dataset.duplicates:
        members = {part: [n for n in same.names if n in names] for part, names in parts.items()}
        where = [f"{part}: {', '.join(names)}" for part, names in members.items() if names]
        if len(where) > 1:
            leaks.append(f"{'; '.join(where)} ({same.words})")
        else:
            within.append(same)
    why = "scores are too high, because the network was trained on copies of the scored images"
    remedy = (
        "move all copies into one part, or remove some; tinyseg's own splits keep copies together"
    )
    yield from listed(
        "error", "leak", "the same image in two parts of the split", leaks, why, remedy
    )
    title, why = (
        "equal images with different masks",
        "the network is trained on contradictory masks for the same image",
    )
    remedy = "keep only the correct mask"
    yield from listed("warning", "contradiction", title, _contradictions(dataset), why, remedy)
    title, why = (
        "the same image under several names, within one part of the split",
        "it counts more than once",
    )
    remedy = "keep one copy unless this is intended; tinyseg's own splits keep copies together"
    yield from listed("note", "duplicates", title, within, why, remedy)


def _contradictions(dataset: Dataset) -> Iterator[Duplicate]:
    for same in dataset.duplicates:
        masks = [dataset.class_pixels(dataset.index(name)) for name in same.names]
        if same.kind == "identical" and any(mask != masks[0] for mask in masks):
            yield same


def split_findings(dataset: Dataset, split: Split, config: Config) -> Iterator[Finding]:
    """Yield whether training and validation are large enough, alike, and apart."""
    groups = scattered_groups(split, config.data.groups)
    lines = [f"{group}: {' and '.join(parts)}" for group, parts in groups.items()]
    why = "images of the same patient or video are alike, so the validation score is too high"
    remedy = "move their images into one part, or leave data.groups empty"
    yield from listed(
        "error", "groups", "groups in more than one part of the split", lines, why, remedy
    )
    yield from _counts(split, config.train.batch_size)
    yield from _chained(dataset, config.data)
    used = {name for part in PARTS for name in getattr(split, part)}
    unused = [name for name in dataset.names if name not in used]
    yield from listed("note", "split", "images in no part of the split", unused)
    yield from _balance(dataset, split)
    yield from _absent_classes(dataset, split)


def _counts(split: Split, batch: int) -> Iterator[Finding]:
    train, val = len(split.train), len(split.val)
    if not val:
        remedy = "raise data.val_fraction, add images, or name some in data.split_file"
        yield Finding("error", "split", "no validation images", NO_BEST, remedy)
    elif val < FEW_VAL:
        why = "a single image changes the score considerably"
        remedy = "cross-validate (data.folds=5 data.fold=0, then 1 ...), raise data.val_fraction, "
        remedy += "or add images"
        yield Finding("warning", "split", f"few validation images: {val}", why, remedy)
    if train < batch:
        seen = f"{train} training images are fewer than a batch of {batch}"
        remedy = f"set train.batch_size={max(train, 1)}, lower data.val_fraction, or add images"
        yield Finding("error", "split", seen, STOPS, remedy)
    elif train < FEW_TRAIN:
        why = "a network easily memorizes so few images and does not generalize"
        yield Finding("warning", "split", f"few training images: {train}", why, "add images")


def _chained(dataset: Dataset, config: DataConfig) -> Iterator[Finding]:
    """Report when half of the images must stay together: a still camera, or a wrong pattern."""
    units = [unit for units in strata_of(dataset, dataset.names, config) for unit in units]
    largest, count = max(units, key=len), len(dataset)
    if config.split_file or dataset.predefined or len(largest) <= count / 2:
        return
    seen = f"{len(largest)} of {count} images are linked by duplicates or data.groups"
    why = "a split keeps them together, so few or no images are left for the other parts"
    remedy = "check data.groups; or divide them by hand in data.split_file, and expect scores "
    remedy += "that are too good"
    yield Finding("warning", "split", seen, why, remedy, largest)


def _balance(dataset: Dataset, split: Split) -> Iterator[Finding]:
    pixels = pixels_of(dataset)
    shares = {p: [foreground_share(pixels[name]) for name in getattr(split, p)] for p in PARTS}
    shares = {part: values for part, values in shares.items() if values}
    seen = " / ".join(f"{len(values)} {part}" for part, values in shares.items())
    lines = tuple(_summary(part, values) for part, values in shares.items())
    yield Finding("ok", "split", f"{seen} images", evidence=lines)
    train, val = (float(np.mean(shares.get(part, [0.0]))) for part in ("train", "val"))
    remedy = "set another data.split_seed, raise data.val_fraction, or leave data.stratify=true"
    if split.val and not val:
        seen = f"none of the {len(split.val)} validation images has foreground"
        yield Finding("error", "balance", seen, NO_BEST, remedy)
    elif split.val and split.train and not train / UNBALANCED <= val <= train * UNBALANCED:
        seen = f"foreground is {train:.1%} in training but {val:.1%} in validation"
        why = "the validation images are not representative of the training images"
        yield Finding("warning", "balance", seen, why, remedy)


def _summary(part: str, shares: Sequence[float]) -> str:
    return (
        f"{part}: {len(shares)} images, {shares.count(0.0)} empty, foreground "
        f"{np.mean(shares):.1%} (from {min(shares):.1%} to {max(shares):.1%})"
    )


def _absent_classes(dataset: Dataset, split: Split) -> Iterator[Finding]:
    pixels = pixels_of(dataset)
    parts = [("train", "error", "these classes cannot be learned")]
    # of two classes: that no validation image has foreground is reported by `_balance`
    parts += [("val", "warning", "these classes have no score")] if dataset.classes > 2 else []
    remedy = "add images with them, change the split, or merge classes by data.labels"
    for part, level, why in parts:
        names = getattr(split, part)
        present = {class_id for name in names for class_id in pixels[name]}
        absent = [c for c in range(dataset.classes) if names and c not in present]
        lines = [class_name(dataset, class_id) for class_id in absent]
        yield from listed(level, "classes", f"classes in no {part} image", lines, why, remedy)


def fold_findings(dataset: Dataset, folds: Folds) -> list[Finding]:
    """Return what each fold holds."""
    pixels = pixels_of(dataset)
    lines = tuple(
        _summary(f"fold {number}", [foreground_share(pixels[name]) for name in names])
        for number, names in enumerate(folds.folds)
    )
    return [Finding("ok", "folds", f"{len(lines)} folds", evidence=lines)]
