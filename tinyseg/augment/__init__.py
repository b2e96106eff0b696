"""Layer 3: augmentation inside the step, and the proof that any pipeline keeps its labels."""

from tinyseg.augment.alignment import Alignment, alignment
from tinyseg.augment.augmentation import Augmentation
from tinyseg.augment.transforms import PRESETS, TRANSFORMS

__all__ = ["PRESETS", "TRANSFORMS", "Alignment", "Augmentation", "alignment"]
