"""Convolutions in float64 NumPy, written as their definition, and the tolerance of float32."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def tolerance(terms: int) -> float:
    """Return the allowed error relative to the largest value, for sums of `terms` products.

    Rounding errors of a sum walk like a random path: sqrt(terms) half units in the last place;
    8 is headroom for the largest of many thousand outputs.
    """
    return 8 * 6e-8 * max(4.0, terms**0.5)


def difference(found: npt.NDArray[np.float32], expected: Array) -> float:
    """Return the largest error relative to the largest expected value."""
    assert found.shape == expected.shape, f"{found.shape} is not {expected.shape}"
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def _patches(x: Array, kernel: int, stride: int, padding: int) -> Array:
    """Return (batch, channels, out rows, out columns, kernel, kernel)."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))
    return windows[:, :, ::stride, ::stride]


def conv2d(x: Array, w: Array, stride: int, padding: int) -> Array:
    """Return the cross-correlation, NCHW and OIHW."""
    patches = _patches(x, w.shape[2], stride, padding)
    return np.einsum("bcrskl,ockl->bors", patches, w, optimize=True)


def weight_gradient(x: Array, dy: Array, kernel: int, stride: int, padding: int) -> Array:
    """Return dW (out, in, kernel, kernel)."""
    return np.einsum("bcrskl,bors->ockl", _patches(x, kernel, stride, padding), dy, optimize=True)


def input_gradient(dy: Array, w: Array, shape: tuple[int, ...], stride: int, pad: int) -> Array:
    """Return dx by spreading every output gradient over the pixels it came from."""
    kernel, (rows, columns) = w.shape[2], dy.shape[2:]
    dx = np.zeros((shape[0], shape[1], shape[2] + 2 * pad, shape[3] + 2 * pad))
    for down in range(kernel):
        for right in range(kernel):
            there = np.einsum("bors,oc->bcrs", dy, w[:, :, down, right], optimize=True)
            rows_hit = slice(down, down + rows * stride, stride)
            columns_hit = slice(right, right + columns * stride, stride)
            dx[:, :, rows_hit, columns_hit] += there
    return dx[:, :, pad : pad + shape[2], pad : pad + shape[3]]
