"""MobileNetV2 (Sandler, Howard, Zhu, Zhmoginov & Chen 2018, https://arxiv.org/abs/1801.04381)."""

from typing import Any

from tinygrad import Tensor

from tinyseg.nn import BatchNorm, Conv2d, Dropout, Generator, normed

STAGES = (
    # expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""The paper's table 2."""
FEATURES = (1, 3, 6, 13, 18)
"""Layers whose outputs are the features of the encoder, as SMP chooses them."""


class InvertedResidual:
    """Expands the channels, convolves each by itself, projects; torchvision's InvertedResidual."""

    def __init__(
        self,
        rng: Generator | None,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int,
        dilation: int,
        drop: float,
    ):
        inner = inputs * expansion
        depthwise = Conv2d(
            rng, inner, inner, 3, stride, bias=False, groups=inner, dilation=dilation
        )
        expand = [_layer(Conv2d(rng, inputs, inner, 1, bias=False))] if expansion > 1 else []
        project = (Conv2d(rng, inner, outputs, 1, bias=False), BatchNorm(outputs, "none"))
        self.conv: list[Any] = [*expand, _layer(depthwise), *project]
        self.adds = stride == 1 and inputs == outputs
        self.drop = Dropout(rng, drop if self.adds else 0, of="images")

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        *layers, project, norm = self.conv
        y = x_bchw
        for conv, conv_norm in layers:
            y = normed(conv, conv_norm, y, training)
        y = normed(project, norm, y, training)
        return self.drop(y, training) + x_bchw if self.adds else y


def _layer(conv: Conv2d) -> tuple[Conv2d, BatchNorm]:
    return conv, BatchNorm(int(conv.weight.shape[0]), "relu6")


class MobileNetV2:
    """The network without its classifier; tensors are named as in torchvision and SMP."""

    def __init__(
        self,
        rng: Generator | None,
        in_channels: int,
        output_stride: int = 32,
        stochastic_depth: float = 0.0,
    ):
        self.output_stride = output_stride
        self.features: list[Any] = [_layer(Conv2d(rng, in_channels, 32, 3, 2, bias=False))]
        inputs, reached = 32, 2
        for expansion, outputs, count, first_stride in STAGES:
            reached *= first_stride
            dilation = max(1, reached // output_stride)
            for place in range(count):
                stride = first_stride if place == 0 and dilation == 1 else 1
                drop = stochastic_depth * len(self.features) / FEATURES[-1]
                block = (inputs, outputs, expansion, stride, dilation, drop)
                self.features.append(InvertedResidual(rng, *block))
                inputs = outputs
        self.features.append(_layer(Conv2d(rng, inputs, 1280, 1, bias=False)))
        self.channels: tuple[int, ...] = (16, 24, 32, 96, 1280)

    def __call__(self, x_bchw: Tensor, training: bool) -> list[Tensor]:
        """Return five features, the largest first; `channels` has their sizes."""
        found, x = [], x_bchw
        for number, layer in enumerate(self.features):
            if isinstance(layer, InvertedResidual):
                x = layer(x, training)
            else:
                conv, norm = layer
                x = normed(conv, norm, x, training)
            found += [x] if number in FEATURES else []
        return found
