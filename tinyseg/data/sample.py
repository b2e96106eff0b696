"""One image with its label; and how messages name several of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Sample:
    """An image at its original size, and its label when there is one."""

    name: str
    """Unique in the dataset, without extension, "/" between folder and file."""
    image: np.ndarray
    """(H, W, C) uint8, or float32 in [0, 1] when the file is deeper than 8 bits."""
    label: np.ndarray | None
    """(H, W) uint8 class ids, 255 where ignored."""
    files: tuple[Path, ...] = ()
    """The image file, then its mask files; empty when simulated in memory."""

    @property
    def bytes(self) -> int:
        """Memory of the pixels."""
        return self.image.nbytes + (0 if self.label is None else self.label.nbytes)


def name_some(things: Iterable[object], most: int = 3) -> str:
    """Return the first few as text: "a, b, c and 5 more"."""
    texts = [str(thing) for thing in things]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
