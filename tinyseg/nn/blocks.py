"""The U-Net's building blocks."""

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.kernels import relu, wide
from tinyseg.nn.layers import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Generator,
    GroupNorm,
    Identity,
    activate,
    resize,
)

Norm = BatchNorm | GroupNorm | Identity


def make_norm(name: str, channels: int) -> Norm:
    """Return a normalization with its ReLU: batch, group (at most 8 groups), instance or none."""
    if name == "batch":
        return BatchNorm(channels)
    if name == "group":
        return GroupNorm(channels, next(g for g in (8, 4, 2, 1) if channels % g == 0))
    if name == "instance":
        return GroupNorm(channels, channels)
    return Identity()


class DoubleConv:
    """Two times a 3 x 3 convolution, a normalization and a ReLU."""

    def __init__(self, rng: Generator | None, in_channels: int, out_channels: int, norm: str):
        bias = norm == "none"  # a normalization brings its own
        self.conv1 = Conv2d(rng, in_channels, out_channels, bias=bias)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = Conv2d(rng, out_channels, out_channels, bias=bias)
        self.norm2 = make_norm(norm, out_channels)

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        x_bchw = normed(self.conv1, self.norm1, x_bchw, training)
        return normed(self.conv2, self.norm2, x_bchw, training)


def normed(conv: Conv2d, norm: Norm, x_bchw: Tensor, training: bool) -> Tensor:
    """Return a convolution's output, normalized and activated; one kernel in evaluation."""
    if training or not isinstance(norm, BatchNorm):
        return norm(conv(x_bchw), training)
    scale, shift = norm.affine()  # folded into the weights, a layer is one kernel
    weight = conv.weight * scale.reshape(-1, 1, 1, 1)
    if norm.activation == "relu":
        return conv.convolve(x_bchw, weight, shift, relu=True)
    return activate(conv.convolve(x_bchw, weight, shift), norm.activation)


class AttentionGate:
    """Weighs the skip connection pixel by pixel (Oktay et al. 2018, Attention U-Net)."""

    def __init__(self, rng: Generator | None, channels: int):
        inner = max(channels // 2, 1)
        self.gate = Conv2d(rng, channels, inner, kernel=1)
        self.skip = Conv2d(rng, channels, inner, kernel=1, bias=False)
        self.weigh = Conv2d(rng, inner, 1, kernel=1)

    def __call__(self, skip_bchw: Tensor, gate_bchw: Tensor) -> Tensor:
        joint = relu(self.gate(gate_bchw) + self.skip(skip_bchw))
        weight = wide(self.weigh(joint)).sigmoid()  # exp(12) is more than float16 holds
        return (wide(skip_bchw) * weight).cast(skip_bchw.dtype)


class Up:
    """Doubles the resolution, appends the channels of the skip connection, convolves."""

    def __init__(
        self,
        rng: Generator | None,
        in_channels: int,
        out_channels: int,
        upsample: str,
        norm: str,
        attention: bool,
    ):
        self.upsample = upsample
        self.up = (
            ConvTranspose2d(rng, in_channels, out_channels)
            if upsample == "transpose"
            else Conv2d(rng, in_channels, out_channels, kernel=1)
        )
        self.attention = AttentionGate(rng, out_channels) if attention else None
        self.conv = DoubleConv(rng, 2 * out_channels, out_channels, norm)

    def __call__(self, x_bchw: Tensor, skip_bchw: Tensor, training: bool) -> Tensor:
        x_bchw = self.up(x_bchw)
        if self.upsample != "transpose":
            x_bchw = resize(x_bchw, self.upsample)
        if self.attention is not None:
            skip_bchw = self.attention(skip_bchw, x_bchw)
        return self.conv(kernels.join(skip_bchw, x_bchw), training)
