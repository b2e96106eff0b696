"""Half types: what is rounded, how, and that sums and the gradients of weights are float32."""

from collections.abc import Callable
from functools import partial

import conv_oracle as oracle
import numpy as np
import pytest
from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType

from tinyseg import kernels
from tinyseg.device.tensors import copy_
from tinyseg.kernels.memory import HALF, rounded
from tinyseg.nn import AttentionGate, BatchNorm, Dropout, GroupNorm, Identity, resize

UNIT = {dtypes.bfloat16: 2.0**-8, dtypes.float16: 2.0**-11}
"""Half the distance from 1 to the next number: the largest relative error of rounding."""

half = pytest.mark.parametrize("dtype", HALF, ids=["float16", "bfloat16"])


def nearest(numbers: np.ndarray, dtype: DType) -> np.ndarray:
    """Float32 numbers rounded to a half type, ties to even: the definition, in integers."""
    if dtype == dtypes.float16:
        with np.errstate(over="ignore"):
            return numbers.astype(np.float16).astype(np.float32)
    bits = np.asarray(numbers).view(np.uint32).astype(np.uint64)
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16
    return np.where(np.isnan(numbers), numbers, kept.astype(np.uint32).view(np.float32))


@half
def test_this_device_rounds_to_nearest_even(dtype: DType) -> None:
    bits = np.arange(0, 1 << 32, 1 << 12, dtype=np.uint64).astype(np.uint32)
    numbers = bits.view(np.float32)
    normal = np.abs(numbers) >= 2.0**-126  # a device may take smaller ones for zero
    numbers = numbers[normal | np.isnan(numbers) | (numbers == 0)]
    stored = Tensor(numbers).cast(dtype).realize()
    np.testing.assert_array_equal(stored.float().numpy(), nearest(numbers, dtype))
    at_once = Tensor(numbers).cast(dtype).float().numpy()  # no half type in memory
    np.testing.assert_array_equal(at_once, nearest(numbers, dtype))


@half
def test_rounded_weights_are_exact_and_their_gradient_is_not_rounded(dtype: DType) -> None:
    rng = np.random.default_rng(0)
    numbers = (rng.standard_normal(4000) * np.exp(rng.uniform(-20, 8, 4000))).astype(np.float32)
    weights, slope = Tensor(numbers), rng.standard_normal(4000).astype(np.float32)
    made = rounded(weights, dtype)
    (found,) = (made * Tensor(slope)).sum().gradient(weights)
    np.testing.assert_array_equal(made.numpy(), nearest(numbers, dtype))
    np.testing.assert_array_equal(found.numpy(), slope)


def draw(rng: np.random.Generator, dtype: DType, *shape: int) -> np.ndarray:
    """Numbers that the half type has, so that only the convolution rounds."""
    return nearest(rng.standard_normal(shape).astype(np.float32), dtype)


# batch, rows, columns, in, out, kernel, stride, transposed
CONVOLUTIONS = [
    (2, 9, 7, 16, 16, 3, 1, False),  # with a kernel of its own
    (2, 8, 8, 8, 16, 3, 2, False),
    (2, 8, 8, 16, 1, 1, 1, False),
    (1, 6, 5, 7, 5, 3, 1, False),  # the plain path
    (2, 4, 5, 16, 8, 2, 2, True),
    (1, 4, 5, 6, 3, 2, 2, True),
]


