"""Healthy networks of unusual kind, of tinygrad's own layers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tinygrad import Tensor, nn


def zeros(*shape: int) -> Tensor:
    return Tensor(np.zeros(shape, np.float32)).is_param_(True)


def ones(*shape: int) -> Tensor:
    return Tensor(np.ones(shape, np.float32)).is_param_(True)


class Conv:
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1, dilation: int = 1):
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, dilation, dilation, bias=False)
        self.norm = nn.BatchNorm(channels)

    def __call__(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()


class Base:
    """Two blocks, something between them, a head."""

    out_channels = 1

    def __init__(self) -> None:
        self.first, self.second, self.head = Conv(3, 8), Conv(8, 8), nn.Conv2d(8, 1, 1)

    def between(self, x: Tensor) -> Tensor:
        return x

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        with Tensor.train(training):
            return self.head(self.second(self.between(self.first(x))))


class Gain(Base):
    """A gain per channel that starts at 1."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.shift = ones(1, 8, 1, 1), zeros(1, 8, 1, 1)

    def between(self, x: Tensor) -> Tensor:
        return x * self.gain + self.shift


class LayerScale(Base):
    """A residual branch with a gain of 1e-4 (Touvron et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = Conv(8, 8)
        self.gain = Tensor(np.full((8, 1, 1), 1e-4, np.float32)).is_param_(True)

    def between(self, x: Tensor) -> Tensor:
        return x + self.gain * self.branch(x)


class ZeroBranch(Base):
    """A residual branch that ends with a convolution of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.last = Conv(8, 8), nn.Conv2d(8, 8, 1)
        self.last.weight, self.last.bias = zeros(8, 8, 1, 1), zeros(8)

    def between(self, x: Tensor) -> Tensor:
        return x + self.last(self.branch(x))


class ZeroHead(Base):
    """A head of zeros, with the log odds of the foreground as its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.head.weight = zeros(1, 8, 1, 1)
        self.head.bias = Tensor(np.array([-1.5], np.float32)).is_param_(True)


class SqueezeExcite(Base):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Gated(Base):
    """A gate for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(8, 1, 1)

    def between(self, x: Tensor) -> Tensor:
        return x * self.gate(x).sigmoid()


class GatedLinear(Base):
    def __init__(self) -> None:
        super().__init__()
        self.double = nn.Conv2d(8, 16, 1)

    def between(self, x: Tensor) -> Tensor:
        value, gate = self.double(x).chunk(2, dim=1)
        return value * gate.sigmoid()


class SelfAttention(Base):
    """Attention between all pixels, at a quarter of the resolution."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(8, 8, 1) for _ in range(3))

    def between(self, x: Tensor) -> Tensor:
        small = x.avg_pool2d(4)
        q, k, v = (
            layer(small).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        out = q.scaled_dot_product_attention(k, v).transpose(1, 2).reshape(small.shape)
        return x + out.interpolate(x.shape[2:], mode="nearest")


class Positions(Base):
    """Learned positions that start at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = zeros(1, 8, 32, 32)

    def between(self, x: Tensor) -> Tensor:
        return x + self.positions


class Depthwise(Base):
    """Depthwise and pointwise convolutions without an activation in between."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)

    def between(self, x: Tensor) -> Tensor:
        return self.point(self.depth(x)).relu()


class Dilated(Base):
    def __init__(self) -> None:
        super().__init__()
        self.second = Conv(8, 8, dilation=3)


class Strided(Base):
    """Logits at stride 8, enlarged bilinearly."""

    def __init__(self) -> None:
        super().__init__()
        self.downs = [Conv(8, 16, 2), Conv(16, 16, 2), Conv(16, 8, 2)]

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        with Tensor.train(training):
            y = self.first(x)
            for down in self.downs:
                y = down(y)
            return self.head(self.second(y)).interpolate(x.shape[2:], mode="linear")


class Transposed(Base):
    """Halved and doubled by strided and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = Conv(8, 16, 2), nn.ConvTranspose2d(16, 8, 2, 2)

    def between(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x)).relu()


class Shuffled(Base):
    """Enlarged by moving channels to pixels (Shi et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = Conv(8, 16, 2), nn.Conv2d(16, 32, 1)

    def between(self, x: Tensor) -> Tensor:
        y = self.up(self.down(x))
        b, _, h, w = y.shape
        return x + y.reshape(b, 8, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, 8, 2 * h, 2 * w)


class Residual(Base):
    """Three residual blocks before the activation, without any norm but small branches."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)]

    def between(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + 0.3 * branch(x.relu())
        return x


class NormalizesInput(Base):
    """Each image is brought to mean 0 and std 1 within the network."""

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return super().__call__((x - mean) / (std + 1e-5), training)


class SharedBias(Base):
    """The output is clamped far out, as against overflow."""

    def __call__(self, x: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x, training).clip(-30, 30)


class StochasticDepth(Base):
    def __init__(self) -> None:
        super().__init__()
        self.branch = Conv(8, 8)

    def between(self, x: Tensor) -> Tensor:
        return x + self.branch(x).dropout(0.2)


class LayerNorms(Base):
    """ConvNeXt's normalization over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = (
            nn.LayerNorm2d(8),
            nn.Conv2d(8, 16, 1),
            nn.Conv2d(16, 8, 1),
        )

    def between(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.wide(self.norm(x)).gelu())


class ReadsMode(Base):
    """Noise in training only, by Tensor.training."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        y = self.first(x)
        if Tensor.training:
            y = y + 0.1 * Tensor.randn(*y.shape)
        return self.head(self.second(y))


NETWORKS: dict[str, Callable[[], Any]] = {
    one.__name__: one
    for one in (
        Gain,
        LayerScale,
        ZeroBranch,
        ZeroHead,
        SqueezeExcite,
        Gated,
        GatedLinear,
        SelfAttention,
        Positions,
        Depthwise,
        Dilated,
        Strided,
        Transposed,
        Shuffled,
        Residual,
        NormalizesInput,
        SharedBias,
        StochasticDepth,
        LayerNorms,
        ReadsMode,
    )
}
