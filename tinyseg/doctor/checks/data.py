"""Checks of the files, before any network sees them, and of the network input."""

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding, worst
from tinyseg.data import InputStatistics, image_moments, is_foreground, prepare_images
from tinyseg.data.checks.check import check
from tinyseg.doctor.check import Check, error, ok, only_if, warning
from tinyseg.doctor.project import MAX_IMAGES, Project, evenly_spaced
from tinyseg.errors import DataError

MAX_MEAN, MAX_STD, MIN_STD = 3.0, 4.0, 0.05
"""Mean and std of the network input that are far from 0 and 1."""
MIN_ALIKE, MIN_SHARE = 0.05, 0.02
"""Correlation of neighboring pixels in anything but noise, and in masks of at least this share."""


def _opens(project: Project) -> bool:
    try:
        return len(project.dataset) > 0
    except DataError:
        return False  # `file_errors` says why


readable_only = only_if(_opens)


@readable_only
def images_differ(project: Project) -> list[Finding]:
    """The dataset is more than copies of one image."""
    groups = [same.names for same in project.dataset.duplicates if same.kind == "identical"]
    largest = max(groups, key=len, default=())
    count = len(project.dataset)
    if len(largest) <= max(2, count / 2):
        return []
    what = f"{len(largest)} of {count} images are identical, pixel for pixel"
    why = "the network trains and validates on what is in effect a single image"
    remedy = "check the script that wrote the files: it may save the same image every time"
    return error("one image", what, why, remedy, largest)


@readable_only
def validation_is_separate(project: Project) -> list[Finding]:
    """Most validation images are no training images."""
    train, val = set(project.split.train), set(project.split.val)
    shared = {
        name
        for same in project.dataset.duplicates
        if train & set(same.names)
        for name in val & set(same.names)
    }
    if len(shared) <= max(2, len(val) / 2):
        return []
    what = f"{len(shared)} of {len(val)} validation images are also training images"
    why = "the validation score then shows how well images are memorized, not how well the network "
    why += "works on new ones"
    remedy = "remove the copies, or remove data.split_file so that tinyseg splits the images itself"
    return error("val in train", what, why, remedy, sorted(shared))


def data_check(project: Project) -> list[Finding]:
    """Return the findings of `tinyseg data check`."""
    return list(check(project.source, project.config).findings)


def file_errors(project: Project) -> list[Finding]:
    """No file stops a run or spoils its split."""
    findings = project.once(data_check)
    return findings if worst(findings) == "error" else []


def file_remarks(project: Project) -> list[Finding]:
    """The warnings and notes of `tinyseg data check`."""
    return project.once(data_check)


def input_range(project: Project) -> list[Finding]:
    """The network input has a mean near 0 and a standard deviation near 1."""
    moments = project.input_moments
    means, stds = moments[:, 0].mean(axis=0), moments[:, 1].mean(axis=0)
    pairs = zip(means.round(2) + 0.0, stds, strict=True)  # 0.0: no minus sign before 0.00
    channels = [f"mean {mean:.2f}, std {std:.2f}" for mean, std in pairs]
    low, high = moments[:, 2].min(), moments[:, 3].max()
    what = f"network input: {'; '.join(channels)}; values from {low:.2f} to {high:.2f}"
    if (np.abs(means) <= MAX_MEAN).all() and ((stds <= MAX_STD) & (stds >= MIN_STD)).all():
        return ok("inputs", what)
    why = "weights are initialized for inputs with mean 0 and std 1; otherwise the first layers "
    why += "saturate and the usual learning rates do not fit"
    return warning("input range", what, why, "set data.normalize=dataset, the default")


def labels_and_images_are_no_noise(project: Project) -> list[Finding]:
    """Neighboring pixels are alike, in masks and in images."""
    masks = is_foreground(project.tiles.labels).astype(np.float64)
    few = not MIN_SHARE < masks.mean() < 1 - MIN_SHARE
    alike = 1.0 if few else _neighbors(masks)
    if alike < MIN_ALIKE:
        what = f"the masks are noise: neighboring pixels have a correlation of {alike:.2f}"
        why = "there are no objects in such labels, so there is nothing to learn but single pixels"
        remedy = "check the mask files: their type, their size, and the script that wrote them"
        return error("labels", what, why, remedy)
    alike = _neighbors(np.stack([tile.pixels.mean(axis=2) for tile in project.tiles]))
    if alike >= MIN_ALIKE:
        return []
    what = f"the images are noise: neighboring pixels have a correlation of {alike:.2f}"
    why = "the network cannot see objects in images of noise: it can only memorize labels"
    remedy = "check the image files: their bit depth, byte order and the script that wrote them"
    return error("images", what, why, remedy)


def _neighbors(x_nhw: Array) -> float:
    """Return the correlation of pixels that lie side by side."""
    x = x_nhw - x_nhw.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    variance = float(np.square(x).mean())
    pairs = (x[:, 1:] * x[:, :-1]).mean() + (x[:, :, 1:] * x[:, :, :-1]).mean()
    return float(pairs / 2 / variance) if variance else 1.0


# `run` compares all its validation images with the training images itself
@only_if(lambda project: project.run is None and bool(project.split.val))
def validation_looks_alike(project: Project) -> list[Finding]:
    """Validation images look like training images."""
    if len(project.tiles) < 2:
        return []
    names = evenly_spaced(project.split.val, MAX_IMAGES)
    tiles = prepare_images(project.dataset, names, project.input_pipeline)
    moments = image_moments(project.input_pipeline.to_batch(list(tiles)))
    drift = InputStatistics.of(project.input_moments).drift(moments)
    if not drift:
        return []
    what = f"the validation images differ from the training images: {drift}"
    why = "the validation score then says little about images like those in the training set"
    remedy = "remove data.split_file to split at random, unless you want to test on another device"
    return warning("drift", what, why, remedy)


DATA_CHECKS: tuple[Check, ...] = (images_differ, validation_is_separate, file_errors)
INPUT_CHECKS: tuple[Check, ...] = (
    labels_and_images_are_no_noise,
    input_range,
    validation_looks_alike,
    file_remarks,
)
