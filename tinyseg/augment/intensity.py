"""Change pixel values: optics and resolution, then tone and noise, then holes.

Strengths are in units of an image's own statistics, so that they mean the same however images are
normalized: mean, std and range of each channel, as they were before it was sampled.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.augment.sampling import Draw


def _pixels(value: Tensor) -> Tensor:
    """Shape a number for each sample (B,) so that it broadcasts over images."""
    return value.reshape(-1, 1, 1, 1)


# 1. Blur and resolution: one filter along rows and columns


@dataclass(frozen=True)
class Optics:
    """A Gaussian blur, then sampling on a coarser grid and back: one filter along each axis."""

    variance: Tensor | float = 0.0
    """Variance of the blur, in pixels squared."""
    zoom: Tensor | float = 1.0
    """Samples per pixel, at most 1."""
    largest: float = 0.0
    """The largest variance that may be drawn, and below the smallest zoom."""
    smallest: float = 1.0

    def __add__(self, other: "Optics") -> "Optics":
        return Optics(
            self.variance + other.variance,
            self.zoom * other.zoom,
            self.largest + other.largest,
            self.smallest * other.smallest,
        )

    def __call__(self, image: Tensor) -> Tensor:
        weights = functools.cache(lambda size: self.weights(int(image.shape[0]), size))
        return kernels.smooth(image, *(weights(int(size)) for size in image.shape[2:]))

    def weights(self, batch: int, size: int) -> Tensor:
        """Return the weights (B, taps, size) of the neighbors of each place.

        A pixel lies between two samples of the coarser grid, a sample between two pixels, and each
        of these is a Gaussian mean; its variance is the blur's plus what a wider sensor element
        adds. So no place moves, and without blur and zoom every weight is 0 or 1.
        """
        zoom, blurred = (_sample(value, batch) for value in (self.zoom, self.variance))
        place, two = Tensor.arange(size).reshape(1, 1, 1, 1, size), Tensor.arange(2)
        on_grid = (place + 0.5) * zoom - 0.5
        number = on_grid.floor() + two.reshape(1, 2, 1, 1, 1)
        last = (size * zoom - 0.5).ceil() - 1
        source = ((number.maximum(0).minimum(last) + 0.5) / zoom - 0.5).clip(0, size - 1)
        center = source.floor() + two.reshape(1, 1, 2, 1, 1)
        share = (1 - (on_grid - number).abs()) * (1 - (source - center).abs())
        center, share = (
            each.expand(batch, 2, 2, 1, size).reshape(batch, 4, 1, size).contiguous()
            for each in (center.minimum(size - 1), share)
        )
        reach = self.reach(size)
        taps = Tensor.arange(-reach, reach + 1).reshape(1, 1, -1, 1)
        neighbor = place.reshape(1, 1, 1, size) + taps
        variance = (blurred + _wider(zoom)).maximum(1e-4).reshape(batch, 1, 1, 1)
        weight = ((neighbor - center).square() / (-2 * variance)).exp()
        weight = ((neighbor >= 0) & (neighbor < size)).where(weight, 0.0).contiguous()
        return (weight * (share / weight.sum(axis=2, keepdim=True))).sum(axis=1).contiguous()

    def reach(self, size: int) -> int:
        """Return how far away a neighbor may count: three std from the farther sample."""
        reach = 3 * math.sqrt(self.largest + _wider(self.smallest))
        between = 1 / self.smallest + 1 if self.smallest < 1 else 0
        return min(math.ceil(reach + between), size - 1)


def _wider(zoom: Any) -> Any:
    """Return the variance of a square of 1 / zoom pixels, less that of one pixel."""
    return (1 / (zoom * zoom) - 1) / 12


def _sample(value: Tensor | float, batch: int) -> Tensor:
    tensor = value if isinstance(value, Tensor) else Tensor.full((batch,), value)
    return tensor.reshape(batch, 1, 1, 1, 1)


def blur(draw: Draw, low: float = 0.5, high: float = 1.0) -> Optics:
    """Blur by a Gaussian; its sigma is uniform between low and high, in pixels."""
    return Optics(draw.gate(draw.uniform(low, high).square(), 0.0), largest=high**2)


def lowres(draw: Draw, low: float = 0.5) -> Optics:
    """Lower the resolution to low to 1 times the rows and columns, and interpolate back."""
    return Optics(zoom=draw.between(low, 1.0, 1.0), smallest=low)


# 2. Tone and noise: pixel by pixel


@dataclass(frozen=True)
class Statistics:
    """Statistics of each channel of each sample (B, C, 1, 1)."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    @staticmethod
    def of(image: Tensor) -> "Statistics":
        """Return the statistics of images (B, C, H, W)."""
        axes = {"axis": (2, 3), "keepdim": True}
        mean = image.mean(**axes).contiguous()
        std = (image - mean).square().mean(**axes).sqrt()
        rest = std, image.min(**axes), image.max(**axes)
        return Statistics(mean, *(each.contiguous() for each in rest))


