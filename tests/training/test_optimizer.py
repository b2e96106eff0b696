"""Optimizers against float64 NumPy, written from the papers and PyTorch's documented formulas."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg.device.tensors import to_device
from tinyseg.errors import ConfigError
from tinyseg.training.optimizer import Optimizer, clip, joint_norm
from tinyseg.training.schedule import Schedule

RNG = np.random.default_rng(0)
START = {"a.weight": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(5) * 10}
STEPS = 10
GRADIENTS = [
    {
        name: RNG.standard_normal(array.shape) * 10.0 ** (step % 3 - 1)
        for name, array in START.items()
    }
    for step in range(STEPS)
]
RATES = [0.1 * 0.8**step for step in range(STEPS)]


def sgd(parameter, gradients, momentum=0.0, nesterov=False, decay=0.0):
    """torch.optim.SGD's documentation, dampening 0."""
    velocity = None
    for gradient, rate in zip(gradients, RATES, strict=True):
        gradient = gradient + decay * parameter
        if momentum:
            velocity = gradient if velocity is None else momentum * velocity + gradient
            gradient = gradient + momentum * velocity if nesterov else velocity
        parameter = parameter - rate * gradient
    return parameter


def adam(parameter, gradients, beta1=0.9, beta2=0.999, epsilon=1e-8, decay=0.0, decoupled=False):
    """Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2, for adamw."""
    mean, square = np.zeros_like(parameter), np.zeros_like(parameter)
    for step, (gradient, rate) in enumerate(zip(gradients, RATES, strict=True), start=1):
        if decoupled:
            parameter = parameter * (1 - rate * decay)
        else:
            gradient = gradient + decay * parameter
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        mean_hat, square_hat = mean / (1 - beta1**step), square / (1 - beta2**step)
        parameter = parameter - rate * mean_hat / (np.sqrt(square_hat) + epsilon)
    return parameter


def parameters() -> dict[str, Tensor]:
    return {name: to_device(array.astype(np.float32)) for name, array in START.items()}


@pytest.mark.parametrize("text", ["sgd(momentum=0.9,encoder=0.1)", "adamw(encoder=0.1)"])
def test_the_encoder_has_a_learning_rate_of_its_own(text: str) -> None:
    names = {"a.weight": "encoder.weight", "b": "b"}
    renamed = {names[name]: tensor for name, tensor in parameters().items()}
    optimizer = Optimizer(text, renamed)
    slower = Optimizer(text.replace("encoder=0.1", "encoder=1"), parameters())
    for gradients, rate in list(zip(GRADIENTS, RATES, strict=True))[:3]:
        tensors = {name: to_device(g.astype(np.float32)) for name, g in gradients.items()}
        other = {names[name]: tensor for name, tensor in tensors.items()}
        optimizer.update(other, to_device(np.array([rate], np.float32)), Tensor(True))
        slower.update(tensors, to_device(np.array([rate * 0.1], np.float32)), Tensor(True))
        Tensor.realize(*optimizer.parameters.values(), *slower.parameters.values())
    np.testing.assert_allclose(
        renamed["encoder.weight"].numpy(), slower.parameters["a.weight"].numpy(), rtol=1e-6
    )
    assert np.abs(renamed["b"].numpy() - slower.parameters["b"].numpy()).max() > 1e-3


def test_a_factor_for_an_encoder_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"encoder=0\.1 has no effect"):
        Optimizer("adam(encoder=0.1)", parameters())


def run(optimizer: Optimizer, steps: int = STEPS, accept: bool = True) -> dict[str, np.ndarray]:
    for gradients, rate in list(zip(GRADIENTS, RATES, strict=True))[:steps]:
        tensors = {name: to_device(g.astype(np.float32)) for name, g in gradients.items()}
        optimizer.update(tensors, to_device(np.array([rate], np.float32)), Tensor(accept))
        Tensor.realize(*optimizer.parameters.values(), *optimizer.state.values())
    return {name: tensor.numpy() for name, tensor in optimizer.parameters.items()}


