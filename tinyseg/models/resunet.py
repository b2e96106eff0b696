"""The residual encoder U-Net of nnU-Net (Isensee et al. 2024, https://arxiv.org/abs/2404.09556)."""

import numpy as np
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.config import PRECISIONS
from tinyseg.device.choose import backend
from tinyseg.errors import ConfigError
from tinyseg.nn import Conv2d, ConvTranspose2d, Dropout, Generator, GroupNorm, activate, normed
from tinyseg.nn.module import state_dict

BLOCKS = (1, 3, 4, 6, 6, 6, 6)
"""Residual blocks of each resolution, as in the preset ResEncM."""
MOST_CHANNELS = 512


class ConvNorm:
    """A convolution, an instance normalization and a leaky ReLU; nnU-Net's ConvDropoutNormReLU."""

    def __init__(
        self,
        rng: Generator | None,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        activation: str = "leaky",
    ):
        self.conv = Conv2d(rng, inputs, outputs, kernel, stride, bias=kernel > 1)
        self.norm = GroupNorm(outputs, outputs, activation)

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        return normed(self.conv, self.norm, x_bchw, training)


class ResidualBlock:
    """Two convolutions beside a shortcut, which is pooled where the resolution halves.

    nnU-Net's BasicBlockD (the ResNet-D of He et al. 2019).
    """

    def __init__(self, rng: Generator | None, inputs: int, outputs: int, stride: int):
        self.conv1 = ConvNorm(rng, inputs, outputs, stride=stride)
        self.conv2 = ConvNorm(rng, outputs, outputs, activation="none")
        self.stride = stride
        self.skip: list[ConvNorm | None] = [None] if stride == 2 else []  # the pooling
        if inputs != outputs:
            self.skip.append(ConvNorm(rng, inputs, outputs, kernel=1, activation="none"))

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        y = self.conv2(self.conv1(x_bchw, training), training)
        if self.stride == 2:
            x_bchw = kernels.wide(x_bchw).avg_pool2d(2).cast(x_bchw.dtype)
        if self.skip and (project := self.skip[-1]):
            x_bchw = project(x_bchw, training)
        return activate(y + x_bchw, "leaky")


class Encoder:
    """A stem, then residual blocks at each resolution; nnU-Net's ResidualEncoder."""

    def __init__(self, rng: Generator | None, in_channels: int, widths: list[int]):
        self.stem = {"convs": [ConvNorm(rng, in_channels, widths[0])]}
        self.stages: list[dict[str, list[ResidualBlock]]] = []
        for level, width in enumerate(widths):
            before = widths[max(level - 1, 0)]
            first = ResidualBlock(rng, before, width, 2 if level else 1)
            rest = [ResidualBlock(rng, width, width, 1) for _ in range(BLOCKS[level] - 1)]
            self.stages.append({"blocks": [first, *rest]})

    def __call__(self, x_bchw: Tensor, training: bool) -> list[Tensor]:
        """Return the features of each resolution, the largest first."""
        x, features = self.stem["convs"][0](x_bchw, training), list[Tensor]()
        for stage in self.stages:
            for block in stage["blocks"]:
                x = block(x, training)
            features.append(x)
        return features


class Decoder:
    """Doubles the resolution, appends the skip, convolves once; nnU-Net's UNetDecoder."""

    def __init__(self, rng: Generator | None, widths: list[int], out_channels: int):
        pairs = [(widths[level + 1], widths[level]) for level in reversed(range(len(widths) - 1))]
        self.stages = [{"convs": [ConvNorm(rng, 2 * wide, wide)]} for _, wide in pairs]
        self.transpconvs = [ConvTranspose2d(rng, *pair) for pair in pairs]
        head = Conv2d(rng, widths[0], out_channels, kernel=1)
        # nnU-Net has a head at each resolution and uses the last
        self.seg_layers: list[Conv2d | None] = [*[None] * (len(pairs) - 1), head]

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        *skips, x = features
        for up, stage, skip in zip(self.transpconvs, self.stages, reversed(skips), strict=True):
            x = stage["convs"][0](kernels.join(up(x), skip), training)
        head = self.seg_layers[-1]
        assert head is not None
        return head(x)


class ResUNet:
    """Takes images (B, C, H, W) to logits (B, K, H, W), any H and W; K = 1 is a sigmoid head.

    nnU-Net's ResidualEncoderUNet (package dynamic-network-architectures), name by name, without
    deep supervision. With `base_channels` 32 and `depth` 5 it is the preset's network for images
    of 128 pixels. Images and logits are float32; between them images have the type `precision`.
    Without a `seed` the weights hold nothing yet.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_channels: int = 32,
        depth: int = 5,
        dropout: float = 0.0,
        seed: int | None = 0,
        precision: str = "float32",
    ):
        if precision not in PRECISIONS:
            raise ConfigError(f"{precision=}: it must be one of {', '.join(PRECISIONS)}")
        backend()
        rng = None if seed is None else np.random.default_rng(seed)
        widths = [min(base_channels * 2**level, MOST_CHANNELS) for level in range(depth + 1)]
        self.in_channels, self.out_channels = in_channels, out_channels
        self.precision, self.multiple = precision, 2**depth
        self.encoder = Encoder(rng, in_channels, widths)
        self.dropout = Dropout(rng, dropout)
        self.decoder = Decoder(rng, widths, out_channels)

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        """Return logits of the same height and width; `training` is for a training step."""
        rows, columns = int(x_bchw.shape[2]), int(x_bchw.shape[3])
        x = x_bchw.pad((0, -columns % self.multiple, 0, -rows % self.multiple))
        *skips, x = self.encoder(x.cast(self.precision), training)
        logits = self.decoder([*skips, self.dropout(x, training)], training).float()
        return logits.shrink((None, None, (0, rows), (0, columns)))

    def state_dict(self) -> dict[str, Tensor]:
        """Return all weights and statistics by name, in PyTorch's shapes."""
        return state_dict(self)
