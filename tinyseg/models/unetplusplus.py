"""U-Net++ (Zhou et al. 2018, https://arxiv.org/abs/1807.10165) on the features of any encoder."""

from collections.abc import Sequence

from tinygrad import Tensor

from tinyseg.models.unet_decoder import WIDTHS, DecoderBlock
from tinyseg.nn import Dropout, Generator


class UNetPlusPlusDecoder:
    """SMP's UnetPlusPlusDecoder: nested, dense skip connections; blocks named as there.

    Block `x_i_j` returns features at the resolution of skip connection j (0 is the deepest), out
    of those of `x_i_(j-1)`, or of the encoder where i = j, at twice their size, and of all blocks
    `x_k_j` with k > i that came before it. The last block has no skip connection.
    """

    out_channels, head_kernel, head_scale = WIDTHS[-1], 3, 1

    def __init__(
        self, rng: Generator | None, channels: Sequence[int], output_stride: int, dropout: float
    ):
        deepest, *skips = reversed(channels)
        inputs, self.levels = (deepest, *skips[:-1]), len(skips)
        self.dropout = Dropout(rng, dropout)
        self.blocks: dict[str, DecoderBlock] = {}
        for j, skip in enumerate(skips):
            for i in range(j + 1):
                below = (deepest, *WIDTHS)[j] if i == 0 else inputs[j]
                outputs = WIDTHS[j] if i == 0 else skip
                self.blocks[f"x_{i}_{j}"] = DecoderBlock(rng, below, skip * (j + 1 - i), outputs)
        last = DecoderBlock(rng, WIDTHS[-2], 0, WIDTHS[-1])
        self.blocks[f"x_0_{self.levels}"] = last

    def __call__(self, features: list[Tensor], training: bool) -> Tensor:
        """Return (B, 16, H, W)."""
        *skips, deepest = features
        below = [self.dropout(deepest, training), *skips[:0:-1]]
        # x[j] holds the blocks of level j, the innermost (i = j) first
        x: list[list[Tensor]] = []
        for j, skip in enumerate(reversed(skips)):
            level: list[Tensor] = []
            for i in range(j, -1, -1):
                source = below[j] if i == j else x[j - 1][j - 1 - i]
                dense = Tensor.cat(*reversed(level), skip, dim=1)
                level.append(self.blocks[f"x_{i}_{j}"](source, dense, training))
            x.append(level)
        return self.blocks[f"x_0_{self.levels}"](x[-1][-1], None, training)