@dataclass(frozen=True)
class Tone:
    """A change of each pixel, from its value and its image's statistics."""

    change: Callable[[Tensor, Statistics], Tensor]


def gamma(draw: Draw, low: float = 0.7, high: float = 1.5) -> Tone:
    """Apply a power curve over the image's own range; the exponent's logarithm is uniform."""
    exponent = _pixels(draw.gate(draw.uniform(math.log2(low), math.log2(high)).exp2(), 1.0))

    def change(x: Tensor, own: Statistics) -> Tensor:
        span = (own.high - own.low).maximum(1e-6)
        share = ((x - own.low) / span).clip(1e-6, 1.0)
        curved = (share.log2() * exponent).exp2() * span + own.low
        return (exponent == 1).where(x, curved)

    return Tone(change)


def contrast(draw: Draw, low: float = 0.75, high: float = 1.25) -> Tone:
    """Stretch the values around the image's own mean by a factor."""
    more = _pixels(draw.between(low - 1, high - 1, 0.0))
    return Tone(lambda x, own: x + (x - own.mean) * more)


def brightness(draw: Draw, amount: float = 0.3) -> Tone:
    """Add up to +-amount std to all values of an image."""
    shift = _pixels(draw.between(-amount, amount, 0.0))
    return Tone(lambda x, own: x + own.std * shift)


def noise(draw: Draw, std: float = 0.2) -> Tone:
    """Add normal noise to every pixel; its std is up to `std` times the image's own."""
    strength = _pixels(draw.between(0.0, std, 0.0))

    def change(x: Tensor, own: Statistics) -> Tensor:
        pixels = int(x.shape[1] * x.shape[2] * x.shape[3])
        return x + draw.normal(pixels).reshape(*x.shape) * (own.std * strength)

    return Tone(change)


# 3. Holes


@dataclass(frozen=True)
class Cutout:
    """A square hole: its middle and half its side, in fractions of the image."""

    row: Tensor
    column: Tensor
    half: Tensor

    def __call__(self, rows: int, columns: int) -> Tensor:
        """Return which pixels are in the hole (B, rows, columns)."""
        down = (Tensor.arange(rows) + 0.5) / rows - self.row.reshape(-1, 1)
        right = (Tensor.arange(columns) + 0.5) / columns - self.column.reshape(-1, 1)
        half = self.half.reshape(-1, 1, 1)
        return (down.abs().unsqueeze(2) < half) & (right.abs().unsqueeze(1) < half)


def cutout(draw: Draw, side: float = 0.3) -> Cutout:
    """Fill a square of up to `side` times the image's with its mean, and ignore its label.

    DeVries & Taylor 2017; there, for classification, the label stays.
    """
    half = draw.between(0.0, side / 2, 0.0)
    return Cutout(draw.uniform(), draw.uniform(), half)
