"""Normalize pixels to the numbers that a network takes: (pixel - mean) / std, per channel."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.common.spec import Value, check_name, fill, parse_call
from tinyseg.errors import ConfigError, DataError

FLAT = 2e-6
"""A std below this is the rounding of one flat gray: it counts as 1."""


@dataclass(frozen=True)
class InputScale:
    """What (pixel - mean) / std is applied to pixels in [0, 1], per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def of(images: Iterable[np.ndarray]) -> "InputScale":
        """Return the mean and standard deviation of each channel over (H, W, C) images."""
        sums, squares, count = 0.0, 0.0, 0
        for image in images:
            pixels = unit_range(image).reshape(-1, image.shape[-1]).astype(np.float64)
            sums = sums + pixels.sum(axis=0)
            squares = squares + np.square(pixels).sum(axis=0)
            count += len(pixels)
        mean = np.asarray(sums) / count
        return _scale(mean, np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0)))

    @staticmethod
    def of_range(image_hwc: np.ndarray) -> "InputScale":
        """Return the scale that stretches each channel of an image to [0, 1]."""
        low, high = (bound(unit_range(image_hwc), axis=(0, 1)) for bound in (np.min, np.max))
        return _scale(low, high - low)

    @staticmethod
    def from_json(table: dict[str, list[float]]) -> "InputScale":
        """Read what `asdict` wrote, also in old runs, which call the std "deviation"."""
        std = table["std"] if "std" in table else table["deviation"]
        scale = InputScale(tuple(map(float, table["mean"])), tuple(map(float, std)))
        if not np.isfinite([*scale.mean, *scale.std]).all() or min(scale.std, default=1) <= 0:
            raise ValueError("a mean or std that cannot be")
        return scale


def _scale(mean: np.ndarray, std: np.ndarray) -> InputScale:
    return InputScale(tuple(mean.tolist()), tuple(np.where(std < FLAT, 1.0, std).tolist()))


def normalize_batch(images_bhwc: np.ndarray, scales: Sequence[InputScale]) -> np.ndarray:
    """Normalize images (B, H, W, C), each by its own scale, to (B, C, H, W) float32."""
    mean = np.array([scale.mean for scale in scales], np.float32)[:, None, None]
    std = np.array([scale.std for scale in scales], np.float32)[:, None, None]
    scaled = (unit_range(images_bhwc) - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def unit_range(image: np.ndarray) -> np.ndarray:
    """Convert uint8 pixels to float32 in [0, 1]; floats are there already."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if image.dtype.kind != "f":
        raise DataError(f"pixels are uint8, or float in [0, 1], not {image.dtype}; convert them")
    return image


KINDS: dict[str, dict[str, Value]] = {
    "dataset": {},
    "image": {},
    "minmax": {},
    "fixed": {"mean": (0.0,), "std": (1.0,)},
    "none": {},
}


class Normalize:
    """Find the scale of images: one for all of them, or one for each image.

    dataset   mean and std of the training images     fixed(mean,std)   the given ones
    image     mean and std of each image (z-score)    minmax            the range of each image
    none      pixels stay in [0, 1]
    """

    def __init__(self, text: str = "dataset") -> None:
        """Read `data.normalize`; ConfigError when it cannot be used."""
        try:
            call = parse_call(text, example="fixed(mean=[0.5],std=[0.25])")
            check_name(call, KINDS, "normalization")
            arguments = fill(call, KINDS[call.name])
        except ConfigError as error:
            raise ConfigError(f"data.normalize: {error}") from None
        self.text, self.name = str(call), call.name
        self.by_image = call.name in ("image", "minmax")
        """Whether each image has a scale of its own."""
        self.fixed = _fixed(self.text, **arguments) if call.name == "fixed" else None

    def of_image(self, image_hwc: np.ndarray) -> InputScale:
        """Return an image's own scale, where `by_image`."""
        if self.name == "minmax":
            return InputScale.of_range(image_hwc)
        return InputScale.of([image_hwc])

    def of_dataset(self, images: Iterable[np.ndarray], channels: int) -> InputScale | None:
        """Return the scale of all images from the training images; None where `by_image`."""
        if self.by_image:
            return None
        if self.name == "none":
            return InputScale((0.0,) * channels, (1.0,) * channels)
        if self.fixed is None:
            return InputScale.of(images)
        if len(self.fixed.mean) not in (1, channels):
            raise ConfigError(
                f"data.normalize: {self.text} has {len(self.fixed.mean)} values, the images have "
                f"{channels} channels; give one value for each, or set data.color"
            )
        repeat = channels // len(self.fixed.mean)
        return InputScale(self.fixed.mean * repeat, self.fixed.std * repeat)


def _fixed(text: str, mean: Value, std: Value) -> InputScale:
    assert isinstance(mean, tuple)
    assert isinstance(std, tuple)
    if len(mean) != len(std) or min(std) <= 0:
        raise ConfigError(
            f"data.normalize: {text} cannot be used: give a mean and a positive std for each "
            "channel, of pixels in [0, 1], e.g. fixed(mean=[0.5],std=[0.25])"
        )
    return InputScale(mean, std)
