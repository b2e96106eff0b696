"""What the labels of a dataset hold, and whether its split is fair: findings of a check."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tinyseg.common.findings import Finding, listed
from tinyseg.config import IGNORE, Config, DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.resize import prepare_label
from tinyseg.data.reading.label_map import is_foreground, value_text
from tinyseg.data.splits.split import PARTS, Folds, Split, torn_groups
from tinyseg.data.splits.strata import strata_of

FEW_TRAIN, FEW_VAL = 8, 5
"""Below so many images training is for trying only, and a score is chance."""
UNLIKE = 2.0
"""Factor between the mean foreground of training and validation from which they are unlike."""
RARE = 0.01
"""Share of foreground below which a plain loss may learn to predict nothing."""


def class_findings(dataset: Dataset, config: DataConfig, scanned: bool) -> list[Finding]:
    """What the masks hold under the label map, which a scan may have guessed wrongly."""
    pixels = _pixels(dataset)
    shares = {name: foreground(counts) for name, counts in pixels.items()}
    share = float(np.mean(list(shares.values())))
    empty = [name for name, value in shares.items() if not value]
    full = [n for n, value in shares.items() if value == 1 and dataset.classes == 2]
    mostly = len(empty) > len(pixels) / 2
    return [
        _classes(dataset, pixels),
        *listed(
            "warning" if mostly else "note",
            "empty masks",
            f"masks without any object, of {len(pixels)}",
            empty,
            "most steps see background only" if mostly else "",
            "look whether their objects are lost; else leave some out" if mostly else "",
        ),
        *listed(
            "warning",
            "ignored masks",
            "masks that are ignored throughout",
            [name for name, counts in pixels.items() if set(counts) == {IGNORE}],
            "they teach nothing and no score counts them",
            "check data.labels, or remove them",
        ),
        *listed(
            "error" if len(full) == len(pixels) else "warning",
            "full masks",
            "masks that are foreground throughout",
            full,
            "often a mask that was exported without its background, or one of several values (a "
            "trimap of 1, 2 and 3) that is read as if all above 0 were one class",
            'look at them; give each value its class, e.g. data.labels="1:1,2:0,3:ignore"',
        ),
        *listed(
            "warning",
            "lost objects",
            f"masks that lose all objects when scaled to data.size={config.size}",
            _lost(dataset, pixels, config),
            "the network is taught that there is nothing",
            "raise data.size",
        ),
        *(_swapped(dataset, share) if scanned else []),
        *_rare(share),
    ]


def _pixels(dataset: Dataset) -> dict[str, Mapping[int, int]]:
    return {name: dataset.class_pixels(index) for index, name in enumerate(dataset.names)}


def _lost(
    dataset: Dataset, pixels: Mapping[str, Mapping[int, int]], config: DataConfig
) -> Iterable[str]:
    """Only what is small is looked at: fewer than 16 pixels are left of its area."""
    for index, (name, counts) in enumerate(pixels.items()):
        share = foreground(counts)
        if config.fit == "resize" and 0 < share * config.size**2 < 16:
            label = dataset[index].label
            small = None if label is None else prepare_label(label, config.size, config.fit)
            if small is not None and not is_foreground(small).any():
                yield name


def foreground(counts: Mapping[int, int]) -> float:
    """Share of the pixels that are neither background nor ignored, of those not ignored."""
    valid = sum(n for kind, n in counts.items() if kind != IGNORE)
    return (valid - counts.get(0, 0)) / valid if valid else 0.0


def _classes(dataset: Dataset, pixels: Mapping[str, Mapping[int, int]]) -> Finding:
    total = max(1, sum(sum(counts.values()) for counts in pixels.values()))
    lines = []
    for kind in (*range(dataset.classes), IGNORE):
        count = sum(counts.get(kind, 0) for counts in pixels.values())
        masks = sum(kind in counts for counts in pixels.values())
        values = [value_text(value) for value, c in dataset.label_map.items() if c == kind]
        shown = ", ".join(values[:4]) + " ..." * (len(values) > 4)
        where = f"{count / total:.2%} of the pixels, in {masks} of {len(pixels)} masks"
        if kind != IGNORE or count:
            lines.append(f"{_class_name(dataset, kind)} (mask value {shown}): {where}")
    return Finding("ok", "classes", f"{dataset.classes} classes", evidence=tuple(lines))


def _class_name(dataset: Dataset, kind: int) -> str:
    if kind == IGNORE:
        return "ignored"
    name = dataset.class_names[kind]
    return name if name == f"class {kind}" else f"class {kind} {name}"


def _swapped(dataset: Dataset, share: float) -> list[Finding]:
    if share <= 0.5 or dataset.classes != 2:
        return []
    values = {kind: value_text(value) for value, kind in dataset.label_map.items()}
    back, front = values[0], values[1]
    return [
        Finding(
            "warning",
            "foreground",
            f"{share:.0%} of the pixels are foreground",
            "the score of what fills the image is high whatever a network learns",
            f'if value {back} is the object set data.labels="{back}:1,{front}:0"',
        )
    ]


def _rare(share: float) -> list[Finding]:
    if not 0 < share < RARE:
        return []
    why = "cross-entropy alone may learn to predict nothing"
    remedy = 'keep the default loss, which has a Dice part, or set train.loss="focal_tversky"'
    return [Finding("note", "foreground", f"{share:.2%} of the pixels are foreground", why, remedy)]


def duplicate_findings(dataset: Dataset, split: Split | None = None) -> list[Finding]:
    """One picture in two parts is a leak; within a part it is told only."""
    parts = {part: set(getattr(split, part)) for part in PARTS} if split else {}
    leaks, within = [], []
    for same in dataset.duplicates:
        met = {part: [name for name in same.names if name in parts[part]] for part in parts}
        met = {part: names for part, names in met.items() if names}
        where = "; ".join(f"{part}: {', '.join(names)}" for part, names in met.items())
        if len(met) > 1:
            leaks.append(f"{where} ({same.words})")
        else:
            within.append(same)
    return [
        *listed(
            "error",
            "leak",
            "one picture in two parts of the split",
            leaks,
            "scores come out too good: the network has seen the answer",
            "move all into one part, or remove some; splits made here never tear them apart",
        ),
        *listed(
            "warning",
            "contradiction",
            "equal images with different masks",
            _contradictions(dataset),
            "the network is told two things of one picture",
            "keep the mask that is right",
        ),
        *listed(
            "note",
            "duplicates",
            "one picture under several names, within one part",
            within,
            "it counts more than once",
            "keep one if that is not meant; splits made here never tear them apart",
        ),
    ]


def _contradictions(dataset: Dataset) -> Iterable[object]:
    for same in dataset.duplicates:
        masks = [dataset.class_pixels(dataset.index(name)) for name in same.names]
        if same.kind == "identical" and any(mask != masks[0] for mask in masks):
            yield same


def split_findings(dataset: Dataset, split: Split, config: Config) -> list[Finding]:
    """Whether training and validation are large enough, alike, and apart."""
    pixels = _pixels(dataset)
    parts = {part: getattr(split, part) for part in PARTS if getattr(split, part)}
    torn = torn_groups(split, config.data.groups)
    used = {name for names in parts.values() for name in names}
    return [
        *listed(
            "error",
            "groups",
            "groups that stand in more than one part of the split",
            [f"{group}: {' and '.join(where)}" for group, where in torn.items()],
            "a patient or a video that is trained on is recognised in validation",
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
        *_shares(parts, pixels),
        *_absent(parts, pixels, dataset),
    ]


def _counts(split: Split, batch: int) -> list[Finding]:
    train, val = len(split.train), len(split.val)
    found = []
    if not val:
        remedy = "raise data.val_fraction, add images, or name some in data.split_file"
        why = "no epoch could be called the best, and a run stops before it starts"
        found.append(Finding("error", "split", "no validation images", why, remedy))
    elif val < FEW_VAL:
        remedy = (
            "cross-validate (data.folds=5 data.fold=0, then 1 ...), raise data.val_fraction, or "
            "add images"
        )
        why = "one image more or less moves the score by a lot"
        found.append(Finding("warning", "split", f"few validation images: {val}", why, remedy))
    if train < batch:
        seen = f"{train} training images are fewer than a batch of {batch}"
        remedy = f"set train.batch_size={max(train, 1)}, lower data.val_fraction, or add images"
        found.append(Finding("error", "split", seen, "a run stops before it starts", remedy))
    elif train < FEW_TRAIN:
        why = "a network learns so few by heart and little else"
        seen = f"few training images: {train}"
        found.append(Finding("warning", "split", seen, why, "add images"))
    return found


def _chained(dataset: Dataset, config: DataConfig) -> list[Finding]:
    """Images of which more than half must stay together: a camera at rest, or a wrong pattern."""
    units = [unit for units in strata_of(dataset, dataset.names, config) for unit in units]
    largest = max(units, key=len)
    if config.split_file or dataset.predefined or len(largest) <= len(dataset) / 2:
        return []
    seen = f"{len(largest)} of {len(dataset)} images hang together by duplicates or data.groups"
    why = "no split tears them apart, so that the other images validate, or none are left to train"
    remedy = (
        "check data.groups; or part them by hand in data.split_file, and expect flattered scores"
    )
    return [Finding("warning", "split", seen, why, remedy, largest)]


def _shares(
    parts: Mapping[str, Sequence[str]], pixels: Mapping[str, Mapping[int, int]]
) -> list[Finding]:
    shares = {part: [foreground(pixels[name]) for name in names] for part, names in parts.items()}
    lines = [_line(part, values) for part, values in shares.items()]
    seen = " / ".join(f"{len(names)} {part}" for part, names in parts.items())
    train, val = (float(np.mean(shares.get(part, [0.0]))) for part in ("train", "val"))
    another = "set another data.split_seed, raise data.val_fraction, or leave data.stratify=true"
    found = [Finding("ok", "split", f"{seen} images", evidence=tuple(lines))]
    if "val" in parts and not val:
        seen = f"none of the {len(parts['val'])} validation images has foreground"
        why = "no epoch could be called the best, and a run stops before it starts"
        found.append(Finding("error", "balance", seen, why, another))
    elif {"train", "val"} <= parts.keys() and not train / UNLIKE <= val <= train * UNLIKE:
        seen = f"foreground is {train:.1%} in training but {val:.1%} in validation"
        why = "the score is of other images than those that are learned"
        found.append(Finding("warning", "balance", seen, why, another))
    return found


def _line(part: str, shares: Sequence[float]) -> str:
    return (
        f"{part}: {len(shares)} images, {shares.count(0.0)} empty, foreground "
        f"{np.mean(shares):.1%} (from {min(shares):.1%} to {max(shares):.1%})"
    )


def fold_findings(dataset: Dataset, folds: Folds) -> list[Finding]:
    """What the folds hold, to be seen beside each other."""
    pixels = _pixels(dataset)
    lines = [
        _line(f"fold {number}", [foreground(pixels[name]) for name in names])
        for number, names in enumerate(folds.folds)
    ]
    return [Finding("ok", "folds", f"{len(lines)} folds", evidence=tuple(lines))]


def _absent(
    parts: Mapping[str, Sequence[str]],
    pixels: Mapping[str, Mapping[int, int]],
    dataset: Dataset,
) -> list[Finding]:
    """Classes that a part does not hold; that no validation image has any, `_shares` tells."""
    found = []
    for part, level, why in (
        ("train", "error", "they cannot be learned"),
        ("val", "warning", "they have no score"),
    ):
        held = {kind for name in parts.get(part, ()) for kind in pixels[name]}
        absent = [kind for kind in range(dataset.classes) if kind not in held]
        if part in parts and (dataset.classes > 2 or part == "train"):
            found += listed(
                level,
                "classes",
                f"classes in no {part} image",
                [_class_name(dataset, kind) for kind in absent],
                why,
                "add images with them, change the split, or merge classes by data.labels",
            )
    return found
