"""The label of an image that is drawn: from polygons, run lengths, or masks with their own names.

The formats are read in `tinyseg.data.annotations`; cases only need to draw one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says of one image."""

    draw: Callable[[Size], np.ndarray]
    """Return class ids (H, W) uint8, 255 = ignored, for an image of H rows and W columns;
    DataError names the file and what is wrong in it."""
    key: str
    """A digest of all that shapes the label beyond the content of the case's files."""
    size: Size | None = None
    """Rows and columns that the file gives for the image; None where it gives none."""
    image: Callable[[], np.ndarray] | None = None
    """Return the image (H, W, C) as stored, where it is in no image file."""
