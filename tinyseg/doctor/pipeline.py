"""Whether image and label stay together on their way, in training and in prediction."""

from collections.abc import Callable

import numpy as np

from tinyseg.augment import Pipeline, alignment, on_host
from tinyseg.data import is_foreground, moments_of
from tinyseg.doctor.project import Project
from tinyseg.findings import Finding
from tinyseg.predict import Predictor

ROUNDS = 8
"""Checkerboards that are sent through a pipeline."""
KEPT = 0.5
"""Share of the foreground that an augmentation must leave."""
ALIKE = 0.02
"""Probability by which two ways to the network may differ."""


def aligned(project: Project) -> list[Finding]:
    """A checkerboard that is image and label at once comes out of every pipeline as one."""
    found = []
    for name, pipeline, levels in _pipelines(project):
        channels, size = project.dataset.channels, project.config.data.size
        seen = alignment(pipeline, size, channels, ROUNDS, levels)
        if seen.passed:
            found.append(Finding("ok", "alignment", f"{name}: {seen}"))
            continue
        found.append(
            Finding(
                "error",
                "alignment",
                f"{name}: {seen}",
                "the network is taught masks that are not those of its images",
                "give image and label the same draws, and labels nearest neighbours instead of "
                "smoothing; `tinyseg data preview DATA --out preview.png` shows it",
            )
        )
    return found


def _pipelines(project: Project) -> list[tuple[str, Pipeline, tuple[float, float]]]:
    found: list[tuple[str, Pipeline, tuple[float, float]]] = []
    if project.pipeline is not None:
        found.append(("the given pipeline", project.pipeline, (0, 255)))
    if project.config.train.augment not in ("", "none"):
        augment = project.config.train.augment
        found.append((f"train.augment={augment}", project.augment.pipeline, (-1.0, 1.0)))
    return found


def labels_kept(project: Project) -> list[Finding]:
    """Augmented labels hold the same classes, and most of what there was to find."""
    before, after = 0, 0
    for number in project.held[:ROUNDS] if project.pipeline else ():
        square, label = project.squares[number], project.squares.labels[number]
        assert project.pipeline is not None
        _, made = on_host(project.pipeline, square.pixels, label, project.dataset.classes, number)
        before, after = before + is_foreground(label).sum(), after + is_foreground(made).sum()
    if after >= KEPT * before:
        return []
    return [
        Finding(
            "warning",
            "lost labels",
            f"the pipeline leaves {after / before:.0%} of the foreground",
            "most steps see background only",
            "crop or cut out less, or around the objects",
        )
    ]


def prediction(project: Project) -> list[Finding]:
    """Prediction prepares an image as training does."""
    if isinstance(project.predictor, Predictor) and project.predictor.door is project.door:
        return []
    names = [project.name_of(square) for square in project.held[:3]]
    images = [project.dataset.load(project.dataset.index(name)).image for name in names]
    expected = Predictor(project.model, project.door, project.config.train.batch)(images)
    pairs = zip(expected, project.predictor(images), names, strict=True)
    apart = {name: float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b, name in pairs}
    if max(apart.values()) <= ALIKE:
        return [Finding("ok", "prediction", "prepares images as training does")]
    doors = {"training": project.door, "prediction": getattr(project.predictor, "door", None)}
    told = [f"{name}: probabilities {far:.2f} apart" for name, far in apart.items()]
    for where, door in doors.items():
        if door is not None:
            seen = moments_of(door.enter([door.fit(image) for image in images])).mean(axis=(0, 2))
            told.append(f"{where}: images with mean {seen[0]:.2f} and deviation {seen[1]:.2f}")
    return [
        Finding(
            "error",
            "prediction",
            "the same network gives other probabilities in prediction than on the images as "
            f"training prepares them (up to {max(apart.values()):.2f} apart)",
            "what was learned on one kind of input is asked about another",
            "prepare images the same way in both: one function, as tinyseg's Door; look at the "
            "normalisation, the size and the order of channels",
            tuple(told),
        )
    ]


PIPELINE_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (aligned, labels_kept, prediction)
