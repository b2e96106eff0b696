"""Mixed precision: half types learn as float32 does, and float16's loss scale keeps it alive."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg.config import PRECISIONS, Config, DataConfig
from tinyseg.data import InputPipeline, InputScale, prepare_label, simulate
from tinyseg.device.choose import backend
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import ConfigError, NonFiniteError
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.inference.run import load_run
from tinyseg.metrics.summary import foreground_mean
from tinyseg.models import UNet
from tinyseg.nn import BatchNorm, Conv2d, ConvTranspose2d, layers
from tinyseg.runs import checkpoint
from tinyseg.runs.metrics_log import read_log
from tinyseg.training.loss_scale import LossScale
from tinyseg.training.nan_report import record_outputs
from tinyseg.training.step import TrainStep
from tinyseg.training.train import train

UNIT = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
"""The largest relative error of one rounding."""

half = pytest.mark.parametrize("precision", UNIT)
Batch = tuple[Tensor, Tensor]


def cells(count: int = 8, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Simulated images (N, 3, S, S) as the network gets them, and their labels."""
    samples = simulate("cells", n=count, size=size, seed=4, empty=0)
    images = [sample.image for sample in samples]
    pipeline = InputPipeline(DataConfig(size=size, fit="pad"), InputScale.of(images))
    labels = [
        prepare_label(sample.label, size, "pad") for sample in samples if sample.label is not None
    ]
    return pipeline.to_batch([pipeline.tile(image) for image in images]), np.stack(labels)


@pytest.fixture(scope="module")
def batch() -> Batch:
    images, labels = cells(4)
    return to_device(images), to_device(labels)


def make_step(precision: str, loss: str = "bce", jit: bool = True, **options: Any) -> TrainStep:
    shape = {"base_channels": 4, "depth": 1, "precision": precision, **options.pop("shape", {})}
    return TrainStep(UNet(3, 1, **shape), loss, jit=jit, canary=False, **options)


def arrays(step: TrainStep) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in step.state.items()}


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# 1. Numerics of a whole network; of each layer: kernels/test_half.py


@pytest.fixture(scope="module")
def passes(batch: Batch) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each precision: logits in training and evaluation, and all gradients as one vector."""
    found = {}
    for precision in PRECISIONS:
        step = make_step(precision, shape={"depth": 2})
        logits = step.model(batch[0], training=True)
        gradients = step.gradients(step.loss(logits, batch[1])["loss"])
        logits.realize(*gradients.values())
        flat = np.concatenate([gradient.numpy().ravel() for gradient in gradients.values()])
        evaluated = step.model(batch[0], training=False)
        assert logits.dtype.name == evaluated.dtype.name == "float"
        found[precision] = (logits.numpy(), evaluated.numpy(), flat)
    return found


def error(precision: str) -> float:
    """Relative error of the logits: roundings of images, weights and layers' results add up.

    They do as the steps of a random path; what layers enlarge and lessen is left out.
    """
    kinds = [type(layer) for _, layer in layers(UNet(3, 1, base_channels=4, depth=2))]
    convolutions = kinds.count(Conv2d) + kinds.count(ConvTranspose2d)
    return (1 + 2 * convolutions + kinds.count(BatchNorm)) ** 0.5 * UNIT[precision]


@pytest.mark.slow
@half
def test_logits_differ_by_the_roundings_between(precision: str, passes: Any) -> None:
    expected = error(precision)
    for half_logits, logits in zip(passes[precision][:2], passes["float32"][:2], strict=True):
        assert expected / 16 < relative(half_logits, logits) < 2 * expected


@pytest.mark.slow
@half
def test_gradients_differ_by_what_switches(precision: str, passes: Any) -> None:
    """Pixels as near to a ReLU's threshold as the error of the forward pass may switch.

    Of standard normal numbers a share of 2 phi(0) e lies within e of it. They change the gradient
    by the root of their share, layers add up, and pooling switches like one more layer.
    """
    share = 2 / (2 * np.pi) ** 0.5 * error(precision)
    switching = 10 + 2  # ReLUs and poolings
    found = relative(passes[precision][2], passes["float32"][2])
    assert error(precision) < found < (switching * share) ** 0.5


@half
def test_between_the_doors_images_are_half_and_state_is_float32(
    precision: str, batch: Batch
) -> None:
    step = make_step(precision, shape={"attention": True, "dropout": 0.2, "depth": 2})
    with record_outputs(step.model) as outputs:
        step.model(batch[0], training=True)
    names = {"bfloat16": "__bf16", "float16": "half"}
    assert len(outputs) > 20
    assert {output.dtype.name for _, output in outputs} == {names[precision]}
    kinds = {array.dtype.name for array in arrays(step).values()}
    assert kinds <= {"float32", "int32", "uint32"}


@pytest.mark.slow
def test_sixty_steps_learn_what_float32_learns() -> None:
    """To within a tenth of what float32 learns; the runs part soon, as after any small change."""
    images, labels = cells()
    finals = {}
    for precision in PRECISIONS:
        step, losses = make_step(precision, "auto", optimizer="adam(lr=0.01)"), []
        rng = np.random.default_rng(0)
        for _ in range(60):
            chosen = rng.permutation(8)[:4]
            given = to_device(images[chosen]), to_device(labels[chosen])
            losses.append(step(*given).numbers()["loss"])
        finals[precision] = float(np.mean(losses[-10:]))
    learned = losses[0] - finals["float32"]
    assert learned > 0.3
    for precision in UNIT:
        assert abs(finals[precision] - finals["float32"]) < learned / 10, finals


# 2. The loss scale


@pytest.mark.slow
def test_gradients_that_underflow_in_float16_survive_by_the_scale(batch: Batch) -> None:
    """A loss of a millionth: pixels' gradients are near 1e-10, float16 ends at 6e-8."""
    found = {}
    cases = ("float32", 0), ("float16", 0), ("bfloat16", 0), ("float16", 1)
    for precision, scale in cases:
        options: dict[str, Any] = {"loss_scale": scale, "grad_clip": 1e9}
        step = make_step(precision, "0.000001*bce", **options)
        found[precision, scale] = step(*batch).numbers()["gradient_norm"]
    wanted = found["float32", 0]
    assert found["float16", 1] < wanted / 2
    for precision in UNIT:
        assert found[precision, 0] == pytest.approx(wanted, rel=0.15)


