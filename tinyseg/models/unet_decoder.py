"""The U-Net's decoder (Ronneberger, Fischer & Brox 2015) on the features of any encoder."""

from collections.abc import Sequence

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.nn import BatchNorm, Conv2d, Dropout, Generator, normed, resize

WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the blocks, the deepest first."""


class DecoderBlock:
    """Doubles the resolution, appends the skip connection, convolves twice.

    SMP's UnetDecoderBlock, and the DecoderBlock of its UnetPlusPlus, name by name.
    """

    def __init__(self, rng: Generator | None, inputs: int, skip: int, outputs: int):
        self.conv1 = (Conv2d(rng, inputs + skip, outputs, bias=False), BatchNorm(outputs))
        self.conv2 = (Conv2d(rng, outputs, outputs, bias=False), BatchNorm(outputs))

    def __call__(self, x_bchw: Tensor, skip_bchw: Tensor | None, training: bool) -> Tensor:
        x_bchw = resize(x_bchw, "nearest")
        if skip_bchw is not None:
            x_bchw = kernels.join(x_bchw, skip_bchw)
        x_bchw = normed(*self.conv1, x_bchw, training)
        return normed(*self.conv2, x_bchw, training)


class UNetDecoder:
    """SMP's UnetDecoder: five blocks, the last one without a skip connection."""

    out_channels, head_kernel, head_scale = WIDTHS[-1], 3, 1

    def __init__(
        self, rng: Generator | None, channels: Sequence[int], output_stride: int, dropout: float
    ):
        self.dropout = Dropout(rng, dropout)
        inputs, skips = (channels[-1], *WIDTHS[:-1]), (*channels[-2::-1], 0)
        sizes = zip(inputs, skips, WIDTHS, strict=True)
        self.blocks = [DecoderBlock(rng, *each) for each in sizes]

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        """Return (B, 16, H, W)."""
        *skips, x = features
        x = self.dropout(x, training)
        for block, skip in zip(self.blocks, [*reversed(skips), None], strict=True):
            x = block(x, skip, training)
        return x
