"""Whether image and label stay together on their way, in training and in prediction."""

from collections.abc import Callable

import numpy as np

from tinyseg.augment import Pipeline, alignment, on_host
from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.data import image_moments, is_foreground
from tinyseg.doctor.project import Project
from tinyseg.inference.predictor import Predictor

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
    """Prediction prepares an image as training does, and gives probabilities of it."""
    if (
        isinstance(project.predictor, Predictor)
        and project.predictor.input_pipeline is project.input_pipeline
    ):
        return []
    names = [project.name_of(square) for square in project.held[:3]]
    images = [project.dataset[name].image for name in names]
    expected = list(
        Predictor(project.model, project.input_pipeline, project.config.train.batch_size)(images)
    )
    found = [np.asarray(p) for p in project.predictor(images)]
    if wrong := _no_probabilities(expected, found):
        why = "what reads them takes (K, H, W) from 0 to 1, in the order of the images"
        return [Finding("error", "prediction", wrong[0], why, wrong[1])]
    apart = [_far(a, b) for a, b in zip(expected, found, strict=True)]
    if max(apart) <= ALIKE:
        return [Finding("ok", "prediction", "prepares images as training does")]
    turned = [np.asarray(p) for p in project.predictor([image[..., ::-1] for image in images])]
    told = [
        f"{name}: probabilities {far:.2f} apart" for name, far in zip(names, apart, strict=True)
    ]
    pipelines = {
        "training": project.input_pipeline,
        "prediction": getattr(project.predictor, "input_pipeline", None),
    }
    for where, pipeline in pipelines.items():
        if pipeline is not None:
            seen = image_moments(
                pipeline.to_batch([pipeline.tile(image) for image in images])
            ).mean(axis=(0, 2))
            told.append(f"{where}: images with mean {seen[0]:.2f} and std {seen[1]:.2f}")
    remedy = "prepare images the same way in both, and use the same weights: look at the "
    remedy += "normalisation, the size, what is cut off or padded, and the order of channels"
    if max(map(_far, expected, turned)) <= ALIKE:
        remedy = "read the channels in one order: prediction has RGB where training has BGR"
    return [
        Finding(
            "error",
            "prediction",
            "the same network gives other probabilities in prediction than on the images as "
            f"training prepares them (up to {max(apart):.2f} apart)",
            "what was learned on one kind of input is asked about another",
            remedy,
            tuple(told),
        )
    ]


def _far(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else np.inf


def _no_probabilities(expected: list[Array], found: list[Array]) -> tuple[str, str] | None:
    """What is wrong with the form of results, and what to do; None where they may be right."""
    if len(found) != len(expected):
        return f"{len(found)} results come for {len(expected)} images", "give one for each image"
    for i, own in enumerate(expected):
        if _far(own, found[i]) > ALIKE and any(_far(own, other) <= ALIKE for other in found):
            seen = f"the result of image {i + 1} stands in another place"
            return seen, "give results in the order of the images"
    wrong = [(b.shape, a.shape) for a, b in zip(expected, found, strict=True) if a.shape != b.shape]
    if wrong:
        seen = f"results have the shape {wrong[0][0]} instead of {wrong[0][1]}"
        return seen, "give (K, H, W): channels first, at the size of the image as it came"
    low, high = min(float(b.min()) for b in found), max(float(b.max()) for b in found)
    if not (low >= 0 and high <= 1):
        seen = f"results go from {low:.3g} to {high:.3g}"
        return seen, "give probabilities: the sigmoid or softmax of logits, no masks of 0 and 255"
    if all(np.isin(b, (0, 1)).all() for b in found) and not np.isin(expected[0], (0, 1)).all():
        seen = "results are 0 and 1 only where the network's probabilities lie between"
        return seen, "give probabilities and leave the threshold to what reads them"
    return None


PIPELINE_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (aligned, labels_kept, prediction)