def set_scale(step: TrainStep, scale: float) -> None:
    copy_(step.state["loss_scale.value"], np.array([scale], np.float32))


@pytest.mark.slow
def test_an_overflow_leaves_the_update_out_and_halves_the_scale_until_it_fits(
    batch: Batch,
) -> None:
    step = make_step("float16", "100000*bce")
    step(*batch)
    changed, measured = [], []
    for _ in range(14):
        before = arrays(step)
        measured.append(step(*batch).numbers())
        after = arrays(step)
        kept = ("optimizer.", *(f"model.{name}" for name in step.parameters))
        names = [name for name in after if name.startswith(kept)]
        changed.append(any(not np.array_equal(before[name], after[name]) for name in names))
    skipped = [bool(values["skipped"]) for values in measured]
    assert skipped == [not change for change in changed]
    assert skipped[0]
    assert not skipped[-1]
    for one, two in itertools.pairwise(measured):
        assert two["loss_scale"] == one["loss_scale"] / (2 if one["skipped"] else 1)
    assert all(np.isfinite(array).all() for array in arrays(step).values())


@pytest.mark.parametrize(
    ("scale", "good", "accept", "expected"),
    [
        (64.0, 0, True, (64.0, 1)),
        (64.0, 1999, True, (128.0, 0)),
        (64.0, 1999, False, (32.0, 0)),
        (1.0, 5, False, (1.0, 0)),  # the bounds
        (2.0**24, 1999, True, (2.0**24, 0)),
    ],
)
def test_the_scale_moves_as_in_pytorch_within_its_bounds(
    scale: float, good: int, accept: bool, expected: tuple[float, int]
) -> None:
    moved = LossScale()
    copy_(moved.state["loss_scale.value"], np.array([scale], np.float32))
    copy_(moved.state["loss_scale.good"], np.array([good], np.int32))
    moved.adapt(Tensor(accept))
    Tensor.realize(*moved.state.values())
    assert tuple(tensor.item() for tensor in moved.state.values()) == expected


def test_a_fixed_scale_stays_and_other_precisions_have_none() -> None:
    fixed = LossScale(fixed=128.0)
    for accept in (True, False):
        copy_(fixed.state["loss_scale.good"], np.array([1999], np.int32))
        fixed.adapt(Tensor(accept))
        assert fixed.state["loss_scale.value"].item() == 128
    assert LossScale("bfloat16").state == LossScale("float32").state == {}


@pytest.mark.slow
def test_clipping_sees_gradients_of_the_loss_itself(batch: Batch) -> None:
    norms = [
        make_step("float16", grad_clip=1.0, loss_scale=scale)(*batch).numbers()
        for scale in (2.0**8, 2.0**12)
    ]
    assert norms[0]["gradient_norm"] == pytest.approx(norms[1]["gradient_norm"], rel=1e-2)


