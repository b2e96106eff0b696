"""The step: jitted equals plain bit for bit, no batch is locked in, every image is learned."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TwoLayers
from tinygrad import Device, Tensor, TinyJit
from tinygrad.codegen import to_program_cache
from tinygrad.nn import Conv2d, GroupNorm

from tinyseg.config import DataConfig
from tinyseg.data import InputPipeline, InputScale, prepare_label, simulate
from tinyseg.device.choose import backend
from tinyseg.device.compilers import _Clang
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import BackendError, StepError
from tinyseg.inference.predictor import Predictor, to_classes
from tinyseg.inference.step import PredictStep
from tinyseg.losses import LOSSES, Loss, bce
from tinyseg.metrics import pixel as metrics
from tinyseg.metrics.summary import evaluate_image
from tinyseg.models import UNet
from tinyseg.training.nan_report import first_not_finite, nan_report
from tinyseg.training.step import GuardedJit, TrainStep, outcomes

LABEL_SHAPE = (2, 8, 8)


def batches(count: int, classes: int = 2, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        image = rng.standard_normal((2, 1, 8, 8)).astype(np.float32)
        label = rng.integers(0, classes, LABEL_SHAPE).astype(np.uint8)
        label[:, 0, :2] = 255
        pairs.append((to_device(image), to_device(label)))
    return pairs


def unet(out_channels: int) -> UNet:
    return UNet(1, out_channels, base_channels=2, depth=1, dropout=0.2, seed=1)


def run_steps(
    loss: Any, out_channels: int, jit: bool, count: int, network: Any = TwoLayers, **options: Any
) -> Any:
    """Measurements of each step and the whole state after the last."""
    step = TrainStep(network(out_channels), loss, jit=jit, **options)
    numbers = []
    for number, (image, label) in enumerate(batches(count)):
        step.learning_rate = 0.01 / (number + 1)
        numbers.append(step(image, label).numbers())
    return numbers, {name: tensor.numpy() for name, tensor in step.state.items()}


def assert_equal_runs(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        np.testing.assert_array_equal(one[1][name], other[1][name], err_msg=name)


SUM = "0.7*focal(alpha=0.9,gamma=2)+0.3*dice"


@pytest.mark.slow
@pytest.mark.parametrize("out_channels", [1, 2])
@pytest.mark.parametrize("loss", [*LOSSES, SUM])
def test_ten_jitted_steps_equal_ten_plain_steps_bit_for_bit(loss: str, out_channels: int) -> None:
    if loss == "ce" and out_channels == 1:
        pytest.skip("cross-entropy over classes needs two channels")
    network = unet if (loss, out_channels) in (("bce", 1), (SUM, 2)) else TwoLayers
    runs = [run_steps(loss, out_channels, jit, 10, network=network) for jit in (True, False)]
    assert_equal_runs(*runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    ["sgd(lr=0.1,momentum=0.9,nesterov=true,weight_decay=0.01)", "adamw(lr=0.01,weight_decay=0.1)"],
)
def test_every_optimizer_with_clipping_is_the_same_jitted_and_plain(optimizer: str) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "grad_clip": 0.5}
    jitted = run_steps("bce", 1, jit=True, count=4, **options)
    assert_equal_runs(jitted, run_steps("bce", 1, jit=False, count=4, **options))
    assert all(numbers["gradient_norm"] > 0 for numbers in jitted[0])


@pytest.fixture(scope="module")
def step() -> TrainStep:
    return TrainStep(TwoLayers(dropout=0), "bce")


def test_each_batch_counts_after_the_capture(step: TrainStep) -> None:
    (one, _), (two, label), *_ = batches(2)
    step.learning_rate = 0.0  # the weights stay, so equal losses would mean a locked input
    step(one, label)
    losses = [step(image, label).numbers()["loss"] for image in (one, two, one)]
    assert losses[0] == losses[2] != losses[1]


def test_measurements_of_several_steps_do_not_share_a_buffer(step: TrainStep) -> None:
    step.learning_rate = 0.0
    kept = [step(*batch)["loss"] for batch in batches(3, seed=5)]
    again = [step(*batch)["loss"].item() for batch in batches(3, seed=5)]
    assert [loss.item() for loss in kept] == again
    assert len(set(again)) == 3


def test_a_changed_learning_rate_is_used_at_once(step: TrainStep) -> None:
    (batch,) = batches(1)
    before = step.state["model.head.bias"].numpy().copy()
    step.learning_rate = 0.0
    step(*batch)
    np.testing.assert_array_equal(step.state["model.head.bias"].numpy(), before)
    step.learning_rate = 0.1
    step(*batch)
    assert not np.array_equal(step.state["model.head.bias"].numpy(), before)


def test_slices_of_a_dataset_are_taken_as_they_are_now(step: TrainStep) -> None:
    rng = np.random.default_rng(3)
    data = to_device(rng.standard_normal((4, 2, 1, 8, 8)).astype(np.float32))
    (_, label), *_ = batches(1)
    step.learning_rate = 0.0
    ways = {
        "own": [to_device(data[i].numpy()) for i in range(4)],
        "slice": [data[i] for i in range(4)],
        "contiguous": [data[i].contiguous() for i in range(4)],
        "realized": [data[i].contiguous().realize() for i in range(4)],
    }
    losses = {way: [step(i, label)["loss"].item() for i in images] for way, images in ways.items()}
    assert len(set(losses["own"])) == 4
    assert all(found == losses["own"] for found in losses.values()), losses


def test_anything_but_a_tensor_is_refused(step: TrainStep) -> None:
    (image, label), *_ = batches(1)
    with pytest.raises(StepError, match="not int"):
        step(3, label)  # type: ignore[arg-type]
    with pytest.raises(StepError, match="not list"):
        step(image, label.tolist())  # type: ignore[arg-type]


def test_another_shape_or_dtype_is_refused_with_both(step: TrainStep) -> None:
    (image, label), *_ = batches(1)
    step(image, label)
    with pytest.raises(StepError, match=r"\(2, 1, 8, 8\) float.*\(1, 1, 8, 8\) float"):
        step(to_device(image.numpy()[:1]), to_device(label.numpy()[:1]))
    where = backend().device
    with pytest.raises(StepError, match=rf"uint8 on {where}.*int32 on {where}"):
        step(image, label.cast("int").realize())


def test_labels_that_are_no_class_ids_are_refused_or_warned_of() -> None:
    (image, label), *_ = batches(1)
    values = label.numpy()
    with pytest.raises(StepError, match=r"values \[100\].*class ids 0 to 1"):
        TrainStep(TwoLayers(), "bce")(image, to_device(np.minimum(values, 1) * 100))
    raw = np.where(values == 1, 255, 0).astype(np.uint8)
    with pytest.warns(UserWarning, match="label // 255"):
        TrainStep(TwoLayers(), "bce", jit=False)(image, to_device(raw))


def test_a_loss_that_is_not_finite_changes_nothing(step: TrainStep) -> None:
    (image, label), *_ = batches(1)
    step(image, label)
    before = {name: tensor.numpy().copy() for name, tensor in step.parameters.items()}
    broken = image.numpy().copy()
    broken[0, 0, 3, 3] = np.nan
    assert np.isnan(step(to_device(broken), label)["loss"].item())
    for name, tensor in step.parameters.items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)


def test_the_index_bug_exists_in_plain_tinygrad() -> None:
    """What the guards are for; should it vanish from tinygrad, they can be thinned out."""
    backend()
    data = to_device(np.arange(5, dtype=np.float32))
    by_index = TinyJit(lambda index: (data[index] * 2).realize())
    assert [by_index(index).item() for index in range(5)] == [0, 2, 2, 2, 2]


def double(array: Any) -> Any:
    return array * 2


def weighted_sum(lock: bool) -> GuardedJit:
    """A step whose jit, when locked, goes on with the inputs of its first call."""
    state = {"weight": to_device(np.ones(1, np.float32))}
    guarded = GuardedJit(
        lambda image, label: (image * state["weight"] * label).sum().reshape(1),
        state,
        (double, double),
    )
    first: list[Tensor] = []

    def locked(state: Any, *inputs: Tensor) -> Tensor:
        first[:] = first or inputs
        return guarded._realize(*first)

    if lock:
        locked.program = None  # type: ignore[attr-defined]
        guarded.jit = locked  # type: ignore[assignment]
    return guarded


def test_the_canary_stops_a_step_that_is_locked_onto_its_first_batch() -> None:
    image, label = to_device(np.ones(3, np.float32)), to_device(np.ones(3, np.float32))
    assert weighted_sum(lock=False)(image, label).item() == 3
    with pytest.raises(StepError, match="ignores input 0 and repeats the first batch"):
        weighted_sum(lock=True)(image, label)


def test_zeros_in_the_state_do_not_hide_a_locked_step() -> None:
    """With a fresh head of zeros all outputs are alike: only what is learned from them differs."""
    image, label = to_device(np.ones(3, np.float32)), to_device(np.ones(3, np.float32))
    step = weighted_sum(lock=True)
    copy_(step.state["weight"], np.zeros(1, np.float32))
    with pytest.raises(StepError, match="ignores input 0 and repeats the first batch"):
        step(image, label)


def test_a_step_that_goes_by_a_hidden_tensor_is_told_so() -> None:
    hidden = to_device(np.zeros(1, np.float32))
    state = {"weight": to_device(np.ones(1, np.float32))}

    def function(image: Tensor) -> Tensor:
        hidden.assign(hidden + 1)
        state["weight"].assign(state["weight"] * hidden)
        return image.sum().reshape(1)

    with pytest.raises(StepError, match=r"another weight when replayed .* not in its state"):
        GuardedJit(function, state, (double,))(to_device(np.ones(3, np.float32)))


def test_a_state_that_was_replaced_is_noticed_though_its_place_in_memory_may_be_the_same() -> None:
    step = weighted_sum(lock=False)
    image, label = to_device(np.ones(3, np.float32)), to_device(np.ones(3, np.float32))
    step(image, label)
    assert [kept is step.state["weight"].uop.base for kept in step._settled] == [True]
    for number in range(2, 5):
        step.state["weight"].replace(to_device(np.full(1, number, np.float32)))
        assert step(image, label).item() == 3 * number


@pytest.mark.parametrize("compiled", [False, True])
def test_one_tensor_as_two_inputs_is_refused(compiled: bool) -> None:
    step, image = weighted_sum(lock=False), to_device(np.ones(3, np.float32))
    if compiled:
        step(image, to_device(np.ones(3, np.float32)))
    with pytest.raises(StepError, match="the same Tensor twice"):
        step(image, image)


def test_the_canary_does_not_blame_a_step_that_needs_no_image() -> None:
    state = {"weight": to_device(np.ones(1, np.float32))}
    guarded = GuardedJit(lambda image: state["weight"] * 2, state, (double,))
    assert guarded(to_device(np.ones(3, np.float32))).item() == 2


@pytest.mark.slow
def test_the_canary_leaves_no_trace_in_the_state() -> None:
    with_canary = run_steps("bce", 1, jit=True, count=3)
    assert_equal_runs(with_canary, run_steps("bce", 1, jit=True, count=3, canary=False))


def test_prediction_is_the_same_jitted_and_plain_and_keeps_its_outputs() -> None:
    model = TwoLayers(3)
    jitted, plain = PredictStep(model), PredictStep(model, jit=False)
    images = [image for image, _ in batches(3)]
    kept = [jitted(image) for image in images]
    for image, p_bkhw in zip(images, kept, strict=True):
        np.testing.assert_array_equal(p_bkhw.numpy(), plain(image).numpy())
        np.testing.assert_allclose(p_bkhw.numpy().sum(axis=1), 1, atol=1e-6)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The CPU's compiler with nothing kept anywhere; skips where another one is in use."""
    compiler = Device[backend().device].renderer.compiler
    if not isinstance(compiler, _Clang):
        pytest.skip("kernels compile in parallel with a compiler that is a command only")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "cachekey", None)
    known = dict(to_program_cache)
    to_program_cache.clear()
    yield compiler
    to_program_cache.update(known)


