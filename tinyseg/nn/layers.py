"""Layers on logical (B, C, H, W); weights have PyTorch's names, shapes and layouts.

Weights are float32. A layer returns the type of its images; it computes in float32.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg import kernels
from tinyseg.device import random
from tinyseg.device.tensors import to_device
from tinyseg.kernels import relu, wide
from tinyseg.nn.module import layers

Generator = np.random.Generator


def _he_normal(rng: Generator | None, shape: tuple[int, ...], fan_in: int) -> Tensor:
    """Draw weights that keep the variance through ReLU layers (He et al. 2015, eq. 10)."""
    return normal(rng, shape, math.sqrt(2 / fan_in))


def normal(rng: Generator | None, shape: tuple[int, ...], std: float) -> Tensor:
    """Draw normal weights.

    Without a generator they hold nothing yet: for a network whose weights are loaded or counted.
    """
    if rng is None:
        return Tensor.empty(*shape)
    # on the host: one tinygrad kernel per weight made building a U-Net take 4-8 s
    return to_device((rng.standard_normal(shape) * std).astype(np.float32))


class Conv2d:
    """Convolution with zero padding that keeps the size at stride 1 and odd kernels.

    `groups` = in_channels is a depthwise convolution. `padding` None: as much on each side as
    keeps the size; (before, after): other numbers of rows and columns at top and left than at
    bottom and right; "same": as TensorFlow pads, by the size of the image.
    """

    def __init__(
        self,
        rng: Generator | None,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        bias: bool = True,
        *,
        groups: int = 1,
        dilation: int = 1,
        padding: tuple[int, int] | Literal["same"] | None = None,
    ):
        shape = (out_channels, in_channels // groups, kernel, kernel)
        self.weight = _he_normal(rng, shape, in_channels // groups * kernel**2)
        self.bias = to_device(np.zeros(out_channels, np.float32)) if bias else None
        self.stride, self.groups, self.dilation = stride, groups, dilation
        self.padding = padding or kernel // 2 * dilation

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return self.convolve(x_bchw, self.weight, self.bias)

    def convolve(
        self, x_bchw: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False
    ) -> Tensor:
        """Return the convolution with this layer's geometry and other weights."""
        x_bchw, padding = self._padded(x_bchw)
        geometry = (self.stride, padding, relu, self.groups, self.dilation)
        return kernels.conv2d(x_bchw, weight, bias, *geometry)

    def _padded(self, x_bchw: Tensor) -> tuple[Tensor, int]:
        """Return images and how much the convolution itself pads."""
        if isinstance(self.padding, int):
            return x_bchw, self.padding
        reach = (int(self.weight.shape[2]) - 1) * self.dilation + 1
        sides = [
            same_padding(int(size), reach, self.stride) if self.padding == "same" else self.padding
            for size in x_bchw.shape[2:]
        ]
        (top, bottom), (left, right) = sides
        if top == bottom == left == right:
            return x_bchw, top
        return x_bchw.pad((left, right, top, bottom)), 0


