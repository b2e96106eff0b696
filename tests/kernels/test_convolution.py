"""Convolutions against float64 NumPy: values and all gradients over a table of shapes."""

import conv_oracle as oracle
import numpy as np
import pytest
from tinygrad import Tensor, TinyJit

from tinyseg import kernels
from tinyseg.device.choose import backend
from tinyseg.kernels import plans

backend()

# batch, rows, columns, in, out, kernel, stride, padding, bias
SHAPES = [
    (2, 9, 7, 16, 16, 3, 1, 1, True),  # odd sizes, one tile a row, edges on both sides
    (1, 5, 40, 16, 32, 3, 1, 1, False),  # inner tiles in a loop
    (1, 8, 8, 3, 16, 3, 1, 1, False),  # a color image
    (3, 7, 11, 1, 32, 3, 1, 1, True),  # a grey image, odd batch
    (1, 1, 1, 16, 16, 3, 1, 1, False),  # nothing but padding around one pixel
    (1, 2, 1, 24, 8, 3, 1, 1, False),  # eight lanes
    (2, 4, 4, 512, 64, 3, 1, 1, True),  # several blocks of input channels
    (1, 4, 4, 64, 512, 3, 1, 1, False),  # threads share output channels
    (1, 6, 6, 257, 20, 3, 1, 1, False),  # a prime number of channels, four lanes
    (2, 9, 8, 16, 32, 3, 2, 1, True),  # stride 2, odd and even
    (1, 8, 9, 16, 16, 3, 2, 1, False),
    (2, 6, 5, 32, 16, 1, 1, 0, True),
    (1, 7, 8, 32, 24, 1, 2, 0, True),
    (2, 8, 8, 16, 1, 1, 1, 0, True),  # the head of a binary U-Net
    (1, 6, 6, 16, 3, 1, 1, 0, True),
    (1, 5, 5, 7, 5, 3, 1, 1, True),  # no vector fits: the plain path
    (1, 7, 7, 16, 16, 3, 1, 0, False),  # no padding
]


def draw(*shape: int) -> np.ndarray:
    """Return reproducible normal numbers of a shape."""
    rng = np.random.default_rng(sum(size * 31**place for place, size in enumerate(shape)))
    return rng.standard_normal(shape).astype(np.float32)


RARER = [pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES[4:]]


@pytest.mark.parametrize("shape", [*SHAPES[:4], *RARER], ids=str)
def test_convolution_and_its_gradients_match_numpy(shape: tuple) -> None:
    batch, rows, columns, inputs, outputs, kernel, stride, padding, has_bias = shape
    x0, w0 = draw(batch, inputs, rows, columns), draw(outputs, inputs, kernel, kernel)
    x, w = Tensor(x0), Tensor(w0)
    bias = Tensor(draw(outputs)) if has_bias else None
    y = kernels.conv2d(x, w, bias, stride, padding)
    expected = oracle.conv2d(x0.astype(float), w0.astype(float), stride, padding)
    if bias is not None:
        expected += draw(outputs).reshape(1, -1, 1, 1)
    dy = draw(*expected.shape)
    (y * Tensor(dy)).sum().backward()  # before y.numpy(): a realized tensor has no history
    assert oracle.difference(y.numpy(), expected) < oracle.tolerance(inputs * kernel**2)
    to_x = oracle.input_gradient(dy.astype(float), w0.astype(float), x0.shape, stride, padding)
    to_w = oracle.weight_gradient(x0.astype(float), dy.astype(float), kernel, stride, padding)
    pixels = dy[:, 0].size
    assert oracle.difference(x.grad.numpy(), to_x) < oracle.tolerance(outputs * kernel**2)
    assert oracle.difference(w.grad.numpy(), to_w) < oracle.tolerance(pixels)
    if bias is not None:
        to_bias = dy.astype(float).sum((0, 2, 3))
        assert oracle.difference(bias.grad.numpy(), to_bias) < oracle.tolerance(pixels)


PLAIN = pytest.param((1, 4, 5, 5, 5), marks=pytest.mark.slow)
RECTIFIED = [(1, 16, 6, 5, 32), (1, 512, 4, 4, 16), PLAIN]


@pytest.mark.parametrize("shape", RECTIFIED, ids=str)
def test_a_rectified_convolution_and_its_gradients_match_numpy(shape: tuple) -> None:
    batch, inputs, rows, columns, outputs = shape
    x0, w0, b0 = draw(batch, inputs, rows, columns), draw(outputs, inputs, 3, 3), draw(outputs)
    x, w = Tensor(x0), Tensor(w0)
    y = kernels.conv2d(x, w, Tensor(b0), 1, 1, relu=True)
    expected = oracle.conv2d(x0.astype(float), w0.astype(float), 1, 1) + b0.reshape(1, -1, 1, 1)
    dy = draw(*expected.shape)
    (y * Tensor(dy)).sum().backward()
    assert oracle.difference(y.numpy(), np.maximum(expected, 0)) < oracle.tolerance(9 * inputs)
    dz = np.where(expected > 0, dy.astype(float), 0)
    to_x = oracle.input_gradient(dz, w0.astype(float), x0.shape, 1, 1)
    to_w = oracle.weight_gradient(x0.astype(float), dz, 3, 1, 1)
    assert oracle.difference(x.grad.numpy(), to_x) < oracle.tolerance(9 * outputs)
    assert oracle.difference(w.grad.numpy(), to_w) < oracle.tolerance(rows * columns)


TRANSPOSED = [(2, 4, 5, 32, 16, True), (1, 8, 8, 16, 8, False), (1, 3, 1, 5, 16, True)]
UNEVEN = pytest.param((1, 3, 3, 5, 3, True), marks=pytest.mark.slow)