@pytest.mark.parametrize(
    ("text", "reference", "settings"),
    [
        ("sgd(lr=0.1)", sgd, {}),
        ("sgd(weight_decay=0.01)", sgd, {"decay": 0.01}),
        ("sgd(momentum=0.9)", sgd, {"momentum": 0.9}),
        (
            "sgd(momentum=0.8,nesterov=true,weight_decay=0.1)",
            sgd,
            {"momentum": 0.8, "nesterov": True, "decay": 0.1},
        ),
        ("adam", adam, {}),
        (
            "adam(beta1=0.5,beta2=0.9,eps=0.1,weight_decay=0.2)",
            adam,
            {"beta1": 0.5, "beta2": 0.9, "epsilon": 0.1, "decay": 0.2},
        ),
        ("adam(beta1=0,eps=0.001)", adam, {"beta1": 0.0, "epsilon": 0.001}),
        ("adamw", adam, {"decay": 0.01, "decoupled": True}),
        (
            "adamw(weight_decay=0.5,beta2=0.95)",
            adam,
            {"decay": 0.5, "beta2": 0.95, "decoupled": True},
        ),
        ("adamw(weight_decay=0)", adam, {}),
    ],
)
def test_ten_steps_are_those_of_the_paper(text, reference, settings) -> None:
    found = run(Optimizer(text, parameters()))
    for name, start in START.items():
        expected = reference(start, [gradients[name] for gradients in GRADIENTS], **settings)
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=2e-5, err_msg=name)
        assert np.abs(expected - start).max() > 0.1


@pytest.mark.parametrize("text", ["sgd(momentum=0.9)", "adam"])
def test_a_step_that_is_not_accepted_leaves_every_bit(text: str) -> None:
    optimizer = Optimizer(text, parameters())
    run(optimizer, steps=2)
    everything = {**optimizer.parameters, **optimizer.state}
    before = {name: tensor.numpy().tobytes() for name, tensor in everything.items()}
    bad = {name: to_device(np.full(a.shape, np.nan, np.float32)) for name, a in START.items()}
    optimizer.update(bad, to_device(np.array([0.1], np.float32)), Tensor(False))
    Tensor.realize(*everything.values())
    assert {name: tensor.numpy().tobytes() for name, tensor in everything.items()} == before
    run(optimizer, steps=1)
    after = {name: tensor.numpy().tobytes() for name, tensor in everything.items()}
    assert all(after[name] != before[name] for name in before)


def test_what_an_optimizer_remembers_has_names() -> None:
    names = {
        "sgd": [],
        "sgd(momentum=0.9)": ["velocity.a.weight", "velocity.b"],
        "adam": [
            *("beta1_power", "beta2_power", "mean.a.weight", "mean.b"),
            *("square.a.weight", "square.b"),
        ],
    }
    for text, expected in names.items():
        assert list(Optimizer(text, parameters()).state) == expected
    assert Optimizer("adam(lr=0.25)", {}).learning_rate == 0.25
    assert Optimizer("sgd", {}).learning_rate == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adamax", "unknown optimizer 'adamax'; known: sgd, adam, adamw"),
        ("adam(rate=1)", "unknown argument 'rate'; known for adam: lr, beta1"),
        ("adam(lr=-1)", r"adam\(lr=-1\): lr=-1.0 cannot be used: it must be at least 0"),
        ("adam(beta1=1)", "beta1=1.0 cannot be used: it must be below 1"),
        ("adam(beta2=1.5)", "beta2=1.5 cannot be used: it must be below 1"),
        ("adam(beta1=-0.1)", "beta1=-0.1 cannot be used: it must be at least 0"),
        ("adam(eps=-1e-9)", "eps=-1e-09 cannot be used"),
        ("adamw(weight_decay=-1)", "decay=-1.0 cannot be used"),
        ("sgd(momentum=1)", "momentum=1.0 cannot be used: it must be below 1"),
        ("sgd(nesterov=true)", r"nesterov needs a momentum, e.g. sgd\(momentum=0.9"),
        ("sgd(nesterov=1)", "nesterov=1 cannot be used: give true or false"),
        ("adam(lr=fast)", "lr=fast cannot be used: give a number"),
        ("adam(lr=1", "cannot be read at character"),
    ],
)
def test_bad_settings_are_config_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Optimizer(text, {})


@pytest.mark.parametrize(("largest", "scaled"), [(1.0, True), (5.0, True), (1e9, False)])
def test_clip_limits_the_joint_norm(largest: float, scaled: bool) -> None:
    arrays = {name: g.astype(np.float32) for name, g in GRADIENTS[2].items()}
    gradients = {name: to_device(g) for name, g in arrays.items()}
    norm = joint_norm(gradients)
    clipped = clip(gradients, norm, largest)
    expected = math.sqrt(sum(np.square(g.astype(np.float64)).sum() for g in arrays.values()))
    assert float(norm.numpy()) == pytest.approx(expected, rel=1e-6)
    found = {name: tensor.numpy() for name, tensor in clipped.items()}
    if not scaled:
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
        return
    for name, array in arrays.items():
        np.testing.assert_allclose(found[name], array * largest / expected, rtol=1e-5)
    assert math.sqrt(sum(np.square(g).sum() for g in found.values())) <= largest


