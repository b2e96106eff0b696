"""The verdicts on learning by heart, each from a lesson made up for it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fault import CONFIG, cells

from tinyseg.common.findings import Finding
from tinyseg.config import Config
from tinyseg.doctor import Project
from tinyseg.doctor.checks.learning import by_heart
from tinyseg.doctor.experiments.memorization import Attempt, Lesson, School, Scores, best_rate
from tinyseg.doctor.experiments.reasons import why_not
from tinyseg.metrics.threshold_curves import EDGES

FALLING = tuple(np.linspace(1, 0.1, 60).tolist())
FLAT = (0.7,) * 60
MAPS = np.random.default_rng(0).random((4, 1, 8, 8)).astype(np.float32)
GOOD, BAD = (0.95,) * 4, (0.2,) * 4
KNOWN = Scores(MAPS, BAD, BAD, BAD, (0.3,) * 4)
FAILED = Lesson((0, 1, 2, 3), ("a", "b", "c", "d"), FALLING, 0.5, KNOWN, 0.0, BAD, True)


class Bare:
    """A project as far as the reasons look at it."""

    config, squares, foreign = Config(), range(4), True
    images = np.random.default_rng(7).random((4, 1, 8, 8))
    input_pipeline = SimpleNamespace(to_batch=lambda squares: Bare.images[squares])


def verdict(attempt: Attempt, project: object = None) -> Finding:
    return why_not(project or Bare(), attempt)  # type: ignore[arg-type]


def failed(**changes: object) -> Attempt:
    known = {
        name: changes.pop(name) for name in ("dice", "best", "probabilities") if name in changes
    }
    scores = replace(KNOWN, **known)  # type: ignore[arg-type]
    return Attempt([replace(FAILED, scores=scores, **changes)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attempt", "level", "check"),
    [
        (failed(losses=(0.7, 3.0, float("nan"))), "error", "diverged"),
        (failed(best=GOOD), "warning", "threshold"),
        (failed(in_training=GOOD), "warning", "eval mode"),
        (failed(dice=(0.97, 0.2, 0.1, 0.3)), "error", "one image"),
        (
            replace(failed(losses=FLAT), rate=0.01, at_rate=FALLING, at_set=FLAT),
            "error",
            "learning rate",
        ),
        (
            replace(failed(), rate=0.01, at_rate=(0.02,) * 60, at_set=FALLING),
            "warning",
            "learning rate",
        ),
        (failed(probabilities=np.full((4, 1, 8, 8), 0.1)), "error", "same output"),
        (failed(probabilities=np.repeat(MAPS[:1], 4, axis=0)), "error", "same output"),
        (failed(losses=FLAT), "error", "stuck"),
        (failed(), "note", "by heart"),
        # a machine too slow for the steps
        (failed(losses=FLAT[:5], in_time=False), "note", "by heart"),
        (failed(losses=FLAT, in_time=False), "error", "stuck"),
        (failed(losses=(0.7, float("nan")), in_time=False), "error", "diverged"),
        # no probability below 0.5
        (failed(best=GOOD, probabilities=0.5 + MAPS / 2), "error", "one-sided output"),
        (failed(losses=(1.0, *(0.3,) * 59)), "warning", "by heart"),
    ],
)
def test_each_reason_is_told(attempt: Attempt, level: str, check: str) -> None:
    found = verdict(attempt)
    assert (found.level, found.check) == (level, check)
    assert found.seen
    assert level == "note" or (found.why and found.remedy)


def test_a_threshold_that_was_set_is_an_error() -> None:
    project = Bare()
    project.config = Config().override(["train.threshold=0.9"])
    assert verdict(failed(best=GOOD), project).level == "error"


def test_a_network_that_gives_its_input_back_is_told() -> None:
    assert verdict(failed(probabilities=1 - Bare.images)).check == "copies input"


def test_the_best_rate_lies_below_the_lowest_loss() -> None:
    rates = np.geomspace(1e-6, 1, 60)
    losses = np.where(rates < 1e-2, 1 - 0.1 * np.log10(rates / 1e-6), 5.0)
    assert best_rate(rates.tolist(), losses.tolist()) == pytest.approx(1e-2 / 10, rel=0.7)
    assert best_rate([0.1, 0.2], [2.0, 1.0]) == pytest.approx(0.2 / 10)


def test_the_best_threshold_is_that_of_a_sweep(tmp_path: Path) -> None:
    project = Project(cells(tmp_path, n=24), CONFIG)
    school, square = School(project), project.held[0]
    label = project.squares.labels[square]
    noise = np.random.default_rng(1).random(label.shape)
    p = (0.3 * (label > 0) + 0.5 * noise).astype(np.float32)[None]
    threshold, best = school.best(square, p)

    def dice(t: float) -> float:
        found, own = p[0] >= t, label > 0
        return float(2 * (found & own).sum() / (found.sum() + own.sum()))

    assert best == pytest.approx(max(dice(t) for t in EDGES))
    assert dice(threshold) == pytest.approx(best)


def test_images_are_learned_by_heart_and_nothing_is_left_behind(tmp_path: Path) -> None:
    project = Project(cells(tmp_path, n=24), CONFIG)
    before = project.state.save()
    (found,) = by_heart(project)
    assert (found.level, found.check) == ("ok", "by heart")
    assert sum("Dice" in line for line in found.evidence) == 14
    assert all(np.array_equal(x, y) for x, y in zip(before, project.state.save(), strict=True))
    assert project.step.learning_rate == 0.01
