"""TransUNet (Chen et al. 2021, https://arxiv.org/abs/2102.04306), in a small size."""

from collections.abc import Sequence

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.nn import BatchNorm, Conv2d, Dropout, Generator, normed, stretch, upsample
from tinyseg.nn.layers import normal
from tinyseg.nn.transformer import LayerNorm, TransformerBlock

WIDTH, HEADS, LAYERS = 384, 6, 6
"""Of the transformer: half the layers of ViT-S (the paper: 768, 12 and 12 of ViT-B)."""
GRID = 14
"""Rows and columns of position embeddings (a 224-pixel image), stretched to other sizes."""
WIDTHS = (256, 128, 64, 16)
"""Channels of the decoder's blocks, the deepest first."""


class DecoderBlock:
    """Doubles the resolution, appends the skip connection, convolves twice."""

    def __init__(self, rng: Generator | None, inputs: int, skip: int, outputs: int):
        self.conv1 = (Conv2d(rng, inputs + skip, outputs, bias=False), BatchNorm(outputs))
        self.conv2 = (Conv2d(rng, outputs, outputs, bias=False), BatchNorm(outputs))

    def __call__(self, x_bchw: Tensor, skip_bchw: Tensor | None, training: bool) -> Tensor:
        x_bchw = upsample(x_bchw, 2)
        if skip_bchw is not None:
            x_bchw = kernels.join(x_bchw, skip_bchw)
        x_bchw = normed(*self.conv1, x_bchw, training)
        return normed(*self.conv2, x_bchw, training)


class Transformer:
    """Features as a sequence: each pixel is a token that sees all others."""

    def __init__(self, rng: Generator | None, channels: int):
        self.patch_embed = Conv2d(rng, channels, WIDTH, 1)
        self.pos_embed = normal(rng, (1, WIDTH, GRID, GRID), 0.02)
        self.blocks = [TransformerBlock(rng, WIDTH, HEADS) for _ in range(LAYERS)]
        self.norm = LayerNorm(WIDTH)

    def __call__(self, x_bchw: Tensor) -> Tensor:
        batch, _, rows, columns = x_bchw.shape
        x = self.patch_embed(x_bchw)
        x = x + stretch(self.pos_embed, int(rows), int(columns)).cast(x.dtype)
        tokens = x.flatten(2).permute(0, 2, 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens).permute(0, 2, 1).reshape(batch, WIDTH, rows, columns)


class TransUNetDecoder:
    """A transformer on the deepest features, then a U-Net's way up ("cascaded upsampler").

    The paper's encoder is a ResNet-50 without its last stage; here the last stage stays, at the
    resolution of the one before it.
    """

    out_channels, head_kernel, head_scale = WIDTHS[-1], 3, 1

    def __init__(
        self, rng: Generator | None, channels: Sequence[int], output_stride: int, dropout: float
    ):
        self.dropout = Dropout(rng, dropout)
        self.transformer = Transformer(rng, channels[-1])
        self.conv_more = (Conv2d(rng, WIDTH, 512, bias=False), BatchNorm(512))
        inputs, skips = (512, *WIDTHS[:-1]), (*channels[2::-1], 0)
        self.blocks = [DecoderBlock(rng, *s) for s in zip(inputs, skips, WIDTHS, strict=True)]

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        """Return (B, 16, H, W)."""
        x = self.transformer(self.dropout(features[-1], training))
        x = normed(*self.conv_more, x, training)
        for block, skip in zip(self.blocks, [*features[2::-1], None], strict=True):
            x = block(x, skip, training)
        return x
