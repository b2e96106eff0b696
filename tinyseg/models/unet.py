"""The U-Net (Ronneberger, Fischer & Brox 2015)."""

import numpy as np
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.config import PRECISIONS, ModelConfig
from tinyseg.device.choose import backend
from tinyseg.errors import ConfigError
from tinyseg.nn import Conv2d, DoubleConv, Dropout, Up
from tinyseg.nn.module import state_dict


class UNet:
    """Takes images (B, C, H, W) to logits (B, K, H, W), any H and W; K = 1 is a sigmoid head.

    Images and logits are float32; between them images have the type `precision`. Differs from the
    paper: same padding instead of valid, normalization after each convolution.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        base_channels: int = 16,
        depth: int = 4,
        upsample: str = "transpose",
        norm: str = "batch",
        attention: bool = False,
        dropout: float = 0.0,
        seed: int | None = 0,
        precision: str = "float32",
    ):
        ModelConfig(  # checks the ranges
            base_channels=base_channels,
            depth=depth,
            upsample=upsample,
            norm=norm,
            attention=attention,
            dropout=dropout,
        )
        if precision not in PRECISIONS:
            raise ConfigError(f"{precision=}: it must be one of {', '.join(PRECISIONS)}")
        if in_channels < 1 or out_channels < 1:
            raise ConfigError(f"{in_channels=}, {out_channels=}: both must be at least 1")
        backend()
        rng = None if seed is None else np.random.default_rng(seed)
        widths = [base_channels * 2**level for level in range(depth + 1)]
        self.in_channels, self.out_channels = in_channels, out_channels
        self.precision = precision
        self.down = [
            DoubleConv(rng, before, after, norm)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        ]
        self.dropout = Dropout(rng, dropout)
        self.up = [
            Up(rng, widths[level + 1], widths[level], upsample, norm, attention)
            for level in reversed(range(depth))
        ]
        self.head = Conv2d(rng, base_channels, out_channels, kernel=1)

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        """Return logits of the same height and width; `training` is for a training step."""
        rows, columns = int(x_bchw.shape[2]), int(x_bchw.shape[3])
        multiple = 2 ** len(self.up)
        bottom, right = -rows % multiple, -columns % multiple
        if bottom or right:
            x_bchw = x_bchw.pad((0, right, 0, bottom))
        logits = self._forward(x_bchw.cast(self.precision), training).float()
        return logits.shrink((None, None, (0, rows), (0, columns))) if bottom or right else logits

    def _forward(self, x: Tensor, training: bool) -> Tensor:
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(kernels.max_pool(x) if level else x, training)
            skips.append(x)
        x = self.dropout(skips.pop(), training)
        for up in self.up:
            x = up(x, skips.pop(), training)
        return self.head(x)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all weights and statistics by name, in PyTorch's shapes."""
        return state_dict(self)