def test_every_kernel_is_compiled_once_and_in_the_background(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[tuple[str, str]] = []
    original = fresh.compile_to_obj

    def compile_to_obj(source: str) -> Any:
        compiled.append((source, threading.current_thread().name))
        return original(source)

    monkeypatch.setattr(fresh, "compile_to_obj", compile_to_obj)
    PredictStep(UNet(1, 1, base_channels=4, depth=1), canary=False)(batches(1)[0][0])
    assert len(compiled) == len({source for source, _ in compiled}) > 5
    kernels = [name for source, name in compiled if "void launch(" not in source]
    assert len(kernels) == len(compiled) - 1
    assert all(name.startswith("tinyseg-compiler") for name in kernels)
    assert not fresh.started


@pytest.mark.slow
def test_a_compiler_that_fails_is_an_error_in_words_and_leaves_nothing_behind(
    fresh: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PredictStep(UNet(1, 1, base_channels=4, depth=1))
    (image, _), *_ = batches(1)
    with monkeypatch.context() as broken:
        broken.setattr(fresh, "command", ("/bin/false",))
        with pytest.raises(BackendError, match="/bin/false failed"):
            step(image)
    assert all(program.src[-1].arg for program in to_program_cache.values())
    plain = PredictStep(step.model, jit=False)
    np.testing.assert_array_equal(step(image).numpy(), plain(image).numpy())


@pytest.mark.parametrize("out_channels", [1, 2, 4])
def test_outcomes_are_those_of_the_confusion_matrix(out_channels: int) -> None:
    rng = np.random.default_rng(0)
    classes = max(2, out_channels)
    logits = rng.standard_normal((2, out_channels, 5, 7)).astype(np.float32)
    logits[0, 0, 3, :3] = 0  # probability 0.5 is foreground, as everywhere
    label = rng.integers(0, classes, (2, 5, 7)).astype(np.uint8)
    label[0, :2] = 255
    predicted = logits[:, 0] >= 0 if out_channels == 1 else logits.argmax(axis=1)
    expected = metrics.outcomes(metrics.confusion(predicted, label, classes))
    for shaped in (label, label[:, None]):
        found = outcomes(Tensor(logits), Tensor(shaped)).numpy()
        np.testing.assert_array_equal(found, np.stack(expected)[:3, 1:])


@pytest.mark.slow
def test_a_function_is_a_loss_alone_and_in_a_sum_jitted_as_plain() -> None:
    weight = to_device(np.array([2.0], np.float32))

    def mine(logits: Tensor, label: Tensor) -> Tensor:
        return bce(logits, label) * weight.reshape(())

    doubled = run_steps("2*bce", 1, jit=False, count=3)
    for loss in (mine, [(0.5, "bce"), (0.75, mine)]):
        jitted = run_steps(loss, 1, jit=True, count=3)
        assert_equal_runs(jitted, run_steps(loss, 1, jit=False, count=3))
        for numbers, expected in zip(jitted[0], doubled[0], strict=True):
            assert numbers["loss"] == pytest.approx(expected["loss"], rel=1e-3)
            assert numbers["mine"] == pytest.approx(2 * expected["bce"], rel=1e-3)


class Root:
    """A network whose gradient is 0 / 0 for an image that is not positive everywhere."""

    out_channels = 1

    def __init__(self) -> None:
        self.first = to_device(np.array([1.0], np.float32))
        self.last = to_device(np.array([0.5], np.float32))

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return (x_bchw * self.first).maximum(0).sqrt() * self.last


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam(lr=0.1)", "sgd(lr=0.1,momentum=0.9)"])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_finite_loss_whose_gradient_is_not_changes_nothing_and_is_named(
    optimizer: str, clip: float, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((2, 1, 8, 8), np.float32) + 0.1
    label = to_device((image[:, 0] > 0.5).astype(np.uint8))
    broken = image.copy()
    broken[1, 0, 3, 3] = 0
    runs = []
    for jit in (True, False):
        step = TrainStep(Root(), "bce", optimizer, grad_clip=clip, jit=jit)
        assert np.isfinite(step(to_device(image), label).numbers()["gradient_norm"])
        before = {name: tensor.numpy().copy() for name, tensor in step.state.items()}
        numbers = step(to_device(broken), label).numbers()
        assert np.isfinite(numbers["loss"])
        assert not np.isfinite(numbers["gradient_norm"])
        for name in (name for name in before if not name.startswith("random")):
            np.testing.assert_array_equal(step.state[name].numpy(), before[name], err_msg=name)
        fault = step.fault(numbers)
        error = nan_report(tmp_path, step, 2, fault, to_device(broken), label, ("a", "b"))
        assert str(error).startswith(
            "step 2: the loss is finite but its gradient is not; first in the gradient of first; "
            "batch: a, b "
        )
        with np.load(tmp_path / "nonfinite-step-2.npz") as saved:
            np.testing.assert_array_equal(saved["image"], broken)
        runs.append([step(to_device(image), label).numbers() for _ in range(2)])
        assert all(np.isfinite(list(numbers.values())).all() for numbers in runs[-1])
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_gradients_whose_squares_overflow_change_nothing_and_are_named() -> None:
    image, label = (to_device(np.ones(shape, np.float32)) for shape in ((1, 1, 4, 4), (1, 4, 4)))
    step = TrainStep(Root(), Loss.parse("100000000000000000000*bce", 1), jit=False)
    numbers = step(image, label.cast("uint8").realize()).numbers()
    assert numbers["gradient_norm"] == np.inf
    np.testing.assert_array_equal(step.state["model.first"].numpy(), [1])
    assert "the gradients' joint norm" in first_not_finite(step, image, label, ("a",))


@pytest.mark.slow
def test_the_gradient_norm_is_measured_with_and_without_clipping() -> None:
    for clip in (0.0, 1e-3):
        step = TrainStep(TwoLayers(dropout=0), "bce", grad_clip=clip, jit=False)
        (batch,) = batches(1)
        logits = step.model(batch[0])
        gradients = step.gradients(step.loss(logits, batch[1])["loss"])
        squares = sum(np.square(g.numpy().astype(np.float64)).sum() for g in gradients.values())
        found = step(*batch).numbers()["gradient_norm"]
        assert found == pytest.approx(np.sqrt(squares), rel=1e-5)


def test_a_probability_of_just_one_half_is_foreground_in_training_and_in_prediction() -> None:
    logits = np.array([0.0, -1e-9, -1.0, 1.0], np.float32).reshape(1, 1, 2, 2)
    p_bkhw = Tensor(logits).sigmoid().numpy()
    predicted = to_classes(p_bkhw[0])
    assert predicted.ravel().tolist() == [1, 1, 0, 1]
    found = outcomes(Tensor(logits), Tensor(predicted[None])).numpy()
    assert found.ravel().tolist() == [3, 0, 0]


@pytest.mark.slow
def test_every_one_of_eight_images_is_learned() -> None:
    samples = simulate("cells", n=8, size=32, seed=4, empty=0)
    images = np.stack([sample.image for sample in samples])
    labels = np.stack([prepare_label(s.label, 32, "pad") for s in samples if s.label is not None])
    pipeline = InputPipeline(DataConfig(size=32, fit="pad"), InputScale.of(list(images)))
    fitted = [pipeline.tile(image) for image in images]
    model = UNet(3, 1, base_channels=8, depth=1)
    step = TrainStep(model, "auto", "adam(lr=0.01)")
    rng = np.random.default_rng(0)
    for _ in range(80):
        order = rng.permutation(8)
        for half in (order[:4], order[4:]):
            step(to_device(pipeline.to_batch([fitted[i] for i in half])), to_device(labels[half]))
    predicted = map(to_classes, Predictor(model, pipeline, batch=4)(images))
    dice = [
        evaluate_image(p, y, 2).values["dice"][1] for p, y in zip(predicted, labels, strict=True)
    ]
    assert min(dice) >= 0.9, dice


class Pixelwise:
    """A network of somebody else's."""

    def __init__(self) -> None:
        self.weight = to_device(np.array([0.5], np.float32))

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return x_bchw * self.weight


def test_a_network_of_somebody_else_learns() -> None:
    image = to_device(np.random.default_rng(0).random((2, 1, 8, 8), np.float32))
    label = to_device(np.ones((2, 8, 8), np.uint8))
    step = TrainStep(Pixelwise())
    first, *_ = (step(image, label)["loss"].item() for _ in range(3))
    assert step(image, label)["loss"].item() < first


class Native:
    """A network of tinygrad's own layers, whose scales begin as constants without a buffer."""

    out_channels = 1

    def __init__(self) -> None:
        self.conv, self.norm, self.head = (
            Conv2d(1, 4, 3, padding=1),
            GroupNorm(2, 4),
            Conv2d(4, 1, 1),
        )

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return self.head(self.norm(self.conv(x_bchw)).relu())


@pytest.mark.slow
def test_a_network_of_tinygrads_own_layers_learns_jitted_as_plain() -> None:
    rng = np.random.default_rng(0)
    image = to_device(rng.random((2, 1, 8, 8), np.float32))
    label = to_device((image.numpy()[:, 0] > 0.5).astype(np.uint8))
    losses = []
    for jit in (True, False):
        Tensor.manual_seed(0)
        step = TrainStep(Native(), "bce", "adam(lr=0.01)", jit=jit)
        losses.append([step(image, label)["loss"].item() for _ in range(5)])
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


@pytest.mark.slow
def test_a_batch_made_before_the_device_was_chosen_is_moved_to_it() -> None:
    model = TwoLayers(dropout=0)
    step, predict = TrainStep(model), PredictStep(model)
    image, label = batches(1)[0]
    far = [tensor.to("PYTHON").realize() for tensor in (image, label)]
    first = predict(far[0]).numpy()  # as on a machine with PoCL: lazily made Tensors lie on CL
    np.testing.assert_array_equal(first, predict(image).numpy())
    step.learning_rate = 0.0
    assert step(*far)["bce"].item() == step(image, label)["bce"].item()
