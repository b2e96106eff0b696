"""EfficientNet B0 to B3 (Tan & Le 2019, https://arxiv.org/abs/1905.11946) and EfficientNet-Lite.

Lite (2020) is for devices without fast sigmoids: ReLU6 instead of SiLU, no squeeze-and-excitation.
"""

import math
from dataclasses import dataclass
from typing import Literal

from tinygrad import Tensor

from tinyseg.kernels import wide
from tinyseg.nn import BatchNorm, Conv2d, Dropout, Generator, activate, normed, same_padding

STAGES = (
    # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""B0, the paper's table 1."""
FEATURES = (1, 2, 4, 6)
"""Stages that end a resolution."""
EPS = 1e-3
"""Of all normalizations, as in TensorFlow."""


Padding = tuple[int, int] | Literal["same"] | None


@dataclass(frozen=True)
class Scaling:
    """How a network is made larger than B0 (compound scaling, section 3.3 of the paper)."""

    width: float
    depth: float
    image_size: int
    """Side of the images that it was trained with: it decides where odd paddings go."""
    lite: bool = False
    early: bool = False
    """Whether the fourth features are those of the fifth stage's first block."""

    def channels(self, base: int) -> int:
        """Return the scaled number of channels, a multiple of 8."""
        scaled = base * self.width
        rounded: int = max(8, int(scaled + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * scaled else rounded

    def blocks(self, stage: int) -> int:
        """Return the scaled number of blocks; Lite leaves the first and last stage as they are."""
        base = STAGES[stage][0]
        fixed = self.lite and stage in (0, len(STAGES) - 1)
        return base if fixed else math.ceil(base * self.depth)

    def ends(self) -> tuple[int, ...]:
        """Return after how many blocks the second to fifth features are taken."""
        second, third, fourth, fifth = (sum(map(self.blocks, range(k + 1))) for k in FEATURES)
        # SMP takes B0's within the fifth stage, and its trained decoders expect it
        return second, third, fourth - 2 if self.early else fourth, fifth


@dataclass(frozen=True)
class Geometry:
    """Where the depthwise convolution of a block looks."""

    kernel: int
    stride: int
    dilation: int
    padding: Padding


class MBConv:
    """The inverted residual block with squeeze-and-excitation.

    The MBConvBlock of SMP's `efficientnet-b` encoders and of lukemelas' EfficientNet-PyTorch, whose
    names begin with an underscore.
    """

    def __init__(
        self,
        rng: Generator | None,
        inputs: int,
        outputs: int,
        expansion: int,
        geometry: Geometry,
        lite: bool,
        drop: float,
    ):
        inner, kernel, stride = inputs * expansion, geometry.kernel, geometry.stride
        if expansion > 1:
            self.expand_conv = Conv2d(rng, inputs, inner, 1, bias=False)
            self.bn0 = _norm(inner, lite)
        self.depthwise_conv = Conv2d(
            *(rng, inner, inner, kernel, stride),
            bias=False,
            groups=inner,
            dilation=geometry.dilation,
            padding=geometry.padding,
        )
        self.bn1 = _norm(inner, lite)
        if not lite:
            squeezed = max(1, inputs // 4)
            self.se_reduce = Conv2d(rng, inner, squeezed, 1)
            self.se_expand = Conv2d(rng, squeezed, inner, 1)
        self.project_conv = Conv2d(rng, inner, outputs, 1, bias=False)
        self.bn2 = _norm(outputs, lite, "none")
        self.expands, self.lite = expansion > 1, lite
        self.adds = stride == 1 and inputs == outputs
        self.drop = Dropout(rng, drop if self.adds else 0, of="images")

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        y = x_bchw
        if self.expands:
            y = normed(self.expand_conv, self.bn0, y, training)
        y = normed(self.depthwise_conv, self.bn1, y, training)
        y = y if self.lite else self._excite(y)
        y = normed(self.project_conv, self.bn2, y, training)
        return self.drop(y, training) + x_bchw if self.adds else y

    def _excite(self, x_bchw: Tensor) -> Tensor:
        """Weigh the channels by a function of their means (Hu et al. 2018)."""
        mean = wide(x_bchw).mean(axis=(2, 3), keepdim=True).cast(x_bchw.dtype)
        weight = self.se_expand(activate(self.se_reduce(mean), "silu"))
        return (wide(x_bchw) * wide(weight).sigmoid()).cast(x_bchw.dtype)


def _norm(channels: int, lite: bool, activation: str = "") -> BatchNorm:
    activation = activation or ("relu6" if lite else "silu")
    return BatchNorm(channels, activation, EPS, momentum=0.1 if lite else 0.01)


class EfficientNet:
    """The network without its head, as SMP's `efficientnet-b` encoders, name by name.

    SMP's names begin with an underscore (`_blocks.0._bn1` is `blocks.0.bn1`), and it keeps the
    unused `_conv_head` and `_bn1`. B0 to B3 pad as at the image size that they were trained with,
    as there; Lite pads by the size of the image, as TensorFlow does and timm's
    `tf_efficientnet_lite` (SMP's `timm-tf_efficientnet_lite` pads evenly and has eps 1e-5, which
    the pretrained weights are not made for).
    """

    def __init__(
        self,
        scaling: Scaling,
        rng: Generator | None,
        in_channels: int,
        output_stride: int = 32,
        stochastic_depth: float = 0.0,
    ):
        self.output_stride, side = output_stride, scaling.image_size
        stem = 32 if scaling.lite else scaling.channels(32)
        padding: Padding = "same" if scaling.lite else same_padding(side, 3, 2)
        self.conv_stem = Conv2d(rng, in_channels, stem, 3, 2, bias=False, padding=padding)
        self.bn0 = _norm(stem, scaling.lite)
        self.blocks, self.ends = list[MBConv](), scaling.ends()
        inputs, side = stem, -(-side // 2)
        for stage, (_, kernel, first_stride, expansion, base) in enumerate(STAGES):
            for place in range(scaling.blocks(stage)):
                number = len(self.blocks)
                reduction = 4 * 2 ** sum(number >= end for end in self.ends)
                dilation = max(1, reduction // output_stride)
                stride = first_stride if place == 0 and dilation == 1 else 1
                padding = "same" if scaling.lite else same_padding(side, kernel, stride)
                geometry = Geometry(kernel, stride, dilation, padding if dilation == 1 else None)
                outputs, drop = scaling.channels(base), stochastic_depth * number / self.ends[-1]
                block = (inputs, outputs, expansion, geometry, scaling.lite, drop)
                self.blocks.append(MBConv(rng, *block))
                inputs, side = outputs, -(-side // stride)
        self.channels = (stem, *(scaling.channels(STAGES[stage][-1]) for stage in FEATURES))

    def __call__(self, x_bchw: Tensor, training: bool) -> list[Tensor]:
        """Return five features, the largest first; `channels` has their sizes."""
        features = [normed(self.conv_stem, self.bn0, x_bchw, training)]
        x = features[0]
        for number, block in enumerate(self.blocks, start=1):
            x = block(x, training)
            if number in self.ends:
                features.append(x)
        return features
