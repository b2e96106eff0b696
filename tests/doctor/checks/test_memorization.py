"""The verdicts of the memorization test, each from an outcome constructed for it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fault import CONFIG, cells

from tinyseg.common.findings import Finding
from tinyseg.config import Config
from tinyseg.doctor import Project
from tinyseg.doctor.checks.memorization import few_images_are_memorized
from tinyseg.doctor.experiments.memorization import (
    Memorization,
    Memorizer,
    Outcome,
    Scores,
    suggest_rate,
)
from tinyseg.doctor.experiments.memorization_failure import explain_failure
from tinyseg.metrics.threshold_curves import EDGES

FALLING = tuple(np.linspace(1, 0.1, 60).tolist())
FLAT = (0.7,) * 60
MAPS = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)
GOOD, BAD = (0.95,) * 4, (0.2,) * 4
KNOWN = Scores(MAPS, BAD, BAD, (0.3,) * 4, 0.0)
FAILED = Outcome((0, 1, 2, 3), ("a", "b", "c", "d"), FALLING, 0.5, KNOWN, 0.0, BAD, True)


class Bare:
    """A project as far as the reasons look at it."""

    config, tiles, custom = Config(), range(4), True
    images = np.random.default_rng(7).random((4, 1, 8, 8))
    input_pipeline = SimpleNamespace(to_batch=lambda tiles: Bare.images[tiles])


def verdict(result: Memorization, project: object = None) -> Finding:
    (found,) = explain_failure(project or Bare(), result)  # type: ignore[arg-type]
    return found


def failed(**changes: object) -> Memorization:
    known = {
        name: changes.pop(name) for name in ("dice", "best", "probabilities") if name in changes
    }
    scores = replace(KNOWN, **known)  # type: ignore[arg-type]
    return Memorization([replace(FAILED, scores=scores, **changes)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "level", "check"),
    [
        (failed(losses=(0.7, 3.0, float("nan"))), "error", "diverged"),
        (failed(best=GOOD), "warning", "threshold"),
        (failed(training_mode=GOOD), "warning", "eval mode"),
        (failed(dice=(0.97, 0.2, 0.1, 0.3)), "error", "one image"),
        (
            replace(failed(losses=FLAT), best_rate=0.01, at_best_rate=FALLING, at_set_rate=FLAT),
            "error",
            "learning rate",
        ),
        (
            replace(failed(), best_rate=0.01, at_best_rate=(0.02,) * 60, at_set_rate=FALLING),
            "warning",
            "learning rate",
        ),
        (failed(probabilities=np.full((4, 1, 8, 8), 0.1)), "error", "same output"),
        (failed(probabilities=np.repeat(MAPS[:1], 4, axis=0)), "error", "same output"),
        (failed(losses=FLAT), "error", "stuck"),
        (failed(), "note", "memorization"),
        (failed(names=("a",), dice=(0.05,), best=(0.05,)), "error", "memorization"),
        (failed(names=("a",), dice=(0.4,), best=(0.4,)), "warning", "memorization"),
        # a machine too slow for the steps
        (failed(losses=FLAT[:5], in_time=False), "note", "memorization"),
        (failed(losses=FLAT, in_time=False), "error", "stuck"),
        (failed(losses=(0.7, float("nan")), in_time=False), "error", "diverged"),
        # no probability below 0.5
        (failed(best=GOOD, probabilities=0.5 + MAPS / 2), "error", "one-sided output"),
        (failed(losses=(1.0, *(0.3,) * 59)), "warning", "memorization"),
    ],
)
def test_each_reason_is_reported(result: Memorization, level: str, check: str) -> None:
    found = verdict(result)
    assert (found.level, found.check) == (level, check)
    assert found.seen
    assert level == "note" or (found.why and found.remedy)


def test_a_threshold_that_was_set_is_an_error() -> None:
    project = Bare()
    project.config = Config().override(["train.threshold=0.9"])
    assert verdict(failed(best=GOOD), project).level == "error"


def test_a_network_that_gives_its_input_back_is_reported() -> None:
    assert verdict(failed(probabilities=1 - Bare.images)).check == "copies input"


def test_the_best_rate_lies_below_the_lowest_loss() -> None:
    rates = np.geomspace(1e-6, 1, 60)
    losses = np.where(rates < 1e-2, 1 - 0.1 * np.log10(rates / 1e-6), 5.0)
    assert suggest_rate(rates.tolist(), losses.tolist()) == pytest.approx(1e-2 / 10, rel=0.7)
    assert suggest_rate([0.1, 0.2], [2.0, 1.0]) == pytest.approx(0.2 / 10)


def test_the_best_threshold_is_that_of_a_sweep(tmp_path: Path) -> None:
    project = Project(cells(tmp_path, n=24), CONFIG)
    memorizer, tile = Memorizer(project), project.foreground_tiles[0]
    label = project.tiles.labels[tile]
    noise = np.random.default_rng(1).random(label.shape)
    p = (0.3 * (label > 0) + 0.5 * noise).astype(np.float32)[None]
    threshold, best = memorizer.best(tile, p)

    def dice(t: float) -> float:
        found, own = p[0] >= t, label > 0
        return float(2 * (found & own).sum() / (found.sum() + own.sum()))

    assert best == pytest.approx(max(dice(t) for t in EDGES))
    assert dice(threshold) == pytest.approx(best)


@pytest.mark.slow
def test_images_are_memorized_and_nothing_is_left_behind(tmp_path: Path) -> None:
    project = Project(cells(tmp_path, n=24), CONFIG)
    before = project.state.save()
    (found,) = few_images_are_memorized(project)
    assert (found.level, found.check) == ("ok", "memorization")
    assert sum("Dice" in line for line in found.evidence) == 14
    assert all(np.array_equal(x, y) for x, y in zip(before, project.state.save(), strict=True))
    assert project.step.learning_rate == 0.01
