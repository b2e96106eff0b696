"""Batch normalisation against float64 NumPy: values, statistics and all gradients."""

import conv_oracle as oracle
import numpy as np
import pytest
from tinygrad import Tensor, TinyJit

from tinyseg import kernels
from tinyseg.device.choose import backend

backend()

# batch, channels, rows, columns, relu, common offset of the images
SHAPES = [
    (2, 16, 5, 7, True, 0.0),
    (1, 64, 40, 33, True, 3.0),  # several runs of pixels, several groups of vectors
    (4, 8, 3, 3, False, 0.0),
    (2, 48, 16, 16, True, 0.0),
    (1, 16, 8, 8, False, 1000.0),  # sums of squares alone would lose all digits here
    (2, 5, 4, 4, True, 0.0),  # no vector fits: the plain path
]


def reference(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, dy: np.ndarray, relu: bool
) -> list[np.ndarray]:
    """Return y, mean, variance, dx, dweight, dbias (Ioffe & Szegedy 2015, section 3)."""
    axes, wide = (0, 2, 3), (1, -1, 1, 1)
    mean, variance = x.mean(axes), x.var(axes)
    inverse = 1 / np.sqrt(variance + 1e-5)
    normal = (x - mean.reshape(wide)) * inverse.reshape(wide)
    y = normal * weight.reshape(wide) + bias.reshape(wide)
    dz = dy * (y > 0) if relu else dy
    to_weight, to_bias = (dz * normal).sum(axes), dz.sum(axes)
    count = x.size // x.shape[1]
    centred = dz - (to_bias.reshape(wide) + normal * to_weight.reshape(wide)) / count
    dx = centred * (inverse * weight).reshape(wide)
    return [np.maximum(y, 0) if relu else y, mean, variance, dx, to_weight, to_bias]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_statistics_and_gradients_match_numpy(shape: tuple) -> None:
    *size, relu, offset = shape
    rng = np.random.default_rng(3)
    x0, dy = rng.standard_normal((2, *size)).astype(np.float32)
    x0 = (x0 + np.float32(offset)).astype(np.float32)
    w0, b0 = rng.standard_normal((2, size[1])).astype(np.float32)
    x, weight, bias = Tensor(x0), Tensor(w0), Tensor(b0)
    y, mean, variance = kernels.batch_norm(x, weight, bias, 1e-5, relu)
    (y * Tensor(dy)).sum().backward()
    found = [y, mean, variance, x.grad, weight.grad, bias.grad]
    arrays = [array.astype(np.float64) for array in (x0, w0, b0, dy)]
    # each term is rounded twice (difference, product), and an offset takes digits from every
    # x - mean before anything is computed
    allowed = 2 * oracle.tolerance(x0[:, 0].size) * max(1.0, offset)
    for name, tensor, expected in zip(
        ["y", "mean", "variance", "dx", "dweight", "dbias"],
        found,
        reference(*arrays, relu),
        strict=True,
    ):
        assert oracle.difference(tensor.numpy(), expected) < allowed, name


def step(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """Return everything of a normalisation that a step uses."""
    y, mean, variance = kernels.batch_norm(x, weight, bias, 1e-5, relu=True)
    made = (y, mean, variance, *y.square().mean().gradient(x, weight, bias))
    Tensor.realize(*made)
    return made


def test_the_jit_gives_the_same_bits() -> None:
    rng = np.random.default_rng(4)
    weight, bias = (Tensor(rng.random(16).astype(np.float32)).realize() for _ in range(2))
    jitted = TinyJit(step)
    for _ in range(4):
        image = rng.standard_normal((2, 16, 9, 9)).astype(np.float32)
        plain = [tensor.numpy() for tensor in step(Tensor(image), weight, bias)]
        replayed = [tensor.numpy() for tensor in jitted(Tensor(image).realize(), weight, bias)]
        for first, second in zip(plain, replayed, strict=True):
            assert np.array_equal(first, second)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="16 channels"):
        kernels.batch_norm(Tensor.empty(1, 16, 2, 2), Tensor.empty(8), Tensor.empty(8))


@pytest.mark.parametrize("sizes", [(16, 32, 16), (16, 5, 24)])
def test_moving_averages_follow_what_is_finite_in_one_kernel(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(8)
    momenta, factors = (0.25, 0.1, 0.5), (1.0, 1.5, 1.0)
    wanted = [rng.standard_normal(size) for size in sizes]
    running = [Tensor(vector.astype(np.float32)).clone().realize() for vector in wanted]
    for _ in range(3):
        news = [rng.standard_normal(size).astype(np.float32) for size in sizes]
        news[0][3], news[1][1] = np.nan, np.inf
        kernels.moving_averages(running, [Tensor(new) for new in news], momenta, factors)
        Tensor.realize(*running)
        for old, new, momentum, factor in zip(wanted, news, momenta, factors, strict=True):
            moved = (1 - momentum) * old + momentum * factor * new.astype(np.float64)
            old[:] = np.where(np.isfinite(new), moved, old)
        for found, expected in zip(running, wanted, strict=True):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)