@pytest.mark.slow
@half
def test_ten_jitted_steps_equal_ten_plain_steps_bit_for_bit(precision: str) -> None:
    """With dropout and clipping, and in float16 with updates that are left out."""
    images, labels = cells(8, size=16)
    runs = []
    for jit in (True, False):
        options: dict[str, Any] = {"optimizer": "adam(lr=0.01)", "grad_clip": 1.0}
        shape = {"dropout": 0.2}
        step = make_step(precision, "auto", jit, shape=shape, **options)
        if precision == "float16":
            set_scale(step, 2.0**36)
            step.loss_scale.highest = 2.0**40
        numbers = []
        for number in range(10):
            chosen = np.random.default_rng(number).permutation(8)[:2]
            numbers.append(
                step(to_device(images[chosen]), to_device(labels[chosen])).vector.numpy()
            )
        runs.append((np.stack(numbers), arrays(step)))
    np.testing.assert_array_equal(*(numbers for numbers, _ in runs))
    for name, array in runs[0][1].items():
        np.testing.assert_array_equal(array, runs[1][1][name], err_msg=name)


# 3. Runs

DATA = "sim:cells?n=10&size=32&seed=1"


def small(*more: str) -> Config:
    settings = ["data.size=32", "model.base_channels=4", "model.depth=1", "train.batch_size=4"]
    return Config().override([*settings, *more])


def silent(text: str) -> None:
    pass


@pytest.mark.slow
def test_a_float16_run_goes_on_with_its_scale_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Its first updates overflow, which is no reason to stop."""

    def interrupt(text: str) -> None:
        heard.append(text)
        if text.startswith("epoch   3/3"):  # before its checkpoint
            raise KeyboardInterrupt

    config = small("train.epochs=3", "train.precision=float16", "train.loss=1000000*bce")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    heard: list[str] = []
    run = train(DATA, whole, config=config, say=silent)
    with pytest.raises(KeyboardInterrupt):
        train(DATA, parted, config=config, say=interrupt)
    train(DATA, parted, resume=True, say=silent)
    (state, facts), (again, facts_again) = (
        checkpoint.load(folder / "checkpoints" / "last.safetensors") for folder in (whole, parted)
    )
    assert facts == facts_again
    assert state.keys() == again.keys()
    assert all(np.array_equal(state[name], again[name]) for name in state)
    steps = read_log(run.log, "step")
    skipped = sum(step["skipped"] for step in steps)
    assert skipped >= 2
    assert state["loss_scale.value"] == steps[0]["loss_scale"] / 2**skipped
    on_cpu = backend().device == "CPU"
    assert sum("for GPUs" in line for line in heard) == on_cpu


@pytest.mark.slow
def test_an_overflow_that_no_smaller_scale_can_mend_stops_with_one_line(tmp_path: Path) -> None:
    config = small("train.precision=float16", "train.loss=1000000*bce", "train.loss_scale=16777216")
    told = r"step 1: the gradients overflow at loss scale 1\.67772e\+07; first in the gradient of "
    with pytest.raises(NonFiniteError, match=told) as error:
        train(DATA, tmp_path / "run", config=config, say=silent)
    assert "train.precision=bfloat16" in str(error.value)


@pytest.mark.slow
def test_validation_and_evaluation_compute_in_the_runs_precision(tmp_path: Path) -> None:
    settings = ("train.epochs=1", "train.precision=bfloat16", "train.optimizer=adam(lr=0.01)")
    config = small(*settings, "train.threshold=0.5")  # as validation: a learned one is later
    run = train(DATA, tmp_path / "run", config=config, say=silent)
    logged = read_log(run.log, "epoch")[-1]["val"]["pooled"]["dice"]["mean"]
    again = load_run(run.folder)
    assert again.predictor.step.model.precision == "bfloat16"
    dice = foreground_mean(evaluate(again, DATA).summary.pooled["dice"])
    assert dice == pytest.approx(logged, abs=1e-12)


def test_settings_that_do_not_fit_are_refused() -> None:
    for wrong in ("precision=half", "precision=float64", "loss_scale=-1", "loss_scale=0.5"):
        with pytest.raises(ConfigError, match=wrong.partition("=")[0]):
            small(f"train.{wrong}")
    with pytest.raises(ConfigError, match=r"loss_scale=128\.0.*unless train\.precision is float16"):
        small("train.loss_scale=128")
    assert small("train.precision=float16", "train.loss_scale=128").train.loss_scale == 128
    with pytest.raises(ConfigError, match="one of float32, bfloat16, float16"):
        UNet(1, 1, base_channels=2, depth=1, precision="int8")
