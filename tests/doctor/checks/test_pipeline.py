"""Image and label on their way."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fault import CONFIG, cells

from tinyseg.doctor import Project
from tinyseg.doctor.checks.pipeline import (
    draws_are_new,
    foreground_is_kept,
    image_and_label_move_alike,
    images_keep_their_look,
    pipeline_keeps_the_form,
    prediction_matches_training,
)
from tinyseg.inference.predictor import Predictor
from tinyseg.models import UNet


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["light", "flip+rotate(degrees=30)", "elastic"])
def test_our_own_augmentation_keeps_labels(augment: str, tmp_path: Path) -> None:
    project = Project(cells(tmp_path, n=24), CONFIG.override([f"train.augment={augment}"]))
    (found,) = image_and_label_move_alike(project)
    assert (found.level, found.check) == ("ok", "alignment")


def test_no_pipeline_has_nothing_to_prove(tmp_path: Path) -> None:
    assert image_and_label_move_alike(Project(cells(tmp_path, n=24), CONFIG)) == []


def test_a_pipeline_that_cuts_out_the_objects_is_reported(tmp_path: Path) -> None:
    def crop(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = np.zeros_like(label)
        kept[:12] = label[:12]
        return image, kept

    data = cells(tmp_path, n=24)
    (found,) = foreground_is_kept(Project(data, CONFIG, pipeline=crop))
    assert (found.level, found.check) == ("warning", "lost labels")
    assert foreground_is_kept(Project(data, CONFIG, pipeline=lambda x, y: (x, y))) == []


def test_prediction_with_the_same_input_pipeline_passes(tmp_path: Path) -> None:
    model = UNet(3, 1, base_channels=4, depth=1)
    data = cells(tmp_path, n=24)
    project = Project(data, CONFIG, model=model)
    assert prediction_matches_training(project) == []
    again = Project(data, CONFIG, model=model, predictor=Predictor(model, project.input_pipeline))
    assert [f.level for f in prediction_matches_training(again)] == ["ok"]
    swapped = Project(
        data,
        CONFIG,
        model=model,
        predictor=lambda images: project.predictor(image[..., ::-1].copy() for image in images),
    )
    (found,) = prediction_matches_training(swapped)
    assert (found.level, found.check) == ("error", "prediction")


RNG = np.random.default_rng(0)


class Bare:
    """A project as far as the checks of a user's pipeline look at it."""

    foreground_tiles, dataset = range(4), SimpleNamespace(classes=2)

    def __init__(self, pipeline: Any):
        ramp = np.repeat(np.arange(32, 224, 6, dtype=np.uint8)[None, :, None], 32, axis=0)
        self.pipeline, labels = pipeline, [np.ones((32, 32), np.uint8)] * 4
        self.tiles = _Tiles([SimpleNamespace(pixels=ramp)] * 4)
        self.tiles.labels = labels

    def once(self, experiment: Any) -> Any:
        return experiment(self)


class _Tiles(list[Any]):
    labels: Any = None


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda x: x, ""),
        (lambda x: x[:, ::-1] if RNG.random() < 0.5 else x, ""),
        (lambda x: x + np.uint8(RNG.integers(20)), ""),
        (lambda x: x[:, ::-1], "frozen augmentation"),
        (lambda x: x // 4 + np.uint8(RNG.integers(20)), "augmented range"),
        (lambda x: x + np.uint8(RNG.integers(90, 150)), "pipeline"),
        (lambda x: x / 255, "pipeline"),
    ],
)
def test_the_draws_and_the_range_of_a_pipeline(change: Any, check: str) -> None:
    project: Any = Bare(lambda x, y: (change(x), y))
    found = pipeline_keeps_the_form(project)
    found = found or draws_are_new(project) + images_keep_their_look(project)
    assert [f.check for f in found] == ([check] if check else [])
