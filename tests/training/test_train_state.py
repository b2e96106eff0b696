"""The training state: everything that a step changes is in it, whoever wrote the parts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TwoLayers
from tinygrad import Tensor, nn
from tinygrad.nn.state import get_parameters

from tinyseg.common.arrays import Array
from tinyseg.device.tensors import copy_
from tinyseg.errors import RunError, StepError
from tinyseg.losses import bce
from tinyseg.models import UNet
from tinyseg.nn import output_channels
from tinyseg.runs import checkpoint
from tinyseg.training.state import TrainState
from tinyseg.training.step import TrainStep

SIZE = 4


def batch(seed: int) -> tuple[Array, Array]:
    """An image (2, 1, 4, 4) and a label that can be seen in it."""
    image = np.random.default_rng(seed).standard_normal((2, 1, SIZE, SIZE)).astype(np.float32)
    return image, (image[:, 0] > 0).astype(np.uint8)


class Net:
    """A user's network: tinygrad's layers, dropout, and nothing that says its channels."""

    def __init__(self) -> None:
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm(4)
        self.head = nn.Conv2d(4, 1, 1)

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x_bchw)).relu().dropout(0.5))


def net() -> Net:
    Tensor.manual_seed(0)
    return Net()


def noise(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    return image + 0.1 * Tensor.rand(*image.shape), label


def own_loss(logits: Tensor, label: Tensor) -> Tensor:
    return bce(logits, label) + 0.01 * (logits * Tensor.rand(*logits.shape)).square().mean()


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "text": lambda model: "adam(lr=0.01)",
    "tinygrad's Adam": lambda model: nn.optim.Adam(get_parameters(model), lr=0.01),
    "tinygrad's SGD": lambda model: nn.optim.SGD(get_parameters(model), lr=0.01, momentum=0.9),
}


def make_step(optimizer: str, jit: bool = True, seed: int = 0) -> TrainStep:
    Tensor.manual_seed(seed)
    model = Net()
    made = OPTIMIZERS[optimizer](model)
    return TrainStep(model, own_loss, made, augment=noise, grad_clip=1.0, jit=jit)


def run(step: TrainStep, first: int, last: int) -> list[dict[str, float]]:
    return [step(*batch(seed)).numbers() for seed in range(first, last)]


def assert_equal(one: dict[str, Array], other: dict[str, Array]) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_users_own_parts_are_the_same_jitted_plain_and_resumed_bit_for_bit(
    optimizer: str, tmp_path: Path
) -> None:
    whole, plain = make_step(optimizer), make_step(optimizer, jit=False)
    numbers = run(whole, 0, 5)
    assert numbers == run(plain, 0, 5)
    assert_equal(whole.state.arrays(), plain.state.arrays())
    half = make_step(optimizer)
    run(half, 0, 2)
    checkpoint.save(tmp_path / "half.safetensors", half.state.arrays(), {})
    resumed = make_step(optimizer, seed=7)
    Tensor.rand(3).realize()  # what others draw does not matter
    resumed.state.load(checkpoint.load(tmp_path / "half.safetensors")[0], "half.safetensors")
    assert run(resumed, 2, 5) == numbers[2:]
    assert_equal(resumed.state.arrays(), whole.state.arrays())


def test_the_state_is_all_that_a_step_changes_and_names_say_of_what() -> None:
    step = make_step("tinygrad's Adam")
    prefixes = [name.partition(".")[0] for name in step.state]
    assert list(dict.fromkeys(prefixes)) == ["model", "optimizer", "loss", "random"]
    assert {"optimizer.b1_t", "optimizer.m.0", "optimizer.v.5"} <= set(step.state)
    assert "optimizer.lr" not in step.state  # it is an input of the step
    ours = TrainStep(
        UNet(1, 1, base_channels=2, depth=1, precision="float16"), "bce", augment="flip"
    )
    names = [name.partition(".")[0] for name in ours.state]
    assert list(dict.fromkeys(names)) == ["model", "optimizer", "loss", "augment", "loss_scale"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("adam(lr=0.01)", lambda p: nn.optim.Adam(p, lr=0.01)),
        ("adamw(lr=0.01,weight_decay=0.1)", lambda p: nn.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
        ("sgd(lr=0.1,momentum=0.9)", lambda p: nn.optim.SGD(p, lr=0.1, momentum=0.9)),
    ],
)
def test_tinygrads_optimizers_compute_what_ours_do(ours: str, theirs: Any) -> None:
    states = []
    for optimizer in (ours, theirs):
        step = TrainStep(TwoLayers(dropout=0), "bce", optimizer, jit=False)
        for seed in range(3):
            step.learning_rate *= 0.9
            step(*batch(seed))
        states.append({n: a for n, a in step.state.arrays().items() if n.startswith("model.")})
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], atol=2e-6, err_msg=name)


def test_an_optimizer_leaves_the_parameters_alone_that_it_was_not_given() -> None:
    model = net()
    step = TrainStep(model, "bce", nn.optim.SGD(get_parameters(model.head), lr=0.1))
    before = step.state.arrays()
    before = {name: array.copy() for name, array in before.items()}
    run(step, 0, 3)
    moved = {n for n, a in step.state.arrays().items() if not np.array_equal(a, before[n])}
    assert {n for n in moved if n.endswith(("weight", "bias"))} == {
        *("model.head.weight", "model.head.bias")
    }


@pytest.mark.parametrize("jit", [True, False])
def test_tinygrads_optimizer_takes_up_no_nan(jit: bool) -> None:
    step = make_step("tinygrad's Adam", jit=jit)
    run(step, 0, 2)
    before = {name: array.copy() for name, array in step.state.arrays().items()}
    image, label = batch(2)
    image[0, 0, 0, 0] = np.nan
    assert np.isnan(step(image, label)["gradient_norm"].item())
    for name, array in step.state.arrays().items():
        if not name.startswith(("random", "model.norm.num")):
            np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_what_is_no_optimizer_of_this_network_is_refused() -> None:
    model, other = net(), net()
    with pytest.raises(StepError, match="no parameters of the network: make it with"):
        TrainStep(model, "bce", nn.optim.Adam(get_parameters(other)))
    with pytest.raises(StepError, match="optimizer=float cannot be used"):
        TrainStep(model, "bce", 0.1)
    parts = nn.optim.Adam(get_parameters(model.conv)), nn.optim.SGD(get_parameters(model.head))
    with pytest.raises(StepError, match=r"optimizer=OptimizerGroup .* \(not a group\)"):
        TrainStep(model, "bce", nn.optim.OptimizerGroup(*parts))


def test_the_channels_of_a_network_are_read_or_found_by_a_call() -> None:
    model = net()
    assert output_channels(model) == 1
    before = model.norm.running_mean.numpy()
    assert TrainState(model).out_channels == 1
    np.testing.assert_array_equal(model.norm.running_mean.numpy(), before)
    assert output_channels(UNet(3, 5, base_channels=2, depth=1)) == 5
    assert output_channels(lambda x: x.repeat(1, 3, 1, 1), in_channels=2) == 6
    with pytest.raises(StepError, match=r"image \(1, 1, 64, 64\) gives \(1,\), not logits"):
        output_channels(lambda x: x.reshape(1, -1).mean(1))
    with pytest.raises(StepError, match=r"set model\.out_channels to 1"):
        output_channels(lambda x: x.reshape(1, 7))


def test_logits_of_another_number_of_channels_than_found_are_refused() -> None:
    model: Any = net()
    model.out_channels = 2
    with pytest.raises(StepError, match=r"logits have shape \(2, 1, 4, 4\), but \(B, 2, H, W\)"):
        TrainStep(model, "ce")(*batch(0))


def test_another_loss_keeps_the_rest_of_the_state() -> None:
    first = TrainState(UNet(1, 1, base_channels=2, depth=1), "focal(alpha=0.9)")
    second = first.with_loss("0.5*bce+dice")
    assert [n for n in second if n.startswith("loss.")] == [
        *("loss.bce.weight", "loss.bce.pos_weight", "loss.bce.smoothing", "loss.dice.weight")
    ]
    assert next(n for n in first if n.startswith("loss.")) == "loss.focal.weight"
    kept = [name for name in first if not name.startswith("loss.")]
    assert all(first[name] is second[name] for name in kept)
    assert kept == [name for name in second if not name.startswith("loss.")]


def test_a_checkpoint_of_an_older_version_is_loaded_and_one_of_another_network_refused() -> None:
    state = TrainState(net(), "0.5*bce", seed=3)
    saved = {name: array + 1 for name, array in state.arrays().items()}
    old = {n: a for n, a in saved.items() if not n.startswith(("loss.", "random."))}
    kept = {n: a.copy() for n, a in state.arrays().items() if n not in old}
    state.load(old, "last.safetensors")
    assert_equal(state.arrays(), {**old, **kept})
    state.load(saved, "last.safetensors")
    assert_equal(state.arrays(), saved)
    del saved["model.head.bias"]
    with pytest.raises(RunError, match=r"last\.safetensors: model\.head\.bias is missing"):
        state.load(saved, "last.safetensors")


def test_an_augmentation_that_changes_shapes_or_types_is_refused() -> None:
    step = TrainStep(net(), "bce", augment=lambda image, label: (image[:, :, 1:], label))
    with pytest.raises(StepError, match=r"returns the image as .* \(2, 1, 3, 4\), but it was"):
        step(*batch(0))


def test_arrays_and_tensors_are_the_same_to_a_step() -> None:
    step = TrainStep(TwoLayers(dropout=0), "bce")
    step.learning_rate = 0.0
    image, label = batch(0)
    expected = step(Tensor(image), Tensor(label))["loss"].item()
    assert step(image, label)["loss"].item() == expected
    assert step(image.astype(np.float64), label == 1)["loss"].item() == expected
    with pytest.raises(StepError, match=r"the image is an array of uint8: pass floats"):
        step((image * 255).astype(np.uint8), label)


def test_a_changed_number_of_the_loss_is_saved_too() -> None:
    step = TrainStep(UNet(1, 1, base_channels=2, depth=1), "focal")
    step.loss.assign("focal.gamma", 3)
    again = TrainState(UNet(1, 1, base_channels=2, depth=1), "focal")
    again.load(step.state.arrays(), "here")
    assert again.loss.text == "focal(gamma=3)"
    copy_(again["loss.focal.gamma"], np.array(2, np.float32))
    assert again.loss.text == "focal"
