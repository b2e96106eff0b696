"""The small set-ups that tests of many files share, so that each is compiled once a session."""

from typing import Any

from tinygrad import Tensor
from tinygrad.nn import Conv2d

SMALL = [
    *("data.size=32", "model.base_channels=2", "model.depth=1", "model.dropout=0.2"),
    "train.batch_size=4",
]
"""Settings of nearly all runs: with color images, one compiled training step and validation."""


class TwoLayers:
    """A network of tinygrad's layers with dropout: compiled in a fraction of a U-Net's time."""

    def __init__(self, out_channels: int = 1, dropout: float = 0.2, in_channels: int = 1):
        Tensor.manual_seed(1)
        self.conv = Conv2d(in_channels, 4, 3, padding=1)
        self.head = Conv2d(4, out_channels, 1)
        self.out_channels, self.dropout = out_channels, dropout

    def __call__(self, x_bchw: Tensor) -> Any:
        return self.head(self.conv(x_bchw).silu().dropout(self.dropout))