@pytest.mark.parametrize("shape", [*TRANSPOSED, UNEVEN], ids=str)
def test_transposed_convolution_and_its_gradients_match_numpy(shape: tuple) -> None:
    batch, rows, columns, inputs, outputs, has_bias = shape
    x0, w0 = draw(batch, inputs, rows, columns), draw(inputs, outputs, 2, 2)
    x, w = Tensor(x0), Tensor(w0)
    bias = Tensor(draw(outputs)) if has_bias else None
    y = kernels.conv_transpose2d(x, w, bias)
    # a transposed convolution is the input gradient of the strided one, and the other way round
    size = (batch, outputs, 2 * rows, 2 * columns)
    expected = oracle.input_gradient(x0.astype(float), w0.astype(float), size, 2, 0)
    if bias is not None:
        expected += draw(outputs).reshape(1, -1, 1, 1)
    dy = draw(*size)
    (y * Tensor(dy)).sum().backward()
    assert oracle.difference(y.numpy(), expected) < oracle.tolerance(inputs)
    to_x = oracle.conv2d(dy.astype(float), w0.astype(float), 2, 0)
    to_w = oracle.weight_gradient(dy.astype(float), x0.astype(float), 2, 2, 0)
    assert oracle.difference(x.grad.numpy(), to_x) < oracle.tolerance(4 * outputs)
    assert oracle.difference(w.grad.numpy(), to_w) < oracle.tolerance(batch * rows * columns)
    if bias is not None:
        to_bias = dy.astype(float).sum((0, 2, 3))
        assert oracle.difference(bias.grad.numpy(), to_bias) < oracle.tolerance(dy[:, 0].size)


@pytest.mark.parametrize("host", [(8, 16, 3), (4, 32, 1)], ids=["AVX2", "NEON"])
def test_other_processors_compute_the_same(
    host: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Narrower vectors, fewer registers and an odd number of threads: all by plan, none by luck."""
    monkeypatch.setattr(plans, "machine", lambda: plans.Machine(*host))
    x0, w0, dy = draw(2, 24, 9, 50), draw(48, 24, 3, 3), draw(2, 48, 9, 50)
    x, w = Tensor(x0), Tensor(w0)
    y = kernels.conv2d(x, w, None, 1, 1)
    (y * Tensor(dy)).sum().backward()
    arrays = [array.astype(np.float64) for array in (x0, w0, dy)]
    to_x = oracle.input_gradient(arrays[2], arrays[1], x0.shape, 1, 1)
    to_w = oracle.weight_gradient(arrays[0], arrays[2], 3, 1, 1)
    assert f"x{host[0]} block" in kernels.plan(x, w, 1, 1)
    assert oracle.difference(y.numpy(), oracle.conv2d(*arrays[:2], 1, 1)) < oracle.tolerance(216)
    assert oracle.difference(x.grad.numpy(), to_x) < oracle.tolerance(432)
    assert oracle.difference(w.grad.numpy(), to_w) < oracle.tolerance(900)


def two_convolutions(x: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return output and weight gradients of a chain, as one step would."""
    y = kernels.conv2d(kernels.conv2d(x, v, None, 1, 1).relu(), w, None, 2, 1)
    to_v, to_w = y.square().mean().gradient(v, w)
    return y.realize(to_v, to_w), to_v, to_w


def test_the_jit_gives_the_same_bits() -> None:
    weights = [Tensor(draw(16, 3, 3, 3)).realize(), Tensor(draw(32, 16, 3, 3)).realize()]
    jitted = TinyJit(two_convolutions)
    for number in range(4):
        image = draw(2, 3, 12 + 0 * number, 10) + np.float32(number)
        plain = [tensor.numpy() for tensor in two_convolutions(Tensor(image), *weights)]
        replayed = [t.numpy() for t in jitted(Tensor(image).realize(), *weights)]
        for first, second in zip(plain, replayed, strict=True):
            assert np.array_equal(first, second)


def test_a_slice_that_starts_anywhere_is_read_right() -> None:
    """A vector load from an address that is no multiple of 64 bytes must not crash."""
    batch = Tensor(draw(3, 16, 3, 3)).realize()
    w = Tensor(draw(16, 16, 3, 3))
    for number in range(3):
        found = kernels.conv2d(batch[number : number + 1].contiguous(), w, None, 1, 1).numpy()
        expected = oracle.conv2d(draw(3, 16, 3, 3)[number : number + 1], w.numpy(), 1, 1)
        assert oracle.difference(found, expected) < oracle.tolerance(144)


def test_the_plan_says_what_it_does_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = Tensor.empty(1, 16, 8, 8), Tensor.empty(16, 16, 3, 3)
    assert kernels.plan(x, w, 1, 1).startswith("tile 8x1x")
    assert kernels.plan(x, Tensor.empty(5, 16, 3, 3), 1, 1).startswith("plain: 5 output channels")
    assert kernels.plan(x.half(), w.half(), 1, 1).startswith("in float32, tile 8x1x")
    monkeypatch.setattr(plans, "overridden", "plain")
    assert kernels.plan(x, w, 1, 1) == "plain: switched off"


@pytest.mark.parametrize(
    ("x", "w", "bias", "words"),
    [
        ((1, 3, 8, 8), (4, 2, 3, 3), None, "3 channels"),
        ((1, 3, 8), (4, 3, 3, 3), None, "NCHW"),
        ((1, 3, 8, 8), (4, 3, 3, 3), (3,), "bias has shape"),
    ],
)
def test_wrong_shapes_are_named(x: tuple, w: tuple, bias: tuple | None, words: str) -> None:
    given = None if bias is None else Tensor.empty(*bias)
    with pytest.raises(ValueError, match=words):
        kernels.conv2d(Tensor.empty(*x), Tensor.empty(*w), given, 1, 1)
