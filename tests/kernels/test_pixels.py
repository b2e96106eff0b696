"""Pooling and joining against NumPy: both only move numbers, so every bit must agree."""

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.device.choose import backend

backend()

SHAPES = [(2, 16, 5, 7), (1, 64, 40, 32), (4, 8, 3, 3), (1, 16, 2, 2), (3, 48, 6, 5), (1, 5, 4, 4)]


def pool(x: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled images and the gradient of the first largest pixel of each square."""
    y, dx = np.zeros_like(dy), np.zeros_like(x)
    for place in np.ndindex(*dy.shape):
        batch, channel, row, column = place
        square = x[batch, channel, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        down, right = divmod(int(square.argmax()), 2)
        y[place] = square.max()
        dx[batch, channel, 2 * row + down, 2 * column + right] = dy[place]
    return y, dx


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pooling_and_its_gradient_match_numpy(shape: tuple) -> None:
    rng = np.random.default_rng(5)
    x0 = rng.standard_normal(shape).astype(np.float32)
    dy = rng.standard_normal((*shape[:2], shape[2] // 2, shape[3] // 2)).astype(np.float32)
    x = Tensor(x0)
    y = kernels.max_pool(x)
    (y * Tensor(dy)).sum().backward()
    expected, to_x = pool(x0, dy)
    assert np.array_equal(y.numpy(), expected)
    assert np.array_equal(x.grad.numpy(), to_x)


def test_of_equal_pixels_the_first_has_the_gradient() -> None:
    x = Tensor(np.zeros((1, 16, 2, 2), np.float32))
    kernels.max_pool(x).sum().backward()
    assert x.grad.numpy()[0, 3].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("channels", [(16, 16), (16, 32), (8, 24), (3, 16)], ids=str)
def test_joining_and_its_gradient_match_numpy(channels: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    sides = [rng.standard_normal((2, c, 5, 3)).astype(np.float32) for c in channels]
    dy = rng.standard_normal((2, sum(channels), 5, 3)).astype(np.float32)
    left, right = Tensor(sides[0]), Tensor(sides[1])
    joined = kernels.join(left, right)
    (joined * Tensor(dy)).sum().backward()
    assert np.array_equal(joined.numpy(), np.concatenate(sides, axis=1))
    assert np.array_equal(left.grad.numpy(), dy[:, : channels[0]])
    assert np.array_equal(right.grad.numpy(), dy[:, channels[0] :])


def test_images_of_different_size_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="cannot join"):
        kernels.join(Tensor.empty(1, 16, 4, 4), Tensor.empty(1, 16, 4, 5))
