"""The input pipeline: the one way of an image to the network, in training and prediction alike."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.config import DataConfig
from tinyseg.data.prepare.normalize import InputScale, Normalize, normalize_batch, unit_range
from tinyseg.data.prepare.preprocess import Preprocess
from tinyseg.data.prepare.resize import (
    Placement,
    image_tile,
    place_image,
    place_tiles,
    scale_image,
)
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Tile:
    """An image, or a part of one, at the network's size but not yet normalized.

    uint8 pixels stay uint8 until then, at a quarter of the memory.
    """

    pixels: np.ndarray
    """(S, S, C) uint8, or float32 in [0, 1]."""
    scale: InputScale
    """How the pixels are normalized."""
    placement: Placement
    """Where the image lies in the tile; the rest mirrors it."""


class Tiles:
    """The tiles that together show a whole image; each is cropped when it is asked for."""

    def __init__(
        self, pixels: np.ndarray, scale: InputScale, placements: Sequence[Placement], size: int
    ) -> None:
        """`pixels` (H, W, C) is the whole image at the scale that it has in the tiles."""
        self.pixels, self.scale, self.placements, self.size = pixels, scale, placements, size

    def __len__(self) -> int:
        return len(self.placements)

    def __getitem__(self, index: int) -> Tile:
        placement = self.placements[index]
        return Tile(image_tile(self.pixels, placement, self.size), self.scale, placement)

    def __iter__(self) -> Iterator[Tile]:
        return map(self.__getitem__, range(len(self)))

    @property
    def middle(self) -> Tile:
        """The tile in the middle, which stands for all of them."""
        return self[len(self) // 2]


class InputPipeline:
    """Preprocess an image at its original size, resize or tile it, and normalize the tiles."""

    def __init__(self, config: DataConfig, scale: InputScale | None) -> None:
        """`scale` is that of all images; None where each image has its own (image, minmax)."""
        self.size, self.fit, self.overlap = config.size, config.fit, config.overlap
        self.scale = scale
        self.preprocess, self.normalize = Preprocess(config.preprocess), Normalize(config.normalize)

    def tile(self, image_hwc: np.ndarray) -> Tile:
        """Return one tile of an image (H, W, C): all of it, or its middle where it is tiled."""
        height, width = image_hwc.shape[:2]
        return self.tiles(image_hwc, [place_image(height, width, self.size, self.fit)])[0]

    def tiles(self, image_hwc: np.ndarray, placements: Sequence[Placement] | None = None) -> Tiles:
        """Return the tiles of an image (H, W, C), by default as many as show all of it.

        An image's own scale is that of the resized image, without the mirrored padding.
        """
        _check_range(image_hwc)
        if placements is None:
            height, width = image_hwc.shape[:2]
            placements = place_tiles(height, width, self.size, self.fit, self.overlap)
        pixels = scale_image(self.preprocess(image_hwc), placements[0])
        return Tiles(pixels, self.scale or self.normalize.of_image(pixels), placements, self.size)

    @staticmethod
    def to_batch(tiles: Sequence[Tile]) -> np.ndarray:
        """Return the network input (B, C, S, S) float32 of some tiles."""
        pixels = np.stack([unit_range(tile.pixels) for tile in tiles])
        return normalize_batch(pixels, [tile.scale for tile in tiles])


def find_scale(
    config: DataConfig, images: Iterable[np.ndarray], channels: int
) -> InputScale | None:
    """Return the scale of the training images (H, W, C), None where each has its own."""
    preprocess = Preprocess(config.preprocess)
    return Normalize(config.normalize).of_dataset(map(preprocess, images), channels)


def _check_range(image: np.ndarray) -> None:
    if image.dtype.kind != "f":
        return
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"an image of floats has pixels from {low:g} to {high:g}: they must be 0 to 1; "
            "divide by 255, or give uint8"
        )
