"""Check whether a split is fair: no image in two parts, and parts that are alike."""

from collections.abc import Iterator, Sequence

import numpy as np

from tinyseg.common.findings import Finding, listed
from tinyseg.config import Config, DataConfig
from tinyseg.data.checks.labels import class_name, foreground_share, pixels_of
from tinyseg.data.dataset import Dataset
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.splits.split import PARTS, Folds, Split, scattered_groups
from tinyseg.data.splits.strata import strata_of

FEW_TRAIN, FEW_VAL = 8, 5
"""With fewer images training is only a trial, and a validation score is noise."""
UNBALANCED = 2.0
"""Factor between the mean foreground of training and validation from which they differ."""
STOPS = "a run stops before it starts"
NO_BEST = f"no epoch could be called the best, and {STOPS}"


def duplicate_findings(dataset: Dataset, split: Split | None = None) -> list[Finding]:
    """Return the duplicates: one picture in two parts is a leak, within one part a note."""
    parts = {part: set(getattr(split, part)) for part in PARTS} if split else {}
    leaks, within = list[str](), list[Duplicate]()
    for same in dataset.duplicates:
        members = {part: [n for n in same.names if n in names] for part, names in parts.items()}
        where = [f"{part}: {', '.join(names)}" for part, names in members.items() if names]
        if len(where) > 1:
            leaks.append(f"{'; '.join(where)} ({same.words})")
        else:
            within.append(same)
    return [
        *listed(
            "error",
            "leak",
            "one picture in two parts of the split",
            leaks,
            "scores come out too good: the network has seen the answer",
            "move all into one part, or remove some; splits made here keep them together",
        ),
        *listed(
            "warning",
            "contradiction",
            "equal images with different masks",
            _contradictions(dataset),
            "the network learns two answers for one picture",
            "keep the mask that is right",
        ),
        *listed(
            "note",
            "duplicates",
            "one picture under several names, within one part",
            within,
            "it counts more than once",
            "keep one if that is not meant; splits made here keep them together",
        ),
    ]


def _contradictions(dataset: Dataset) -> Iterator[Duplicate]:
    for same in dataset.duplicates:
        masks = [dataset.class_pixels(dataset.index(name)) for name in same.names]
        if same.kind == "identical" and any(mask != masks[0] for mask in masks):
            yield same


def split_findings(dataset: Dataset, split: Split, config: Config) -> list[Finding]:
    """Return whether training and validation are large enough, alike, and apart."""
    groups = scattered_groups(split, config.data.groups)
    used = {name for part in PARTS for name in getattr(split, part)}
    return [
        *listed(
            "error",
            "groups",
            "groups in more than one part of the split",
            [f"{group}: {' and '.join(parts)}" for group, parts in groups.items()],
            "a patient or a video that is trained on is recognized in validation",
            "move their images into one part, or leave data.groups empty",
        ),
        *_counts(split, config.train.batch_size),
        *_chained(dataset, config.data),
        *listed(
            "note",
            "split",
            "images in no part of the split",
            [name for name in dataset.names if name not in used],
        ),
        *_balance(dataset, split),
        *_absent_classes(dataset, split),
    ]


def _counts(split: Split, batch: int) -> Iterator[Finding]:
    train, val = len(split.train), len(split.val)
    if not val:
        remedy = "raise data.val_fraction, add images, or name some in data.split_file"
        yield Finding("error", "split", "no validation images", NO_BEST, remedy)
    elif val < FEW_VAL:
        why = "one image more or less moves the score by a lot"
        remedy = "cross-validate (data.folds=5 data.fold=0, then 1 ...), raise data.val_fraction, "
        remedy += "or add images"
        yield Finding("warning", "split", f"few validation images: {val}", why, remedy)
    if train < batch:
        seen = f"{train} training images are fewer than a batch of {batch}"
        remedy = f"set train.batch_size={max(train, 1)}, lower data.val_fraction, or add images"
        yield Finding("error", "split", seen, STOPS, remedy)
    elif train < FEW_TRAIN:
        why = "a network memorizes so few and learns little else"
        yield Finding("warning", "split", f"few training images: {train}", why, "add images")


def _chained(dataset: Dataset, config: DataConfig) -> list[Finding]:
    """Report when half of the images must stay together: a still camera, or a wrong pattern."""
    units = [unit for units in strata_of(dataset, dataset.names, config) for unit in units]
    largest = max(units, key=len)
    if config.split_file or dataset.predefined or len(largest) <= len(dataset) / 2:
        return []
    return [
        Finding(
            "warning",
            "split",
            f"{len(largest)} of {len(dataset)} images hang together by duplicates or data.groups",
            "a split keeps them together, so that the others validate, or none are left to train",
            "check data.groups; or divide them by hand in data.split_file, and expect scores that "
            "are too good",
            largest,
        )
    ]


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
        why = "the score is of other images than those that are learned"
        yield Finding("warning", "balance", seen, why, remedy)


def _summary(part: str, shares: Sequence[float]) -> str:
    return (
        f"{part}: {len(shares)} images, {shares.count(0.0)} empty, foreground "
        f"{np.mean(shares):.1%} (from {min(shares):.1%} to {max(shares):.1%})"
    )


def _absent_classes(dataset: Dataset, split: Split) -> Iterator[Finding]:
    pixels = pixels_of(dataset)
    parts = [("train", "error", "they cannot be learned")]
    # of two classes: that no validation image has foreground is reported by `_balance`
    parts += [("val", "warning", "they have no score")] if dataset.classes > 2 else []
    for part, level, why in parts:
        names = getattr(split, part)
        present = {class_id for name in names for class_id in pixels[name]}
        absent = [class_id for class_id in range(dataset.classes) if class_id not in present]
        yield from listed(
            level,
            "classes",
            f"classes in no {part} image",
            [class_name(dataset, class_id) for class_id in absent] if names else [],
            why,
            "add images with them, change the split, or merge classes by data.labels",
        )


def fold_findings(dataset: Dataset, folds: Folds) -> list[Finding]:
    """Return what each fold holds."""
    pixels = pixels_of(dataset)
    lines = tuple(
        _summary(f"fold {number}", [foreground_share(pixels[name]) for name in names])
        for number, names in enumerate(folds.folds)
    )
    return [Finding("ok", "folds", f"{len(lines)} folds", evidence=lines)]
