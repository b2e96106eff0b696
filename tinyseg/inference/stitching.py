"""Stitch the probabilities of tiles to those of one image, weighted so that no seam shows."""

import functools

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.data import Placement, image_part, restore_size, visible_part


class Stitcher:
    """The sums over the tiles of one image.

    A pixel is the mean of the tiles that cover it, weighted by a Gaussian about each tile's center,
    because at its edges a network does not see what lies beyond. Probabilities are averaged
    (nnU-Net, Isensee et al. 2021, has the same weights but averages logits).
    """

    def __init__(self, tiles: int) -> None:
        self.left = tiles
        """Tiles that are still to come."""
        self._alone = tiles == 1
        self._sum = self._weight = np.zeros(0, np.float32)

    def add(self, p_kss: Array, placement: Placement) -> None:
        """Add the probabilities (K, S, S) of the next tile."""
        self.left -= 1
        if self._alone:
            self._sum = restore_size(p_kss, placement)
            return
        if not self._sum.size:
            self._sum = np.zeros((len(p_kss), *placement.original), np.float32)
            self._weight = np.zeros(placement.original, np.float32)
        size = p_kss.shape[-1]
        place, weight = visible_part(placement, size), image_part(gaussian(size), placement)
        self._sum[:, *place] += (
            image_part(p_kss.transpose(1, 2, 0), placement).transpose(2, 0, 1) * weight
        )
        self._weight[place] += weight

    def image(self) -> Array:
        """Return the probabilities (K, H, W) float32; call it when all tiles were added."""
        return self._sum if self._alone else np.divide(self._sum, self._weight, out=self._sum)


@functools.cache
def gaussian(size: int) -> Array:
    """Return the weights (S, S) float32 of a tile: 1 at its center, with a std of S / 8."""
    away = (np.arange(size) - (size - 1) / 2) / (size / 8)
    line = np.exp(-(away**2) / 2)
    weights = np.outer(line, line).astype(np.float32)
    weights.flags.writeable = False
    return weights