@pytest.mark.slow
@half
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_a_convolution_rounds_once_and_sums_in_float32(shape: tuple, dtype: DType) -> None:
    batch, rows, columns, inputs, outputs, kernel, stride, transposed = shape
    rng = np.random.default_rng(1)
    sides = (inputs, outputs) if transposed else (outputs, inputs)
    x0 = draw(rng, dtype, batch, inputs, rows, columns)
    w0 = rng.standard_normal((*sides, kernel, kernel)).astype(np.float32)
    b0 = rng.standard_normal(outputs).astype(np.float32)
    x, w, b = Tensor(x0).cast(dtype).realize(), Tensor(w0), Tensor(b0)
    w64 = nearest(w0, dtype).astype(float)
    given = (stride, 0 if transposed else kernel // 2)
    run = kernels.conv_transpose2d if transposed else kernels.conv2d
    y = run(x, w, b, *given[: 1 if transposed else 2])

    def forward(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        if not transposed:
            return oracle.conv2d(x, w, *given)
        return oracle.input_gradient(x, w, y.shape, *given)

    def backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if transposed:
            return oracle.conv2d(dy, w, *given), oracle.weight_gradient(dy, x, kernel, *given)
        to_w = oracle.weight_gradient(x, dy, kernel, *given)
        return oracle.input_gradient(dy, w, x.shape, *given), to_w

    dy = draw(rng, dtype, *y.shape)
    to_x, to_w, to_b = (y.float() * Tensor(dy)).sum().gradient(x, w, b)
    assert (y.dtype, to_x.dtype, to_w.dtype, to_b.dtype) == (dtype, dtype, *2 * (dtypes.float32,))
    x64, b64 = x0.astype(float), b0.astype(float).reshape(1, -1, 1, 1)
    terms = kernel**2 * max(inputs, outputs) + 1
    sizes = forward(abs(x64), abs(w64)) + abs(b64)
    assert_rounded(y, forward(x64, w64) + b64, sizes, terms, UNIT[dtype])
    exact, sizes = backward(dy.astype(float), x64, w64), backward(abs(dy), abs(x64), abs(w64))
    assert_rounded(to_x, exact[0], sizes[0], terms, UNIT[dtype])
    pixels = batch * int(np.prod(y.shape[2:]))
    assert_rounded(to_w, exact[1], sizes[1], pixels, 0.0)  # the sum alone: not rounded to half
    assert_rounded(to_b, dy.sum((0, 2, 3), dtype=float), abs(dy).sum((0, 2, 3)), pixels, 0.0)


def assert_rounded(
    found: Tensor, exact: np.ndarray, sizes: np.ndarray, terms: int, unit: float
) -> None:
    """One rounding to half of a sum of `terms` products in float32 (Higham 2002, eq. 3.5).

    `sizes` are the sums of the products' absolute values.
    """
    in_float32 = terms * 2.0**-24 * sizes
    smallest = 2.0**-25 if unit else 0.0  # half a subnormal of float16
    allowed = in_float32 + unit * (abs(exact) + in_float32) + smallest
    assert (abs(found.float().numpy() - exact) <= allowed).all()


LAYERS = {
    "batch norm": BatchNorm(8),
    "group norm": GroupNorm(8, 2),
    "relu": Identity(),
    "dropout": Dropout(np.random.default_rng(0), 0.3),
}
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"{name}, training": partial(layer, training=True) for name, layer in LAYERS.items()},
    **{f"{name}, evaluation": partial(layer, training=False) for name, layer in LAYERS.items()},
    "nearest": partial(resize, mode="nearest"),
    "bilinear": partial(resize, mode="bilinear"),
    "max pool": kernels.max_pool,
    "join": lambda x: kernels.join(x[:, :3], x[:, 3:]),
}


@pytest.mark.slow
@half
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_no_convolution_computes_as_in_float32_and_rounds_once(
    name: str, dtype: DType
) -> None:
    rng = np.random.default_rng(2)
    numbers = draw(rng, dtype, 2, 8, 6, 4)
    numbers[0, 0], numbers[0, 1] = 0.0, nearest(np.float32(6e-8), dtype)  # a ReLU's threshold
    slope: Tensor | None = None
    results = []
    for x in (Tensor(numbers).cast(dtype).realize(), Tensor(numbers)):
        key = LAYERS["dropout"].key
        copy_(key, np.zeros(2, np.uint32))
        y = OPERATIONS[name](x)
        slope = Tensor(draw(rng, dtype, *y.shape)) if slope is None else slope
        (to_x,) = (y.float() * slope).sum().gradient(x)
        assert y.dtype == to_x.dtype == x.dtype
        results.append([tensor.cast(dtype).float().numpy() for tensor in (y, to_x)])
    for found, wanted in zip(*results, strict=True):
        np.testing.assert_array_equal(found, wanted)


@half
def test_a_gate_that_is_nearly_shut_lets_a_little_through(dtype: DType) -> None:
    """Its sigmoid(-12) is 6e-6, which float16 holds, but 1 / (1 + exp(12)) needs float32."""
    rng = np.random.default_rng(3)
    gate = AttentionGate(rng, 8)
    copy_(gate.weigh.weight, np.zeros(gate.weigh.weight.shape, np.float32))
    copy_(gate.weigh.bias, np.full(1, -12, np.float32))
    skip, x = draw(rng, dtype, 1, 8, 4, 4), draw(rng, dtype, 1, 8, 4, 4)
    found = gate(Tensor(skip).cast(dtype), Tensor(x).cast(dtype))
    wanted = skip * Tensor([-12.0]).sigmoid().numpy()
    np.testing.assert_array_equal(found.float().numpy(), nearest(wanted, dtype))


@half
def test_the_plan_tells_the_path_of_half_types(dtype: DType) -> None:
    x, w = Tensor.empty(1, 16, 8, 8), Tensor.empty(16, 16, 3, 3)
    if kernels.plans.device_reason(str(x.device)) == "":
        told = f"in float32, {kernels.plan(x, w, 1, 1)}"
        assert kernels.plan(x.cast(dtype), w, 1, 1) == told
