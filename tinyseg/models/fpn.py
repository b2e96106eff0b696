"""The feature pyramid network (Kirillov et al. 2019, https://arxiv.org/abs/1901.02446).

A pyramid of features (Lin et al. 2017, FPN), each brought to a quarter of the image's resolution
and added, as in the paper's semantic branch.
"""

from collections.abc import Sequence

from tinygrad import Tensor

from tinyseg.nn import Conv2d, Dropout, Generator, GroupNorm, normed, resize, upsample

PYRAMID, WIDTH = 256, 128


class FPNBlock:
    """The lateral connection: the level below at twice the size plus this one's features."""

    def __init__(self, rng: Generator | None, skip_channels: int):
        self.skip_conv = Conv2d(rng, skip_channels, PYRAMID, 1)

    def __call__(self, x_bchw: Tensor, skip_bchw: Tensor) -> Tensor:
        return resize(x_bchw, "nearest") + self.skip_conv(skip_bchw)


class ConvGroupNorm:
    """A 3 x 3 convolution, a group normalization, a ReLU; then twice the size."""

    def __init__(self, rng: Generator | None, in_channels: int, double: bool):
        self.double = double
        self.block = (Conv2d(rng, in_channels, WIDTH, bias=False), GroupNorm(WIDTH, 32))

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        x_bchw = normed(*self.block, x_bchw, training)
        return upsample(x_bchw, 2) if self.double else x_bchw


class SegmentationBlock:
    """Takes a level of the pyramid to a quarter of the image's resolution."""

    def __init__(self, rng: Generator | None, doublings: int):
        inputs = [PYRAMID, *[WIDTH] * (doublings - 1)]
        self.block = [ConvGroupNorm(rng, each, doublings > 0) for each in inputs]

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        for block in self.block:
            x_bchw = block(x_bchw, training)
        return x_bchw


class FPNDecoder:
    """SMP's FPNDecoder, name by name; its dropout of 0.2 is `model.dropout` here."""

    out_channels, head_kernel, head_scale = WIDTH, 1, 4

    def __init__(
        self, rng: Generator | None, channels: Sequence[int], output_stride: int, dropout: float
    ):
        self.p5 = Conv2d(rng, channels[-1], PYRAMID, 1)
        self.p4, self.p3, self.p2 = (FPNBlock(rng, channels[-k]) for k in (2, 3, 4))
        self.seg_blocks = [SegmentationBlock(rng, doublings) for doublings in (3, 2, 1, 0)]
        self.dropout = Dropout(rng, dropout)

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        """Return (B, 128, H / 4, W / 4)."""
        c2, c3, c4, c5 = features[-4:]
        pyramid = [self.p5(c5)]
        for block, skip in ((self.p4, c4), (self.p3, c3), (self.p2, c2)):
            pyramid.append(block(pyramid[-1], skip))
        levels = zip(self.seg_blocks, pyramid, strict=True)
        s5, s4, s3, s2 = (block(level, training) for block, level in levels)
        return self.dropout(s5 + s4 + s3 + s2, training)
