"""Experiments on a step measure what it does, and leave nothing behind."""

from pathlib import Path

import numpy as np
import pytest
from fault import CONFIG, cells
from tinygrad import Tensor

from tinyseg.device.tensors import to_device
from tinyseg.doctor import Project
from tinyseg.doctor.checks.step import every_batch_counts
from tinyseg.doctor.checks.update import _modules
from tinyseg.doctor.experiments.step_probe import (
    BATCHES,
    DESCENT_STEPS,
    UpdateProbe,
    loss_of,
    probe_descent,
    probe_repeats,
    probe_step,
    probe_updates,
)


class Scalar:
    """A model of one weight w and logits w x; a step lowers w by rate x mean(image)."""

    def __init__(self) -> None:
        self.weight = to_device(np.array([2.0], np.float32))

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return x_bchw[:, :1] * self.weight


class ScalarStep:
    def __init__(self, model: Scalar):
        self.model, self.learning_rate = model, 0.5

    def __call__(self, image: Tensor, label: Tensor) -> float:
        loss = float((image.mean() * self.model.weight[0] + label.cast("float").mean()).item())
        self.model.weight.assign(self.model.weight - self.learning_rate * image.mean()).realize()
        return loss


@pytest.fixture
def project(tmp_path: Path) -> Project:
    model = Scalar()
    return Project(cells(tmp_path, n=24), CONFIG, model=model, step=ScalarStep(model))


def test_a_step_probe_is_what_the_step_computes(project: Project) -> None:
    probe = project.once(probe_step)
    batches = [(x.numpy(), y.numpy()) for x, y in project.batches(BATCHES)]
    means = [(x.mean(), y.mean()) for x, y in batches]
    expected = [2 * x + y for x, y in means]
    assert np.allclose(probe.losses, expected, atol=1e-5)
    assert probe.read_late == probe.losses
    assert probe.other_image == pytest.approx(2 * means[1][0] + means[0][1], abs=1e-5)
    assert probe.other_label == pytest.approx(2 * means[0][0] + means[1][1], abs=1e-5)
    weight, in_turn = 2.0, []
    for x, y in means:
        in_turn.append(weight * x + y)
        weight -= 0.5 * x
    assert np.allclose(probe.jitted, in_turn, atol=1e-5)
    assert probe.plain == probe.jitted
    assert probe.weight_difference == 0


def test_a_loss_that_does_not_depend_on_images_is_not_locked(tmp_path: Path) -> None:
    """As with a head of zeros: the step without JIT does not see the images either."""

    def step(image: Tensor, label: Tensor) -> float:
        return float(label.cast("float").mean().item())

    project = Project(cells(tmp_path, n=24), CONFIG, model=Scalar(), step=step)
    probe = project.once(probe_step)
    assert probe.other_image == probe.losses[0] != probe.other_label
    assert [finding.level for finding in every_batch_counts(project)] == ["ok"]


def test_repeats_are_what_the_step_computes(project: Project) -> None:
    found = project.once(probe_repeats)
    batches = [(x.numpy(), y.numpy()) for x, y in project.batches(2)]
    means = [(x.mean(), y.mean()) for x, y in batches]
    assert found.losses == pytest.approx([2 * means[0][0] + means[0][1]] * 3, abs=1e-5)
    turned = 0.7 * 2 + 0.1 * np.random.default_rng(0).normal(size=1)[0]
    assert found.other_weights == pytest.approx(turned * means[0][0] + means[0][1], abs=1e-5)
    for slot, loss in enumerate(found.other_slots):
        x, y = (part.copy() for part in batches[0])
        x[slot], y[slot] = batches[1][0][slot], batches[1][1][slot]
        assert loss == pytest.approx(2 * x.mean() + y.mean(), abs=1e-5)
    assert len(found.other_slots) == len(batches[0][0])
    assert found.weight_difference == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_descent_is_that_of_the_loss(sign: int, tmp_path: Path) -> None:
    """d/dw of w mean(image) is mean(image): each step lowers w by rate x mean(image)."""
    model = Scalar()
    parts = {"model": model, "step": ScalarStep(model), "loss": lambda x, y: sign * x.mean()}
    project = Project(cells(tmp_path, n=24), CONFIG, **parts)
    image, label = (part.numpy() for part in project.batches(1)[0])
    found, first, mean = project.once(probe_descent), sign * image[:, :1].mean(), image.mean()
    assert found.before == pytest.approx(2 * first, abs=1e-5)
    assert found.reported == pytest.approx(2 * mean + label.mean(), abs=1e-5)
    assert found.after == pytest.approx((2 - DESCENT_STEPS * 0.5 * mean) * first, abs=1e-5)
    slower = (2 - DESCENT_STEPS * 0.05 * mean) * first
    rises = first * mean < 0
    assert found.slower == (pytest.approx(slower, abs=1e-5) if rises else None)
    assert project.step.learning_rate == 0.5


def test_updates_are_those_of_the_rates(project: Project) -> None:
    first = abs(float(project.batches(1)[0][0].numpy().mean()))
    moves = project.once(probe_updates)
    assert moves.one_step["weight"] == pytest.approx(0.5 * first, rel=1e-3)
    assert moves.size["weight"] == 2
    assert moves.at_rate_0 == 0
    assert (moves.rate, project.step.learning_rate) == (0.5, 0.5)
    assert project.model.weight.numpy() == [2.0]


@pytest.mark.parametrize(
    "result",
    [1.5, np.float32(1.5), {"loss": 1.5}, (1.5, 7), [1.5]],
)
def test_a_loss_is_read_from_what_steps_return(result: object) -> None:
    assert loss_of(result) == 1.5


def test_a_loss_is_read_from_tensors() -> None:
    assert loss_of(Tensor([1.5])) == loss_of({"loss": Tensor(1.5)}) == 1.5


def test_frozen_weights_are_named_by_the_largest_modules() -> None:
    names = ["a.0.x", "a.0.y", "a.1.x", "b.x", "b.y"]
    moves = UpdateProbe({}, {}, {}, dict.fromkeys(names, 1.0), {}, None, None)
    assert _modules(["a.0.x", "a.0.y", "b.y"], moves) == "a.0, b.y"
    assert _modules(["a.0.x", "a.0.y", "a.1.x"], moves) == "a"
