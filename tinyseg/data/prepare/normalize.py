"""Pixels to the numbers a network sees: (pixel - mean) / deviation, per channel."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.common.spec import Value, check_name, fill, parse_call
from tinyseg.errors import ConfigError, DataError

FLAT = 1e-4
"""A smaller deviation is that of one flat grey, and only rounding: it counts as 1."""


@dataclass(frozen=True)
class InputScale:
    """What brings pixels to the network: (pixel - mean) / deviation, per channel, on [0, 1]."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @staticmethod
    def of(images: Iterable[np.ndarray]) -> "InputScale":
        """Mean and standard deviation of each channel over (H, W, C) images."""
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
        """The scale that brings each channel of an image from its own range to [0, 1]."""
        low, high = (bound(unit_range(image_hwc), axis=(0, 1)) for bound in (np.min, np.max))
        return _scale(low, high - low)


def normalize_batch(images_bhwc: np.ndarray, scales: Sequence[InputScale]) -> np.ndarray:
    """Images (B, H, W, C) as stored, each by its scale, to (B, C, H, W) float32."""
    mean = np.array([scale.mean for scale in scales], np.float32)[:, None, None]
    deviation = np.array([scale.deviation for scale in scales], np.float32)[:, None, None]
    scaled = (unit_range(images_bhwc) - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def unit_range(image: np.ndarray) -> np.ndarray:
    """uint8 pixels to float32 in [0, 1]; float32 pixels are there already."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if image.dtype.kind != "f":
        raise DataError(f"pixels are uint8, or float in [0, 1], not {image.dtype}; convert them")
    return image


class Normalize:
    """How the scale of images is found: one for all of them, or for each image its own.

    dataset   mean and deviation of the training images     fixed(mean,std)   those that are given
    image     z-score: those of each image                  minmax            each image's range
    none      pixels stay in [0, 1]
    """

    def __init__(self, text: str = "dataset") -> None:
        """Reads the text; ConfigError when it cannot be used."""
        try:
            call = parse_call(text, example="fixed(mean=[0.5],std=[0.25])")
            check_name(call, KINDS, "normalisation")
            given = fill(call, KINDS[call.name])
        except ConfigError as error:
            raise ConfigError(f"data.normalize: {error}") from None
        self.text, self.name = str(call), call.name
        self.by_image = call.name in _OWN
        """Whether each image has a scale of its own."""
        self.given = _given(self.text, **given) if call.name == "fixed" else None

    def of_image(self, image_hwc: np.ndarray) -> InputScale:
        """The image's own scale, where `by_image`."""
        return _OWN[self.name](image_hwc)

    def of_dataset(self, images: Iterable[np.ndarray], channels: int) -> InputScale | None:
        """The scale of all images, found on the training images; None where `by_image`."""
        if self.by_image:
            return None
        if self.name == "none":
            return InputScale((0.0,) * channels, (1.0,) * channels)
        if self.given is None:
            return InputScale.of(images)
        if len(self.given.mean) not in (1, channels):
            raise ConfigError(
                f"data.normalize: {self.text} has {len(self.given.mean)} values, the images have "
                f"{channels} channels; give one value for each, or set data.color"
            )
        repeat = channels // len(self.given.mean)
        return InputScale(self.given.mean * repeat, self.given.deviation * repeat)


KINDS: dict[str, dict[str, Value]] = {
    "dataset": {},
    "image": {},
    "minmax": {},
    "fixed": {"mean": (0.0,), "std": (1.0,)},
    "none": {},
}
_OWN: dict[str, Callable[[np.ndarray], InputScale]] = {
    "image": lambda image: InputScale.of([image]),
    "minmax": InputScale.of_range,
}


def _scale(mean: np.ndarray, deviation: np.ndarray) -> InputScale:
    deviation = np.where(deviation < FLAT, 1.0, deviation)
    return InputScale(tuple(map(float, mean)), tuple(map(float, deviation)))


def _given(text: str, mean: Value, std: Value) -> InputScale:
    assert isinstance(mean, tuple)
    assert isinstance(std, tuple)
    if len(mean) != len(std) or min(std) <= 0:
        raise ConfigError(
            f"data.normalize: {text} cannot be used: give a mean and a positive std for each "
            "channel, of pixels in [0, 1], e.g. fixed(mean=[0.5],std=[0.25])"
        )
    return InputScale(mean, std)
