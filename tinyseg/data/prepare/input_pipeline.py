"""The network's door: the one way of an image to it, in training, validation and prediction."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.config import DataConfig
from tinyseg.data.prepare.normalize import InputScale, Normalize, normalize_batch, unit_range
from tinyseg.data.prepare.preprocess import Preprocess
from tinyseg.data.prepare.resize import Placement, cut_image, place_image, place_tiles, resize_image
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Tile:
    """An image before the door: uint8 pixels stay uint8, at a quarter of the memory."""

    pixels: np.ndarray
    """(S, S, C) uint8, or float32 in [0, 1]."""
    scale: InputScale
    """What `data.normalize` is for it."""
    box: Placement
    """Where the image lies in the square; the rest mirrors it."""


class Tiles:
    """An image as the squares that together show all of it; each is cut when it is asked for."""

    def __init__(
        self, pixels: np.ndarray, scale: InputScale, boxes: Sequence[Placement], size: int
    ) -> None:
        """`pixels` (H, W, C) is the whole image, at the size that it has in the squares."""
        self.pixels, self.scale, self.boxes, self.size = pixels, scale, boxes, size

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Tile]:
        return map(self._cut, self.boxes)

    @property
    def middle(self) -> Tile:
        """One of the squares that stands for all."""
        return self._cut(self.boxes[len(self.boxes) // 2])

    def _cut(self, box: Placement) -> Tile:
        return Tile(cut_image(self.pixels, box, self.size), self.scale, box)


class InputPipeline:
    """Preprocesses at the original size, fits to the square, normalises."""

    def __init__(self, config: DataConfig, scale: InputScale | None) -> None:
        """`scale` is that of all images; None where each has its own (image, minmax)."""
        self.size, self.how, self.scale = config.size, config.fit, scale
        self.overlap = config.overlap
        self.preprocess, self.normalize = Preprocess(config.preprocess), Normalize(config.normalize)

    def fit(self, image_hwc: np.ndarray) -> Tile:
        """An image (H, W, C) in one square: with `window`, its middle."""
        height, width = image_hwc.shape[:2]
        return next(iter(self.cut(image_hwc, [place_image(height, width, self.size, self.how)])))

    def tiles(self, image_hwc: np.ndarray) -> Tiles:
        """An image (H, W, C) of any size, preprocessed, in as many squares as show all of it."""
        height, width = image_hwc.shape[:2]
        return self.cut(image_hwc, self.placements(height, width, self.overlap))

    def placements(self, height: int, width: int, overlap: float) -> list[Placement]:
        """Where the squares of an image of this size lie; see `place_tiles`."""
        return place_tiles(height, width, self.size, self.how, overlap)

    def cut(self, image_hwc: np.ndarray, boxes: Sequence[Placement]) -> Tiles:
        """An image (H, W, C), preprocessed, with its scale, in squares at these places.

        An image's own scale is that of what the network sees of it, without the mirrored rest.
        """
        _check_range(image_hwc)
        pixels = resize_image(self.preprocess(image_hwc), boxes[0])
        return Tiles(pixels, self.scale or self.normalize.of_image(pixels), boxes, self.size)

    @staticmethod
    def to_batch(tiles: Sequence[Tile]) -> np.ndarray:
        """What the network gets: (B, C, S, S) float32."""
        pixels = np.stack([unit_range(tile.pixels) for tile in tiles])
        return normalize_batch(pixels, [tile.scale for tile in tiles])


def find_scale(
    config: DataConfig, images: Iterable[np.ndarray], channels: int
) -> InputScale | None:
    """The scale of a new door, from training images (H, W, C); ConfigError when none can be."""
    preprocess = Preprocess(config.preprocess)
    prepared = (preprocess(image) for image in images)
    return Normalize(config.normalize).of_dataset(prepared, channels)


def _check_range(image: np.ndarray) -> None:
    if image.dtype.kind != "f":
        return
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise DataError(
            f"an image of floats has pixels from {low:g} to {high:g}: they must be 0 to 1; "
            "divide by 255, or give uint8"
        )
