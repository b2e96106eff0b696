"""Images and masks in memory, read like those of files."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.common.threads import Progress, in_threads
from tinyseg.data.reading.cases import CaseFacts, check_values, describe
from tinyseg.data.reading.layouts import Case
from tinyseg.data.reading.mask_pixels import Mask, whole_numbers
from tinyseg.data.reading.pixel_range import Ranges, extent, to_unit
from tinyseg.data.reading.tiff import MOST_CHANNELS
from tinyseg.data.sample import name_some
from tinyseg.data.storage.store import NamedArrays
from tinyseg.errors import DataError


class Arrays:
    """Images and masks as cases, checked; reads them like `CaseReader`."""

    def __init__(
        self,
        images: Iterable[Any],
        masks: Iterable[Any],
        names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Check shapes, types and values; see `Dataset.from_arrays`."""
        images, masks = list(images), list(masks)
        if len(images) != len(masks) or not images:
            raise DataError(
                f"{len(images)} images and {len(masks)} masks; give one mask for each image"
            )
        self.class_names = tuple(class_names or ())
        self.cases = [
            Case(name, Path(f"images[{index}]"), (Path(f"masks[{index}]"),))
            for index, name in enumerate(_names(names, len(images)))
        ]
        self._pairs = [
            (to_image(case.image, np.asarray(image)), _mask(case, np.asarray(mask)))
            for case, image, mask in zip(self.cases, images, masks, strict=True)
        ]
        self._read: dict[int, tuple[NamedArrays, CaseFacts]] = {}
        self.contents = [(_digest(*pair),) for pair in self._pairs]
        """A digest of each image with its mask."""

    def scan(self, table: Mapping[int, int] | None, progress: Progress | None) -> list[CaseFacts]:
        """Return the facts of all cases; mask values are checked when `table` is given."""

        def scan(index: int) -> CaseFacts:
            image, mask = self._pairs[index]
            self._read[index] = describe(self.cases[index], image, [Mask(mask)])
            facts = self._read[index][1]
            if table is not None:
                check_values(facts, table)
            return facts

        return list(in_threads(scan, range(len(self.cases)), progress))

    def read(self, index: int) -> tuple[NamedArrays, CaseFacts]:
        """Return the arrays of `describe`; the image is a view that may be frozen."""
        arrays, facts = self._read[index]
        return {**arrays, "image": arrays["image"].view()}, facts


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"image_{index}" for index in range(count)]
    listed = list(names)
    if len(listed) != count or not all(isinstance(name, str) and name for name in listed):
        raise DataError(f"{len(listed)} names for {count} images; give one text for each image")
    twice = [name for name, times in Counter(listed).items() if times > 1]
    if twice:
        raise DataError(f"names that appear twice: {name_some(twice)}; give each image its own")
    return listed


def to_image(name: object, image: np.ndarray, ranges: Ranges | None = None) -> np.ndarray:
    """Return an image in memory as (H, W, C): uint8, or float32 in [0, 1]; DataError for others.

    Its values are as in the files of a dataset with these `ranges`, if it has one for them.
    """
    first = image.ndim == 3 and image.shape[0] < min(image.shape[1:]) and image.shape[0] <= 16
    few = image.ndim == 3 and image.shape[2] <= MOST_CHANNELS
    if image.size == 0 or (image.ndim != 2 and (not few or (first and image.shape[2] > 16))):
        raise DataError(f"{name} has the shape {image.shape}; give (H, W) or (H, W, channels)")
    image = image.reshape(*image.shape[:2], -1)
    if ranges and image.dtype.kind in "uif" and extent(image).kind in ranges:
        return to_unit(image, ranges)
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise DataError(f"{name} is {image.dtype}; give uint8, uint16, or floats from 0 to 1")
    if image.dtype.kind == "f" and not (image.min() >= 0 and image.max() <= 1):
        raise DataError(
            f"{name} has values from {image.min():g} to {image.max():g}; floats must be "
            "from 0 to 1: divide by 255, or give uint8"
        )
    if image.dtype == np.uint16:
        image = image.astype(np.float64) / 65535
    return image.astype(np.uint8 if image.dtype == np.uint8 else np.float32, copy=False)


def _mask(case: Case, mask: np.ndarray) -> np.ndarray:
    """(H, W): uint8, or int32 when there are larger values."""
    path = case.masks[0]
    if mask.ndim != 2:
        raise DataError(f"{path} has the shape {mask.shape}; give (H, W), a class id per pixel")
    if mask.dtype.kind not in "buif":
        raise DataError(f"{path} is {mask.dtype}; give integers or bools, e.g. mask > 0.5")
    if not mask.size:
        return mask.astype(np.uint8)
    try:
        values, _ = whole_numbers(mask, unsigned=False)
    except ValueError as error:
        low, high = mask.min(), mask.max()
        raise DataError(f"{path} has values from {low:g} to {high:g}; {error}") from None
    return values.astype(np.uint8) if values.max() <= 255 else values


def _digest(image: np.ndarray, mask: np.ndarray) -> bytes:
    whole = hashlib.sha256(repr((image.shape, image.dtype.str)).encode())
    whole.update(image.tobytes())
    whole.update(mask.astype(np.int32).tobytes())
    return whole.digest()