def test_clip_of_nothing_but_zeros_stays_zero() -> None:
    gradients = {"a": to_device(np.zeros(4, np.float32))}
    norm = joint_norm(gradients)
    clipped = clip(gradients, norm, 1.0)
    assert float(norm.numpy()) == 0
    assert clipped["a"].numpy().tolist() == [0, 0, 0, 0]


# Schedules


def factors(text: str, steps: int) -> list[float]:
    schedule = Schedule(text)
    return [schedule.factor(step, steps) for step in range(steps)]


def test_constant_and_warmup() -> None:
    assert factors("constant", 3) == [1, 1, 1]
    assert factors("constant(warmup=0.5)", 8) == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert factors("plateau", 2) == [1, 1]


def test_cosine_by_hand() -> None:
    half = math.sqrt(0.5)
    expected = [1, (1 + half) / 2, 0.5, (1 - half) / 2]
    assert factors("cosine", 4) == pytest.approx(expected)
    floored = [0.2 + 0.8 * value for value in expected]
    assert factors("cosine(floor=0.2)", 4) == pytest.approx(floored)
    assert factors("cosine(warmup=0.5)", 8) == pytest.approx([0.25, 0.5, 0.75, 1, *expected])


def test_poly_by_hand() -> None:
    assert factors("poly(power=2)", 4) == pytest.approx([1, 0.5625, 0.25, 0.0625])
    assert factors("poly", 2) == pytest.approx([1, 0.5**0.9])
    assert factors("poly(power=0)", 3) == [1, 1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "constant(warmup=1)",
        "cosine(warmup=0.05)",
        "cosine(warmup=1)",
        "poly(warmup=0.95)",
        "cosine",
    ],
)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 97])
def test_factors_stay_between_0_and_1_and_never_end_at_nothing(text: str, steps: int) -> None:
    found = factors(text, steps)
    assert all(0 < factor <= 1 for factor in found)
    peak = found.index(max(found))
    assert found[:peak] == sorted(found[:peak])
    assert found[peak:] == sorted(found[peak:], reverse=True)


def test_plateau_lowers_the_rate_after_patience_and_forgets_nothing_over_a_stop() -> None:
    schedule = Schedule("plateau(factor=0.5,patience=2)")
    seen = [0.1, 0.3, 0.2, 0.3, 0.3, 0.1, 0.1, 0.1, 0.4, 0.0]
    lowered = [False] * 4 + [True, False, False, True, False, False]
    kept = []
    for dice, expected in zip(seen, lowered, strict=True):
        assert schedule.observe(dice) is expected
        # as a checkpoint keeps it: JSON, also the -inf of the beginning
        schedule = Schedule(**json.loads(json.dumps(asdict(schedule))))
        kept.append(schedule.factor(0, 10))
    assert kept == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert (schedule.best, schedule.waited) == (0.4, 1)


def test_plateau_counts_nan_as_no_better() -> None:
    schedule = Schedule("plateau(factor=0.1,patience=0)")
    assert schedule.observe(0.5) is False
    assert schedule.observe(math.nan) is True
    assert schedule.factor(0, 10) == pytest.approx(0.1)
    assert schedule.best == 0.5


def test_other_schedules_do_not_look_at_the_dice() -> None:
    schedule = Schedule("cosine")
    assert not any(schedule.observe(0.0) for _ in range(50))
    assert schedule == Schedule("cosine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step", "unknown schedule 'step'; known: constant, cosine, poly, plateau"),
        ("cosine(power=1)", "unknown argument 'power'"),
        ("cosine(warmup=1.5)", r"cosine\(warmup=1.5\): warmup=1.5 must be between 0 and 1"),
        ("cosine(warmup=-0.1)", "warmup=-0.1 must be between 0 and 1"),
        ("cosine(floor=2)", "floor=2.0 must be between 0 and 1"),
        ("poly(power=-1)", "power=-1.0 must be between 0 and inf"),
        ("plateau(factor=1.1)", "factor=1.1 must be between 0 and 1"),
        ("plateau(patience=-1)", "patience=-1.0 must be between 0 and inf"),
        ("", "cannot be read"),
    ],
)
def test_bad_schedules_are_config_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Schedule(text)
