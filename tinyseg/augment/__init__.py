"""Layer 3: augmentation inside the step, and the proof that any pipeline keeps its labels."""

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
