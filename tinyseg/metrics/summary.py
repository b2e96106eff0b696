"""The scores of one image, and of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyseg.config import IGNORE
from tinyseg.errors import DataError
from tinyseg.metrics.pixel import Counts, Floats, Map, confusion, mean, scores
from tinyseg.metrics.surface import surface_distances


@dataclass(frozen=True)
class ImageScores:
    """What one image gives."""

    matrix: Counts
    """Confusion matrix (K,K)."""
    distances: dict[str, Floats]
    """"hd95" and "assd" per class (K,), when surfaces were asked for."""

    @property
    def values(self) -> dict[str, Floats]:
        """All measures per class (K,); Dice of a class that only the prediction has is 0."""
        return {**scores(self.matrix), **self.distances}

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which classes the label has, (K,)."""
        return np.asarray(self.matrix.sum(1) > 0)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: per measure the mean and the classes."""
        return {name: _json(values) for name, values in self.values.items()}


def evaluate_image(
    prediction: Map,
    label: Map,
    classes: int,
    *,
    surface: bool = False,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> ImageScores:
    """Compares class maps (H,W); `surface` adds the surface distances, which take far longer.

    Ignored pixels belong to no class, so they also bound the surfaces.
    """
    matrix = confusion(prediction, label, classes)
    if not surface:
        return ImageScores(matrix, {})
    valid = label != IGNORE
    pairs = [((prediction == k) & valid, label == k) for k in range(classes)]
    found = np.array([surface_distances(*pair, spacing) for pair in pairs])
    return ImageScores(matrix, {"hd95": found[:, 0], "assd": found[:, 1]})


@dataclass(frozen=True)
class Summary:
    """What many images give; every array is per class (K,)."""

    images: int
    """Images with at least one labeled pixel."""
    pooled: dict[str, Floats]
    """MEASURES of the pixels of all images together."""
    per_image: dict[str, Floats]
    """Mean over images. Dice, IoU and the distances: over the images whose label has the class;
    `dice_or_one` and `iou_or_one`: over all, where an empty label gives 1 if the prediction is
    empty too, else 0. Distances are left out where the prediction is empty, see `missed`."""
    empty: Counts
    """Images whose label does not have the class."""
    false_area: Floats
    """Share of the pixels of those images that are predicted as the class (mean of the shares)."""
    missed: Counts
    """Images whose label has the class and whose prediction does not."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: per measure the mean over foreground classes, and the classes."""
        return {
            "images": self.images,
            "pooled": {name: _json(values) for name, values in self.pooled.items()},
            "per_image": {name: _json(values) for name, values in self.per_image.items()},
            "empty_images": self.empty.tolist(),
            "false_positive_area": _json(self.false_area),
            "missed_images": self.missed.tolist(),
        }


def summarize(images: Sequence[ImageScores]) -> Summary:
    """Pools images and takes means over them; wholly ignored images count nowhere.

    Without a single labeled pixel there is nothing to measure: DataError.
    """
    images = [image for image in images if image.matrix.any()]
    if not images:
        raise DataError("no image has a labeled pixel, so there is nothing to measure: add labels")
    matrices = np.stack([image.matrix for image in images])
    present = np.stack([image.present for image in images])
    predicted = matrices.sum(1)
    pixels = matrices.sum((1, 2))[:, None]
    false_area = np.where(present, np.nan, predicted / pixels)
    return Summary(
        images=len(images),
        pooled=scores(matrices.sum(0)),
        per_image=_per_image(images, present, predicted > 0),
        empty=(~present).sum(0),
        false_area=mean(false_area),
        missed=(present & (predicted == 0)).sum(0),
    )


def _per_image(
    images: Sequence[ImageScores], present: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> dict[str, Floats]:
    every = [image.values for image in images]
    table = {name: np.stack([values[name] for values in every]) for name in every[0]}
    for name in ("dice", "iou"):
        table[f"{name}_or_one"] = np.where(present, table[name], ~predicted)
    for name in {"dice", "iou", "hd95", "assd"} & table.keys():
        table[name] = np.where(present, table[name], np.nan)
    return {name: mean(values) for name, values in table.items()}


def foreground_mean(values: Floats) -> float:
    """Return the mean of a measure (K,) over the classes from 1 up in which it exists, or nan."""
    return float(mean(values[1:]))


def _json(values: Floats) -> dict[str, Any]:
    numbers = [foreground_mean(values), *values.tolist()]
    first, *classes = [None if np.isnan(number) else number for number in numbers]
    return {"mean": first, "classes": classes}
