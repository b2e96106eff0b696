"""Layers on logical (B, C, H, W); weights have PyTorch's names, shapes and layouts.

Weights are float32. A layer returns the type of its images; it computes in float32.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg import kernels
from tinyseg.device import random as draws
from tinyseg.device.tensors import to_device
from tinyseg.kernels.memory import wide
from tinyseg.kernels.reference import relu
from tinyseg.nn.module import layers

Generator = np.random.Generator


def _he_normal(rng: Generator, shape: tuple[int, ...], fan_in: int) -> Tensor:
    """He et al. 2015, eq. 10: keeps the variance through ReLU layers. Drawn on the host."""
    # one tinygrad kernel per weight made building a U-Net take 4-8 s
    return to_device((rng.standard_normal(shape) * math.sqrt(2 / fan_in)).astype(np.float32))


class Conv2d:
    """Convolution with zero padding that keeps the size at stride 1 and odd kernels."""

    def __init__(
        self,
        rng: Generator,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        bias: bool = True,
    ):
        shape = (out_channels, in_channels, kernel, kernel)
        self.weight = _he_normal(rng, shape, in_channels * kernel**2)
        self.bias = to_device(np.zeros(out_channels, np.float32)) if bias else None
        self.stride, self.padding = stride, kernel // 2

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return kernels.conv2d(x_bchw, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose2d:
    """The 2 x 2 transposed convolution that doubles rows and columns."""

    def __init__(self, rng: Generator, in_channels: int, out_channels: int):
        self.weight = _he_normal(rng, (in_channels, out_channels, 2, 2), in_channels)
        self.bias = to_device(np.zeros(out_channels, np.float32))

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return kernels.conv_transpose2d(x_bchw, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """What a training batch has; with slots, so that it is not found as part of the state."""

    mean: Tensor
    variance: Tensor
    unbiased: float
    """The factor that makes the variance unbiased."""


class BatchNorm:
    """Ioffe & Szegedy 2015, then ReLU: each channel by the batch, or by running statistics.

    As in PyTorch, `momentum` is the weight of the new batch and the running variance is unbiased.
    A call changes nothing: `update_running_stats` moves the running statistics of a whole
    network at once.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5, momentum: float = 0.1):
        self.weight = to_device(np.ones(channels, np.float32))
        self.bias = to_device(np.zeros(channels, np.float32))
        self.running_mean = to_device(np.zeros(channels, np.float32)).is_param_(False)
        self.running_var = to_device(np.ones(channels, np.float32)).is_param_(False)
        self.epsilon, self.momentum = epsilon, momentum
        self.batch: BatchStatistics | None = None
        """Of the last training batch, until `update_running_stats` takes them up."""

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        if not training:
            scale, shift = (v.reshape(1, -1, 1, 1) for v in self.affine())
            return relu(wide(x_bchw) * scale + shift).cast(x_bchw.dtype)
        given = (x_bchw, self.weight, self.bias, self.epsilon)
        y_bchw, mean, variance = kernels.batch_norm(*given, relu=True)
        count = x_bchw.numel() // x_bchw.shape[1]
        self.batch = BatchStatistics(mean, variance, count / max(count - 1, 1))
        return y_bchw

    def affine(self) -> tuple[Tensor, Tensor]:
        """What it does in evaluation: scale and shift of each channel (C,)."""
        scale = self.weight * (self.running_var + self.epsilon).rsqrt()
        return scale, self.bias - self.running_mean * scale


def update_running_stats(module: Any) -> None:
    """Moves all running statistics below `module` towards the last batch's (unrealized).

    One kernel for all of them; values that are not finite would poison them and are left out.
    """
    norms = [layer for _, layer in layers(module) if isinstance(layer, BatchNorm) and layer.batch]
    running = [old for norm in norms for old in (norm.running_mean, norm.running_var)]
    batches = [norm.batch for norm in norms if norm.batch]
    news = [new for batch in batches for new in (batch.mean, batch.variance)]
    factors = [factor for batch in batches for factor in (1.0, batch.unbiased)]
    if norms:
        momenta = [norm.momentum for norm in norms for _ in range(2)]
        kernels.moving_averages(running, news, momenta, factors)
    for norm in norms:
        norm.batch = None


class GroupNorm:
    """Wu & He 2018, then ReLU: groups of channels of each image; one channel each: instance."""

    def __init__(self, channels: int, groups: int, epsilon: float = 1e-5):
        self.weight = to_device(np.ones(channels, np.float32))
        self.bias = to_device(np.zeros(channels, np.float32))
        self.groups, self.epsilon = groups, epsilon

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        x = wide(x_bchw).reshape(x_bchw.shape[0], self.groups, -1)
        centered = x - x.mean(axis=2, keepdim=True)
        variance = centered.square().mean(axis=2, keepdim=True)
        y_bchw = (centered * (variance + self.epsilon).rsqrt()).reshape(x_bchw.shape)
        weight, bias = self.weight.reshape(1, -1, 1, 1), self.bias.reshape(1, -1, 1, 1)
        return relu(y_bchw * weight + bias).cast(x_bchw.dtype)


class Identity:
    """No normalization, only ReLU."""

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        return relu(x_bchw)


class Dropout:
    """Drops whole channels of an image in training (Tompson et al. 2015).

    The draws come from a key and a counter that are state like any other: a resumed run draws on.
    """

    def __init__(self, rng: Generator, probability: float):
        self.probability = probability
        self.key = draws.make_key(int(rng.integers(2**32))) if probability else None

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        if self.key is None or not training:
            return x_bchw
        batch, channels = x_bchw.shape[:2]
        draws.advance(self.key)
        kept = draws.uniform(self.key, batch * channels) >= self.probability
        scale = kept.cast(dtypes.float32) / (1 - self.probability)
        return (wide(x_bchw) * scale.reshape(batch, channels, 1, 1)).cast(x_bchw.dtype)


def resize(x_bchw: Tensor, mode: str) -> Tensor:
    """Doubles rows and columns; mode: nearest, or bilinear (half-pixel centres)."""
    dtype, x = x_bchw.dtype, wide(x_bchw)
    if mode == "nearest":
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).cast(dtype)
    return _double_bilinear(_double_bilinear(x, 2), 3).cast(dtype)


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
