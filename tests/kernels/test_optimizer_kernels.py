"""Adam in one kernel against its definition in float64."""

import numpy as np
import pytest
from tinygrad import Tensor, TinyJit

from tinyseg import kernels
from tinyseg.device.choose import backend

backend()

SHAPES = [(16, 3, 3, 3), (16,), (1,), (5, 7), (33,)]
TENTH = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8}


def draw(seed: int) -> list[np.ndarray]:
    """Return one array per parameter."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def reference(
    arrays: list[list[np.ndarray]], numbers: list[float], decay: float
) -> list[list[np.ndarray]]:
    """Return new parameters, means and squares (Kingma & Ba 2015, algorithm 1)."""
    news: list[list[np.ndarray]] = [[], [], []]
    for parameter, mean, square, gradient in zip(*arrays, strict=True):
        p, m, v, g = (a.astype(np.float64) for a in (parameter, mean, square, gradient))
        g = g + decay * p
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        change = numbers[0] * m / (np.sqrt(v) * numbers[1] + 1e-8) + numbers[2] * p
        for new, value in zip(news, (p - change, m, v), strict=True):
            new.append(value)
    return news


@pytest.mark.parametrize(("shrink", "decay"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.1)])
def test_all_parameters_follow_the_definition(shrink: float, decay: float) -> None:
    arrays = [draw(1), draw(2), [np.abs(a) for a in draw(3)], draw(4)]
    tensors = [[Tensor(a).realize() for a in group] for group in arrays]
    numbers = [0.02, 3.0, shrink, 1.0]
    kernels.adam(
        *tensors, Tensor(numbers).realize(), kernels.AdamSettings(**TENTH, weight_decay=decay)
    )
    Tensor.realize(*tensors[0], *tensors[1], *tensors[2])
    for group, expected in zip(tensors, reference(arrays, numbers, decay), strict=False):
        for tensor, array in zip(group, expected, strict=True):
            # about ten roundings of half a unit, and one division that may double them
            assert np.allclose(tensor.numpy(), array, rtol=2e-6, atol=1e-7)


def test_a_refused_step_changes_nothing_even_when_it_is_nan() -> None:
    arrays = [draw(1), draw(2), [np.abs(a) for a in draw(3)]]
    tensors = [[Tensor(a).realize() for a in group] for group in arrays]
    gradients = [Tensor(np.full_like(a, np.nan)) for a in draw(4)]
    numbers = Tensor([np.nan, np.nan, 0.0, 0.0]).realize()
    kernels.adam(*tensors, gradients, numbers, kernels.AdamSettings(**TENTH))
    Tensor.realize(*tensors[0], *tensors[1], *tensors[2])
    for group, expected in zip(tensors, arrays, strict=True):
        for tensor, array in zip(group, expected, strict=True):
            assert np.array_equal(tensor.numpy(), array)


@pytest.mark.parametrize("shapes", [SHAPES, [(1,)], [(16,)], [(1000, 70), (3,)]])
def test_the_joint_norm_is_that_of_all_numbers_as_one_vector(shapes: list[tuple]) -> None:
    rng = np.random.default_rng(6)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    tensors = [Tensor(array).realize() for array in arrays]
    expected = np.sqrt(sum(np.square(array.astype(np.float64)).sum() for array in arrays))
    for norm in (kernels.joint_norm, kernels.plain.joint_norm):
        assert norm(tensors).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_anywhere_makes_the_joint_norm_not_finite(value: float) -> None:
    for index, shape in enumerate(SHAPES):
        for place in {0, int(np.prod(shape)) - 1}:
            arrays = draw(6)
            arrays[index].flat[place] = value
            assert not np.isfinite(kernels.joint_norm([Tensor(a) for a in arrays]).item())


def test_in_a_jitted_step_the_gradient_sees_the_old_weights() -> None:
    """Training a small convolution by kernels and by plain operations must go the same way."""

    def train(update: object, jit: bool) -> list[np.ndarray]:
        rng = np.random.default_rng(7)
        w = Tensor(rng.standard_normal((16, 16, 3, 3)).astype(np.float32)).realize()
        mean, square = (Tensor.zeros(16, 16, 3, 3).contiguous().realize() for _ in range(2))
        numbers = Tensor([0.01, 1.0, 0.0, 1.0]).realize()

        def step(state: list[Tensor], x: Tensor) -> Tensor:
            w, mean, square = state
            loss = (kernels.conv2d(x, w, None, 1, 1) - 1).square().mean()
            update([w], [mean], [square], [loss.gradient(w)[0]], numbers, kernels.AdamSettings())
            return loss.realize(*state)

        run, losses = TinyJit(step) if jit else step, []
        for _ in range(5):
            x = Tensor(rng.standard_normal((1, 16, 8, 8)).astype(np.float32)).realize()
            losses.append(run([w, mean, square], x).numpy().copy())
        return [*losses, w.numpy()]

    eager, jitted = train(kernels.adam, False), train(kernels.adam, True)
    plain = train(kernels.plain.adam, False)
    for first, second, third in zip(eager, jitted, plain, strict=True):
        assert np.array_equal(first, second)
        assert np.allclose(first, third, rtol=1e-4, atol=1e-5)
    assert eager[4] < eager[0]


def test_a_weight_that_its_own_gradient_reads_is_updated() -> None:
    """Of such a weight tinygrad 0.13 hands the kernel a copy, unless it is given flat."""
    weight, scale = (Tensor(a).realize() for a in (draw(5)[0], np.ones((16, 1, 1, 1), np.float32)))
    before, loss = weight.numpy(), (weight * scale).square().mean()
    gradients = loss.gradient(weight, scale)
    states = [
        [Tensor(np.zeros(w.shape, np.float32)).realize() for w in (weight, scale)] for _ in "ab"
    ]
    numbers = Tensor([0.02, 3.0, 0, 1.0]).realize()
    kernels.adam([weight, scale], *states, list(gradients), numbers, kernels.AdamSettings())
    Tensor.realize(loss, weight, scale, *states[0], *states[1])
    assert (np.abs(weight.numpy() - before) > 1e-4).all()
