"""Images of any size to probabilities: the one path of validation, evaluation and prediction."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyseg.backend import Array, upload
from tinyseg.data import Box, fit_image, unfit
from tinyseg.errors import DataError, NonFiniteError
from tinyseg.step import PredictStep


@dataclass(frozen=True)
class InputScale:
    """What brings pixels to the network: (pixel - mean) / deviation, per channel, on [0, 1]."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @staticmethod
    def of(images: Iterable[Array]) -> "InputScale":
        """Mean and standard deviation of each channel over (H, W, C) images."""
        sums, squares, count = 0.0, 0.0, 0
        for image in images:
            pixels = unit_range(image).reshape(-1, image.shape[-1]).astype(np.float64)
            sums = sums + pixels.sum(axis=0)
            squares = squares + np.square(pixels).sum(axis=0)
            count += len(pixels)
        mean = np.asarray(sums) / count
        deviation = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
        # an image of one flat grey has no deviation to divide by
        deviation = np.where(deviation < 1e-4, 1.0, deviation)
        return InputScale(tuple(map(float, mean)), tuple(map(float, deviation)))

    def apply(self, images_bhwc: Array) -> Array:
        """Images (B, H, W, C) as stored to (B, C, H, W) float32 at the network's door."""
        mean, deviation = (np.array(v, np.float32) for v in (self.mean, self.deviation))
        scaled = (unit_range(images_bhwc) - mean) / deviation
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def unit_range(image: Array) -> Array:
    """uint8 pixels to float32 in [0, 1]; float32 pixels are there already."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if image.dtype.kind != "f":
        raise DataError(f"pixels are uint8, or float in [0, 1], not {image.dtype}; convert them")
    return image


class Predictor:
    """Probabilities at the original size of each image, computed at one compiled shape."""

    def __init__(
        self, model: Any, scale: InputScale, size: int, fit: str, batch: int = 4, jit: bool = True
    ):
        self.scale, self.size, self.fit, self.batch = scale, size, fit, batch
        self.step = PredictStep(model, jit=jit)

    def __call__(self, images: Iterable[Array]) -> Iterator[Array]:
        """For each image (H, W, C): probabilities (K, H, W) float32; a batch is read at a time."""
        fitted: list[tuple[Array, Box]] = []
        for image in images:
            fitted.append(fit_image(image, self.size, self.fit))
            if len(fitted) == self.batch:
                yield from self._run(fitted)
                fitted = []
        if fitted:
            yield from self._run(fitted)

    def _run(self, fitted: list[tuple[Array, Box]]) -> Iterator[Array]:
        squares = np.stack([unit_range(square) for square, _ in fitted])
        # the compiled shape is kept: a short batch is filled with its own first image
        squares = np.concatenate([squares, squares[:1].repeat(self.batch - len(squares), axis=0)])
        p_bkhw = self.step(upload(self.scale.apply(squares))).numpy()
        if not np.isfinite(p_bkhw).all():
            raise NonFiniteError(
                "the network's output is not finite: its weights are too large, or an image holds "
                "NaN; train anew with a lower learning rate or train.clip=1"
            )
        for p_khw, (_, box) in zip(p_bkhw, fitted, strict=False):
            yield unfit(p_khw, box)


def to_classes(p_khw: Array, threshold: float = 0.5) -> Array:
    """(H, W) uint8 class ids: probability >= threshold (K = 1), else the most probable class."""
    if p_khw.shape[0] == 1:
        return np.asarray(p_khw[0] >= threshold).astype(np.uint8)
    return np.asarray(p_khw.argmax(axis=0)).astype(np.uint8)
