"""Run a pipeline of another package on the host, image by image."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinyseg.augment.alignment import Pipeline
from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE
from tinyseg.errors import ConfigError, StepError


class Albumentations:
    """An Albumentations pipeline (`A.Compose`) as a pipeline (image, label) -> (image, label).

    It is seeded for every image, so that a resumed run goes on with the same random numbers.
    Nothing of Albumentations is imported here: `pip install "tinyseg[albumentations]"` brings it.
    """

    def __init__(self, transform: Callable[..., Any]):
        """`transform` is called as `transform(image=..., mask=...)`; ConfigError if it cannot."""
        if not callable(getattr(transform, "set_random_seed", None)):
            raise ConfigError(
                f"{type(transform).__name__} is no Albumentations pipeline: give an A.Compose of "
                'albumentations 2 (pip install "tinyseg[albumentations]")'
            )
        self.transform: Any = transform

    def __call__(self, image_hwc: Array, label_hw: Array) -> tuple[Array, Array]:
        result = self.transform(image=image_hwc, mask=label_hw)
        return result["image"], result["mask"]

    def seed(self, number: int) -> None:
        """Seed what follows with a number from 0 to 2^32 - 1."""
        self.transform.set_random_seed(number)


def on_host(
    pipeline: Pipeline, image_hwc: Array, label_hw: Array, classes: int, seed: int
) -> tuple[Array, Array]:
    """Run one image and its label through a pipeline; StepError if the result cannot be used.

    A pipeline with a method `seed(number)` is seeded first. Shapes and types must stay
    the same, floats in [0, 1] and labels class ids or 255.
    """
    if callable(reseed := getattr(pipeline, "seed", None)):
        reseed(seed)
    image, label = (np.asarray(result) for result in pipeline(image_hwc.copy(), label_hw.copy()))
    for what, new, old in (("image", image, image_hwc), ("label", label, label_hw)):
        if (new.shape, new.dtype) != (old.shape, old.dtype):
            raise StepError(
                f"the pipeline made {new.dtype} {new.shape} of the {what} {old.dtype} "
                f"{old.shape}; it must keep both"
            )
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise StepError(
            f"the pipeline made pixels from {image.min():g} to {image.max():g}: keep [0, 1]"
        )
    wrong = [int(value) for value in np.unique(label) if classes <= value != IGNORE]
    if wrong:
        raise StepError(
            f"the pipeline made label values {wrong[:5]}: masks need nearest neighbor, and a "
            f"fill of 0 to {classes - 1} or {IGNORE}"
        )
    return image, label
