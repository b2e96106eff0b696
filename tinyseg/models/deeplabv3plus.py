"""DeepLabV3+ (Chen, Zhu, Papandreou, Schroff & Adam 2018, https://arxiv.org/abs/1802.02611)."""

from collections.abc import Sequence

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.nn import BatchNorm, Conv2d, Dropout, Generator, normed, upsample

WIDTH = 256
LOW_LEVEL = 48
"""Channels that the features at a quarter of the resolution are reduced to."""
RATES = (12, 24, 36)


def separable(rng: Generator | None, inputs: int, outputs: int, rate: int = 1) -> list[Conv2d]:
    """Return a 3 x 3 convolution of each channel by itself and a 1 x 1 convolution of all."""
    depthwise = Conv2d(rng, inputs, inputs, bias=False, groups=inputs, dilation=rate)
    return [depthwise, Conv2d(rng, inputs, outputs, 1, bias=False)]


def separated(convs: list[Conv2d], norm: BatchNorm, x_bchw: Tensor, training: bool) -> Tensor:
    """Return a separable convolution's output, normalized and rectified."""
    depthwise, pointwise = convs
    return normed(pointwise, norm, depthwise(x_bchw), training)


class ASPP:
    """Atrous spatial pyramid pooling: the features seen at several rates, and their mean."""

    def __init__(self, rng: Generator | None, inputs: int, dropout: float):
        point = (Conv2d(rng, inputs, WIDTH, 1, bias=False), BatchNorm(WIDTH))
        a, b, c = ((separable(rng, inputs, WIDTH, rate), BatchNorm(WIDTH)) for rate in RATES)
        # the mean has no weights, but a number in SMP's list
        pooling = (None, Conv2d(rng, inputs, WIDTH, 1, bias=False), BatchNorm(WIDTH))
        self.convs = (point, a, b, c, pooling)
        self.project = (Conv2d(rng, 5 * WIDTH, WIDTH, 1, bias=False), BatchNorm(WIDTH))
        self.dropout = Dropout(rng, dropout)

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        point, a, b, c, (_, conv, norm) = self.convs
        found = [normed(*point, x_bchw, training)]
        found += [separated(*rate, x_bchw, training) for rate in (a, b, c)]
        mean = kernels.wide(x_bchw).mean(axis=(2, 3), keepdim=True).cast(x_bchw.dtype)
        mean = normed(conv, norm, mean, training)
        found.append(mean.expand(*mean.shape[:2], *x_bchw.shape[2:]))
        return self.dropout(normed(*self.project, Tensor.cat(*found, dim=1), training), training)


class DeepLabV3PlusDecoder:
    """SMP's DeepLabV3PlusDecoder, name by name; its dropout of 0.5 is `model.dropout` here.

    The paper's encoder is an Xception; `model.output_stride` is 16, or 8 for finer features.
    """

    out_channels, head_kernel, head_scale = WIDTH, 1, 4

    def __init__(
        self, rng: Generator | None, channels: Sequence[int], output_stride: int, dropout: float
    ):
        self.scale = output_stride // 4
        aspp = ASPP(rng, channels[-1], dropout)
        self.aspp = (aspp, separable(rng, WIDTH, WIDTH), BatchNorm(WIDTH))
        self.block1 = (Conv2d(rng, channels[1], LOW_LEVEL, 1, bias=False), BatchNorm(LOW_LEVEL))
        self.block2 = (separable(rng, LOW_LEVEL + WIDTH, WIDTH), BatchNorm(WIDTH))

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        """Return (B, 256, H / 4, W / 4)."""
        aspp, fuse, norm = self.aspp
        x = separated(fuse, norm, aspp(features[-1], training), training)
        low = normed(*self.block1, features[1], training)
        x = kernels.join(upsample(x, self.scale), low)
        return separated(*self.block2, x, training)
