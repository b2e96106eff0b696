"""Augment images and labels together.

A setting's text and batches on the device come in, augmented batches go out (`Augmentation`); or
a user's own pipeline runs on the host, image by image (`on_host`). `alignment` tests that any
pipeline moves image and label alike. Nothing here knows of datasets, losses or networks.
"""

from tinyseg.augment.alignment import Alignment, Pipeline, alignment
from tinyseg.augment.augmentation import Augmentation
from tinyseg.augment.host import Albumentations, on_host
from tinyseg.augment.transforms import PRESETS, TRANSFORMS

__all__ = [
    "PRESETS",
    "TRANSFORMS",
    "Albumentations",
    "Alignment",
    "Augmentation",
    "Pipeline",
    "alignment",
    "on_host",
]
