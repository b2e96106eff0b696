"""Encoders by name: networks for classification without their head, as feature pyramids.

An encoder is called as `encoder(x, training)` with images (B, C, H, W) and returns five features
(B, channels[i], H / 2^(i+1), W / 2^(i+1)); from the one where 2^(i+1) reaches `output_stride` on,
they keep that resolution and their convolutions are dilated instead. Rows and columns of the
images must be multiples of `output_stride`. A new one is a file here and an entry in ENCODERS.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from tinygrad import Tensor

from tinyseg.models.encoders.efficientnet import EfficientNet, Scaling
from tinyseg.models.encoders.mobilenet import MobileNetV2
from tinyseg.models.encoders.resnet import BasicBlock, Bottleneck, ResNet
from tinyseg.nn import Generator


class Encoder(Protocol):
    """What a decoder needs to know of an encoder."""

    channels: tuple[int, ...]
    output_stride: int

    def __call__(self, x_bchw: Tensor, training: bool) -> list[Tensor]:
        """Return five features, the largest first."""


ENCODERS: dict[str, Callable[[Generator | None, int, int, float], Encoder]] = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "mobilenet_v2": MobileNetV2,
    "efficientnet-b0": partial(EfficientNet, Scaling(1.0, 1.0, 224, early=True)),
    "efficientnet-b1": partial(EfficientNet, Scaling(1.0, 1.1, 240)),
    "efficientnet-b2": partial(EfficientNet, Scaling(1.1, 1.2, 260)),
    "efficientnet-b3": partial(EfficientNet, Scaling(1.2, 1.4, 300)),
    "efficientnet-lite0": partial(EfficientNet, Scaling(1.0, 1.0, 224, lite=True)),
    "efficientnet-lite1": partial(EfficientNet, Scaling(1.0, 1.1, 240, lite=True)),
    "efficientnet-lite2": partial(EfficientNet, Scaling(1.1, 1.2, 260, lite=True)),
}

__all__ = ["ENCODERS", "Encoder"]
