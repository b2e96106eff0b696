"""Pipelines on the host: Albumentations when it is there, and what any pipeline must keep."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import SMALL

from tinyseg.augment import Albumentations, alignment, on_host
from tinyseg.config import Config
from tinyseg.errors import ConfigError, StepError
from tinyseg.training.train import train

Array = Any
DATA = "sim:cells?n=10&size=32&seed=1"
IMAGE, LABEL = np.full((6, 6, 1), 9, np.uint8), np.ones((6, 6), np.uint8)


@pytest.fixture
def albumentations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real package; its look for a newer version on the network is switched off."""
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
    return pytest.importorskip("albumentations")


def geometry(a: Any) -> Any:
    parts = [a.HorizontalFlip(), a.RandomRotate90(), a.Affine(scale=(0.8, 1.2), rotate=(-30, 30))]
    return Albumentations(
        a.Compose([*parts, a.ElasticTransform(alpha=20, sigma=5), a.GaussNoise()])
    )


def test_an_albumentations_pipeline_keeps_image_and_label_together(albumentations: Any) -> None:
    found = alignment(geometry(albumentations), channels=3, rounds=12)
    assert found.passed, found


def test_a_broken_albumentations_pipeline_is_found_out(albumentations: Any) -> None:
    a = albumentations
    blended = a.Compose([a.Affine(rotate=(17, 17), mask_interpolation=1, p=1)])
    found = alignment(Albumentations(blended), rounds=2)
    assert found.new_values


def test_albumentations_draws_by_the_seed(albumentations: Any) -> None:
    pipeline, rng = geometry(albumentations), np.random.default_rng(0)
    image = rng.integers(0, 255, (32, 32, 3)).astype(np.uint8)
    label = rng.integers(0, 2, (32, 32)).astype(np.uint8)
    one, again, other = (on_host(pipeline, image, label, 2, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one[0], again[0])
    np.testing.assert_array_equal(one[1], again[1])
    assert not np.array_equal(one[0], other[0])


def test_what_is_no_albumentations_pipeline_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"function is no .*pip install \"tinyseg\[albumen"):
        Albumentations(lambda image, mask: {"image": image, "mask": mask})


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        (lambda i, y: (i[:4], y), r"made uint8 \(4, 6, 1\) of the image uint8 \(6, 6, 1\)"),
        (lambda i, y: (i / 255, y), "made float64"),
        (lambda i, y: (i, y[..., None]), r"of the label uint8 \(6, 6\)"),
        (lambda i, y: (i, y * 7), r"label values \[7\].*0 to 1 or 255"),
    ],
)
def test_a_pipeline_that_breaks_the_step_is_stopped(pipeline: Any, says: str) -> None:
    with pytest.raises(StepError, match=says):
        on_host(pipeline, IMAGE, LABEL, 2, 0)
    with pytest.raises(StepError, match="keep \\[0, 1\\]"):
        on_host(lambda i, y: (i + 1, y), IMAGE.astype(np.float32) / 9, LABEL, 2, 0)


def test_a_pipeline_may_write_into_what_it_gets() -> None:
    def pipeline(image: Array, label: Array) -> tuple[Array, Array]:
        image[:2], label[:2] = 0, 255
        return image, label

    image, label = IMAGE.copy(), LABEL.copy()
    for array in (image, label):
        array.flags.writeable = False
    made = on_host(pipeline, image, label, 2, 0)
    assert (image == 9).all()
    assert (made[1][:2] == 255).all()


class Noise:
    """A seeded pipeline that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def seed(self, number: int) -> None:
        self.rng = np.random.default_rng(number)

    def __call__(self, image: Array, label: Array) -> tuple[Array, Array]:
        self.calls += 1
        return np.clip(image + self.rng.integers(-40, 40, image.shape), 0, 255).astype(
            np.uint8
        ), label


@pytest.mark.slow
def test_training_sends_every_training_image_through_it_and_nothing_else(tmp_path: Path) -> None:
    config = Config().override([*SMALL, "train.epochs=2"])
    losses = []
    for name, pipeline in (("a", Noise()), ("b", Noise()), ("c", None)):
        train(DATA, tmp_path / name, config=config, say=lambda text: None, pipeline=pipeline)
        log = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([line.split('"loss"')[1][:20] for line in log if '"step"' in line[:20]])
        if pipeline is not None:
            assert pipeline.calls == 2 * 2 * 4  # epochs, steps, images of a batch
    assert losses[0] == losses[1] != losses[2]
