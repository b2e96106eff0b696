"""A network of an encoder, a decoder and a head, as in segmentation-models-pytorch (SMP)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from tinygrad import Tensor

from tinyseg.config import PRECISIONS
from tinyseg.device.choose import backend
from tinyseg.errors import ConfigError
from tinyseg.models.encoders import ENCODERS
from tinyseg.nn import Conv2d, Generator, upsample
from tinyseg.nn.module import state_dict


class Decoder(Protocol):
    """What makes one map of channels out of the features of an encoder."""

    out_channels: int
    head_kernel: int
    """Side of the head's convolution."""
    head_scale: int
    """How many times larger the logits are than what the decoder returns."""

    def __init__(
        self, rng: Generator | None, channels: Sequence[int], output_stride: int, dropout: float
    ): ...

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        """Return (B, out_channels, H / head_scale, W / head_scale)."""


class EncoderDecoder:
    """Takes images (B, C, H, W) to logits (B, K, H, W), any H and W; K = 1 is a sigmoid head.

    Its tensors have the names of SMP's models: `encoder.`, `decoder.`, `segmentation_head.0.`.
    Images and logits are float32; between them images have the type `precision`. Without a `seed`
    the weights hold nothing yet.
    """

    def __init__(
        self,
        decoder: type[Decoder],
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        encoder: str = "resnet34",
        output_stride: int = 32,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        freeze: bool = False,
        seed: int | None = 0,
        precision: str = "float32",
    ):
        if precision not in PRECISIONS:
            raise ConfigError(f"{precision=}: it must be one of {', '.join(PRECISIONS)}")
        if in_channels < 1 or out_channels < 1:
            raise ConfigError(f"{in_channels=}, {out_channels=}: both must be at least 1")
        backend()
        rng = None if seed is None else np.random.default_rng(seed)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.precision, self.freeze = precision, freeze
        self.encoder = ENCODERS[encoder](rng, in_channels, output_stride, stochastic_depth)
        self.decoder = decoder(rng, self.encoder.channels, output_stride, dropout)
        kernel = self.decoder.head_kernel
        self.segmentation_head = [Conv2d(rng, self.decoder.out_channels, out_channels, kernel)]
        if freeze:
            for tensor in state_dict(self.encoder).values():
                tensor.is_param_(False)

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        """Return logits of the same height and width; `training` is for a training step."""
        rows, columns = int(x_bchw.shape[2]), int(x_bchw.shape[3])
        multiple = self.encoder.output_stride
        x = x_bchw.pad((0, -columns % multiple, 0, -rows % multiple)).cast(self.precision)
        # the statistics of a frozen encoder stay as well
        features = self.encoder(x, training and not self.freeze)
        logits = self.segmentation_head[0](self.decoder(features, training))
        logits = upsample(logits, self.decoder.head_scale).float()
        return logits.shrink((None, None, (0, rows), (0, columns)))

    def state_dict(self) -> dict[str, Tensor]:
        """Return all weights and statistics by name, in PyTorch's shapes."""
        return state_dict(self)
