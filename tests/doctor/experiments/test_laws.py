"""Laws of losses and of updates, on arrays."""

from types import SimpleNamespace

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg.device.tensors import to_device
from tinyseg.doctor.experiments.loss_laws import LossLaws, loss_laws
from tinyseg.doctor.experiments.update_law import _fit
from tinyseg.losses import Function, Loss

LABEL = np.zeros((2, 4, 4), np.uint8)
LABEL[0, :2, :2], LABEL[1, 2:] = 1, 1


def laws(function: Function, channels: int = 1) -> LossLaws:
    batch = (None, to_device(LABEL))
    loss = Loss.of(function, channels)
    project = SimpleNamespace(batches=lambda n: [batch], out_channels=channels, loss=loss)
    return loss_laws(project)  # type: ignore[arg-type]


def target(logits: Tensor, label: Tensor) -> Tensor:
    return label.reshape(logits.shape).float()


def test_a_summed_cross_entropy_reaches_the_labels() -> None:
    found = laws(lambda x, y: (x.softplus() - target(x, y) * x).sum())
    assert found.descent.reaches
    assert found.is_sum
    assert found.finite
    assert found.lowest < 0.1
    assert not found.bounded
    assert found.undecided == pytest.approx(32 * np.log(2), rel=1e-4)


def test_a_squared_error_of_logits_wants_probabilities() -> None:
    found = laws(lambda x, y: (x - target(x, y)).square().mean())
    assert found.descent.recall[1] == 1
    assert not found.descent.reaches
    assert found.takes_probabilities
    assert not found.is_sum


def test_pixels_without_a_gradient_are_named() -> None:
    found = laws(lambda x, y: (x[:1].softplus() - target(x[:1], y[:1]) * x[:1]).mean())
    assert found.descent.silent == {"image 2 of the batch": 1.0}


def test_a_softmax_over_images_is_named() -> None:
    own = lambda x, y: -(x.log_softmax(0) * y.one_hot(2).permute(0, 3, 1, 2)).mean()  # noqa: E731
    assert laws(own, 2).axis == "the images of the batch"


def test_a_step_is_split_into_gradient_and_decay() -> None:
    w, g = np.random.default_rng(0).normal(size=(2, 1000))
    squared, along, decay = _fit(-0.1 * np.sign(g) - 0.02 * w, w, np.sign(g))
    assert squared < 1e-12
    assert (along, decay) == pytest.approx((0.1, 0.02))
