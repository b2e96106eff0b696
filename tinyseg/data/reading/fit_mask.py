"""Bring a mask to its image: turned as EXIF turns it, or scaled where the aspect is equal."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.data.reading.agreement import agreement
from tinyseg.data.reading.mask_pixels import Mask
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

LEAST_SIDE = 32
"""Pixels from which one more or less is no other aspect."""
SURE = 4.0
"""Standard errors by which turned masks must fit better, or worse, to be sure."""
LEAST_GAIN = 0.02
"""And the share of the labels that the images explain more, or less."""
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap rows and columns."""


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W) turned as EXIF says that pixels are turned to be upright."""
    mirrored = {2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1]}
    sideways = {5: pixels.T, 6: pixels.T[:, ::-1], 7: pixels.T[::-1, ::-1], 8: pixels.T[::-1]}
    return np.ascontiguousarray((mirrored | sideways).get(orientation, pixels))


def fit_mask(mask: Mask, size: tuple[int, ...], orientation: int, path: Path, image: Path) -> Mask:
    """Return a mask at the size (H, W) of its upright image; DataError where it does not fit.

    A mask that fits only as the pixels of the image are stored is turned. One of another size but
    the same aspect, to a pixel, is scaled by nearest neighbor.
    """
    pixels, remarks = mask.pixels, [mask.remark]
    on_side = _alike(pixels.shape[::-1], size) and not _alike(pixels.shape, size)
    if on_side and orientation in SIDEWAYS:
        pixels = turn(pixels, orientation)
        remarks.append("turned")
    if pixels.shape == size:
        return mask._replace(pixels=pixels, remark=" ".join(filter(None, remarks)))
    if not _alike(pixels.shape, size):
        (rows, columns), (height, width) = pixels.shape, size
        turned = " (the mask lies on its side: is the photo turned by its EXIF tag?)" * on_side
        raise DataError(
            f"{path}: the mask is {rows} x {columns} pixels but {image} is {height} x {width}"
            f"{turned}; export both at one size"
        )
    places = [
        ((np.arange(wanted) + 0.5) * own / wanted).astype(int)
        for own, wanted in zip(pixels.shape, size, strict=True)
    ]
    remarks.append("scaled")
    return mask._replace(pixels=pixels[np.ix_(*places)], remark=" ".join(filter(None, remarks)))


def _alike(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Return whether two sizes have one aspect: exactly, or to a pixel of the smaller one."""
    (rows, columns), (height, width) = sorted((shape[:2], size[:2]))
    if rows * width == columns * height:
        return True
    off = min(abs(rows - columns * height / width), abs(columns - rows * width / height))
    return min(rows, columns) >= LEAST_SIDE and off <= 1


@dataclass(frozen=True)
class Turned:
    """An image that EXIF turns, whose mask has a size that fits turned or not."""

    orientation: int = 1
    upright: float = 0.0
    """Share of the label that the image explains where it is, see `agreement`."""
    stored: float = 0.0
    """The same of the label turned with the image."""

    @staticmethod
    def from_json(facts: Mapping[str, Any]) -> "Turned":
        """Read what `dataclasses.asdict` returned."""
        return Turned(**facts)


def look_turned(image_hwc: np.ndarray, sets_hw: np.ndarray, orientation: int) -> Turned:
    """Return how well the label of a turned image fits, as it is and turned."""
    turned = turn(sets_hw, orientation)
    if orientation not in range(2, 9) or turned.shape != sets_hw.shape or not sets_hw.any():
        return Turned()
    return Turned(orientation, agreement(image_hwc, sets_hw), agreement(image_hwc, turned))


def find_turned(
    looks: Mapping[str, Turned], choice: str
) -> tuple[frozenset[str], list[str], list[str]]:
    """Return the names whose labels are to be turned with their image; warnings, and notes.

    `choice` is data.exif: upright, stored, or auto, which decides by the agreement of all.
    """
    both = {name: look for name, look in looks.items() if look.orientation != 1}
    names = list(both)
    if not both:
        return frozenset(), [], []
    if choice != "auto":
        return frozenset(names if choice == "stored" else ()), [], []
    gains = np.array([look.stored - look.upright for look in both.values()])
    spread = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 2 else np.inf
    sure = abs(gains.mean()) > max(SURE * spread, LEAST_GAIN)
    what = f"{len(names)} images ({name_some(names)}) are turned by EXIF, and their masks fit "
    upright, stored = np.mean([(look.upright, look.stored) for look in both.values()], axis=0)
    shares = f"(the images explain {stored:.0%} of them so, {upright:.0%} upright)"
    if sure and gains.mean() > 0:
        what += f"as the pixels are stored {shares}: they are turned with the images"
        return frozenset(names), [f"{what}; if they are upright set data.exif=upright"], []
    if sure:
        return frozenset(), [], [f"{what}upright"]
    what += f"turned or not {shares}: taken as upright"
    return frozenset(), [f"{what}; if they lie as the pixels are stored set data.exif=stored"], []