def same_padding(size: int, reach: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding before and after an axis: ceil(size / stride) outputs."""
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


class ConvTranspose2d:
    """The 2 x 2 transposed convolution that doubles rows and columns."""

    def __init__(self, rng: Generator | None, in_channels: int, out_channels: int):
        self.weight = _he_normal(rng, (in_channels, out_channels, 2, 2), in_channels)
        self.bias = to_device(np.zeros(out_channels, np.float32))

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return kernels.conv_transpose2d(x_bchw, self.weight, self.bias)


def activate(x: Tensor, activation: str) -> Tensor:
    """Return the activation of x in its type: none, relu, relu6, silu or leaky (slope 0.01)."""
    if activation == "none":
        return x
    return ACTIVATIONS[activation](wide(x)).cast(x.dtype)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "relu6": lambda x: relu(x).minimum(6),
    "silu": lambda x: x * x.sigmoid(),
    "leaky": lambda x: (x < 0).where(x * 0.01, x),
}


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Statistics of a training batch; with slots, so that they are not part of the state."""

    mean: Tensor
    variance: Tensor
    unbiased: float
    """The factor that makes the variance unbiased."""


class BatchNorm:
    """Normalization of each channel by the batch or by running statistics, then an activation.

    Ioffe & Szegedy 2015. As in PyTorch, `momentum` is the weight of the new batch and the running
    variance is unbiased. A call changes nothing: `update_running_stats` updates the running
    statistics of a whole network at once.
    """

    def __init__(
        self, channels: int, activation: str = "relu", eps: float = 1e-5, momentum: float = 0.1
    ):
        self.weight = to_device(np.ones(channels, np.float32))
        self.bias = to_device(np.zeros(channels, np.float32))
        self.running_mean = to_device(np.zeros(channels, np.float32)).is_param_(False)
        self.running_var = to_device(np.ones(channels, np.float32)).is_param_(False)
        self.activation, self.eps, self.momentum = activation, eps, momentum
        self.batch: BatchStatistics | None = None
        """Of the last training batch, until `update_running_stats` uses them."""

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        if not training:
            scale, shift = (v.reshape(1, -1, 1, 1) for v in self.affine())
            return activate(wide(x_bchw) * scale + shift, self.activation).cast(x_bchw.dtype)
        is_relu = self.activation == "relu"
        y_bchw, mean, variance = kernels.batch_norm(
            x_bchw, self.weight, self.bias, self.eps, is_relu
        )
        count = x_bchw.numel() // x_bchw.shape[1]
        self.batch = BatchStatistics(mean, variance, count / max(count - 1, 1))
        return y_bchw if is_relu else activate(y_bchw, self.activation)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return what evaluation multiplies each channel by and adds to it, (C,) each."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


def update_running_stats(module: Any) -> None:
    """Update all running statistics below `module` from the last batch (unrealized).

    One kernel for all of them; values that are not finite would stay there and are left out.
    """
    running: list[Tensor] = []
    news: list[Tensor] = []
    momenta: list[float] = []
    factors: list[float] = []
    for _, norm in layers(module):
        if isinstance(norm, BatchNorm) and norm.batch:
            running += [norm.running_mean, norm.running_var]
            news += [norm.batch.mean, norm.batch.variance]
            momenta += [norm.momentum] * 2
            factors += [1.0, norm.batch.unbiased]
            norm.batch = None
    if running:
        kernels.moving_averages(running, news, momenta, factors)


class GroupNorm:
    """Normalization of groups of channels of each image (Wu & He 2018), then an activation.

    With a group for each channel it is instance normalization.
    """

    def __init__(self, channels: int, groups: int, activation: str = "relu", eps: float = 1e-5):
        self.weight = to_device(np.ones(channels, np.float32))
        self.bias = to_device(np.zeros(channels, np.float32))
        self.groups, self.activation, self.eps = groups, activation, eps

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        x = wide(x_bchw).reshape(x_bchw.shape[0], self.groups, -1)
        centered = x - x.mean(axis=2, keepdim=True)
        variance = centered.square().mean(axis=2, keepdim=True)
        y_bchw = (centered * (variance + self.eps).rsqrt()).reshape(x_bchw.shape)
        weight, bias = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        return activate(y_bchw * weight + bias, self.activation).cast(x_bchw.dtype)


class Identity:
    """No normalization, only ReLU."""

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        return relu(x_bchw)


class Dropout:
    """Drops whole channels of an image in training (Tompson et al. 2015).

    `of` "images": all channels of an image at once, which in a residual block is stochastic depth
    (Huang et al. 2016).

    Its random numbers come from a key and a counter that are saved as weights are: a resumed run
    continues with the next ones.
    """

    def __init__(self, rng: Generator | None, probability: float, of: str = "channels"):
        self.probability, self.of = probability, of
        seed = int(rng.integers(2**32)) if rng and probability else 0
        self.key = random.make_key(seed) if probability else None

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        if self.key is None or not training:
            return x_bchw
        batch, channels = x_bchw.shape[0], 1 if self.of == "images" else x_bchw.shape[1]
        random.advance(self.key)
        kept = random.uniform(self.key, batch * channels) >= self.probability
        scale = kept.cast(dtypes.float32) / (1 - self.probability)
        return (wide(x_bchw) * scale.reshape(batch, channels, 1, 1)).cast(x_bchw.dtype)


def resize(x_bchw: Tensor, mode: str) -> Tensor:
    """Return images of twice the size; mode: nearest, or bilinear (half-pixel centers)."""
    dtype, x = x_bchw.dtype, wide(x_bchw)
    if mode == "nearest":
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).cast(dtype)
    return _double_bilinear(_double_bilinear(x, 2), 3).cast(dtype)


def upsample(x_bchw: Tensor, scale: int) -> Tensor:
    """Return images `scale` times as large, bilinear with the corners aligned (as SMP's models)."""
    rows, columns = (int(size) * scale for size in x_bchw.shape[2:])
    return stretch(x_bchw, rows, columns)


def stretch(x_bchw: Tensor, rows: int, columns: int) -> Tensor:
    """Return images of another size, bilinear with the corners aligned."""
    if (rows, columns) == x_bchw.shape[2:]:
        return x_bchw
    height, width = (int(size) for size in x_bchw.shape[2:])
    x = wide(x_bchw) @ _spread(width, columns).transpose()
    return (_spread(height, rows) @ x).cast(x_bchw.dtype)


def _spread(size: int, outputs: int) -> Tensor:
    """Return the weights (outputs, size) of linear interpolation between aligned ends."""
    places = Tensor.arange(outputs).reshape(-1, 1) * ((size - 1) / max(outputs - 1, 1))
    return (1 - (places - Tensor.arange(size)).abs()).maximum(0).contiguous()


def _double_bilinear(x: Tensor, axis: int) -> Tensor:
    # at factor 2 every output is 3/4 of its own sample and 1/4 of the neighbor on its side
    size = x.shape[axis]
    first, last = x.shrink(_along(axis, 0, 1)), x.shrink(_along(axis, size - 1, size))
    before = first.cat(x.shrink(_along(axis, 0, size - 1)), dim=axis) if size > 1 else first
    after = x.shrink(_along(axis, 1, size)).cat(last, dim=axis) if size > 1 else last
    pairs = Tensor.stack(x * 0.75 + before * 0.25, x * 0.75 + after * 0.25, dim=axis + 1)
    return pairs.flatten(axis, axis + 1)


def _along(axis: int, start: int, stop: int) -> tuple[Any, ...]:
    return tuple((start, stop) if a == axis else None for a in range(4))
