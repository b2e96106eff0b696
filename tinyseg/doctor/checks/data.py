"""What the files of a data set say before any network sees them."""

from collections.abc import Callable

import numpy as np

from tinyseg.common.findings import Finding, worst
from tinyseg.data import InputStatistics, image_moments, prepare_images
from tinyseg.data.checks.check import check
from tinyseg.doctor.project import MOST, Project
from tinyseg.errors import DataError

FAR, WIDE, NARROW = 3.0, 4.0, 0.05
"""Mean and deviation at the network's door that are far from 0 and 1."""


def data_check(project: Project) -> list[Finding]:
    """All that `tinyseg data check` knows."""
    return list(check(project.source, project.config).findings)


def _opens(project: Project) -> bool:
    try:
        return len(project.dataset) > 0
    except DataError:
        return False  # `files` tells why


def variety(project: Project) -> list[Finding]:
    """The data set is more than one picture."""
    if not _opens(project):
        return []
    groups = [same.names for same in project.dataset.duplicates if same.kind == "identical"]
    largest = max(groups, key=len, default=())
    count = len(project.dataset)
    if len(largest) <= max(2, count / 2):
        return []
    return [
        Finding(
            "error",
            "one image",
            f"{len(largest)} of {count} images are the same picture, pixel for pixel",
            "however many files there are, the network sees one image, and validation sees it too",
            "look at how the files were written: a loop that saves the first one again and again?",
            tuple(largest),
        )
    ]


def validation_apart(project: Project) -> list[Finding]:
    """Validation is not the training set once more."""
    if not _opens(project):
        return []
    split = project.split
    train, val = set(split.train), set(split.val)
    seen = {
        name
        for same in project.dataset.duplicates
        if train & set(same.names)
        for name in val & set(same.names)
    }
    if len(seen) <= max(2, len(val) / 2):
        return []
    return [
        Finding(
            "error",
            "val in train",
            f"{len(seen)} of {len(val)} validation images are training images too",
            "the score says how well images are known by heart, not how well new ones are read",
            "hold images out that are in no other part: remove the copies, or leave "
            "data.split_file away and let data.val_fraction split them",
            tuple(sorted(seen)),
        )
    ]


def files(project: Project) -> list[Finding]:
    """Nothing in the files keeps a run from starting or spoils its split."""
    found = project.once(data_check)
    return found if worst(found) == "error" else []


def remarks(project: Project) -> list[Finding]:
    """The rest of what `data check` says."""
    return project.once(data_check)


def at_the_door(project: Project) -> list[Finding]:
    """Images reach the network with a mean near 0 and a deviation near 1."""
    moments = project.moments
    mean, deviation = moments[:, 0].mean(axis=0), moments[:, 1].mean(axis=0)
    told = [f"mean {m:.2f} deviation {d:.2f}" for m, d in zip(mean, deviation, strict=True)]
    low, high = moments[:, 2].min(), moments[:, 3].max()
    seen = f"at the network's door: {', '.join(told)} (values {low:.2f} to {high:.2f})"
    if (np.abs(mean) > FAR).any() or (deviation > WIDE).any() or (deviation < NARROW).any():
        return [
            Finding(
                "warning",
                "input range",
                seen,
                "weights are drawn for inputs near mean 0 and deviation 1: with others the first "
                "layers saturate, and the learning rate does not fit",
                "set data.normalize=dataset (the default), which brings them there",
            )
        ]
    return [Finding("ok", "inputs", seen)]


def drawn_alike(project: Project) -> list[Finding]:
    """Validation images look like those of training."""
    val = project.split.val
    if len(project.squares) < 2 or not val or project.run:  # a run is told of all its images
        return []
    chosen = [val[int(i)] for i in np.linspace(0, len(val) - 1, min(len(val), MOST))]
    there = prepare_images(project.dataset, chosen, project.input_pipeline)
    unlike = InputStatistics.of(project.moments).drift(
        image_moments(project.input_pipeline.to_batch(list(there)))
    )
    if not unlike:
        return []
    return [
        Finding(
            "warning",
            "drawn apart",
            f"validation images are unlike those of training: {unlike}",
            "the score is of other images than those that are learned",
            "split at random (data.split_seed, data.stratify=true), or know that you test for "
            "another device",
        )
    ]


DATA_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (variety, validation_apart, files)
LOOK_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (at_the_door, drawn_alike, remarks)
