"""What is in a dataset: levels of its channels, share and shapes of its foreground."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from tinyseg.common.progress import Progress
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.normalize import unit_range
from tinyseg.data.prepare.preprocess import Preprocess
from tinyseg.data.reading.label_map import is_foreground

FINE = 4096
"""Levels of the histogram of a float32 image over [0, 1]; a uint8 image has its own 256."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ImageStats:
    """What is kept of one image; its pixels are let go."""

    size: tuple[int, int]
    counts: np.ndarray
    """Pixels of each level (C, 256), or (C, FINE) for float32; level / last level is the value."""
    limits: np.ndarray
    """Smallest and largest value of each channel (2, C)."""
    foreground: float
    """Share of the pixels that are not ignored; NaN when there are none."""
    areas: tuple[np.ndarray, ...]
    """For each class but 0 the pixels of its connected components (joined by edges)."""


@dataclass(frozen=True)
class ChannelStats:
    """One channel over all pixels of all images, in [0, 1]."""

    mean: float
    std: float
    min: float
    max: float
    p1: float
    median: float
    p99: float


@dataclass(frozen=True)
class ObjectStats:
    """The objects of one class; an object is a connected component, so touching ones are one."""

    count: int
    images: int
    """Images that hold any."""
    per_image: tuple[float, ...]
    """QUANTILES of their number in the images that hold any; () where none does."""
    area: tuple[float, ...]
    """QUANTILES of their pixels."""


@dataclass(frozen=True)
class DatasetStats:
    """The images of a dataset, one by one, and what they are together."""

    source: str
    class_names: tuple[str, ...]
    images: tuple[ImageStats, ...]

    @property
    def channel_names(self) -> tuple[str, ...]:
        return ("red", "green", "blue") if len(self.images[0].counts) == 3 else ("grey",)

    @property
    def channels(self) -> list[ChannelStats]:
        """Statistics of each channel."""
        limits = np.stack([image.limits for image in self.images])
        low, high = limits[:, 0].min(axis=0), limits[:, 1].max(axis=0)
        found = []
        for channel, (values, weights) in enumerate(self.histograms()):
            mean = np.average(values, weights=weights)
            std = np.sqrt(np.average((values - mean) ** 2, weights=weights))
            marks = weighted_quantiles(values, weights, (0.01, 0.5, 0.99))
            numbers = (mean, std, low[channel], high[channel], *marks)
            found.append(ChannelStats(*map(float, numbers)))
        return found

    def histograms(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values in [0, 1] and their pixels, for each channel, over all images."""
        by_levels: dict[int, np.ndarray] = {}
        for image in self.images:
            levels = image.counts.shape[1]
            by_levels[levels] = by_levels.get(levels, 0) + image.counts
        values = np.concatenate([np.linspace(0, 1, levels) for levels in by_levels])
        counts = np.concatenate([*by_levels.values()], axis=1)
        return [(values, row) for row in counts]

    @property
    def empty(self) -> int:
        """Images without any foreground."""
        return sum(image.foreground == 0 for image in self.images)

    @property
    def foreground(self) -> tuple[float, ...]:
        """QUANTILES of the foreground's share of an image, over the images that have any."""
        return _quantiles([image.foreground for image in self.images if image.foreground > 0])

    @property
    def objects(self) -> list[ObjectStats]:
        """The objects of each class but 0."""
        found = []
        for index in range(len(self.class_names) - 1):
            areas = [image.areas[index] for image in self.images if len(image.areas[index])]
            counts, all_areas = [len(a) for a in areas], np.concatenate([np.empty(0), *areas])
            quantiles = (_quantiles(counts), _quantiles(all_areas))
            found.append(ObjectStats(sum(counts), len(areas), *quantiles))
        return found

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        pairs = zip(self.channel_names, self.channels, strict=True)
        objects = zip(self.class_names[1:], self.objects, strict=True)
        sizes = np.array([image.size for image in self.images])
        return {
            "source": self.source,
            "images": len(self.images),
            "smallest": sizes.min(axis=0).tolist(),
            "largest": sizes.max(axis=0).tolist(),
            "channels": {name: vars(channel) for name, channel in pairs},
            "empty": self.empty,
            "quantiles": QUANTILES,
            "foreground": self.foreground,
            "objects": {name: vars(found) for name, found in objects},
        }

    def table(self) -> str:
        """All of it as text."""
        sizes = np.array([image.size for image in self.images])
        (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
        size = f"{low_h} to {high_h} pixels high, {low_w} to {high_w} wide"
        title = f"{self.source}: {len(self.images)} images, {size}"
        return "\n".join([title, *self._level_lines(), "", *self._label_lines()])

    def _level_lines(self) -> list[str]:
        lines = [_row("pixels in [0, 1]", "mean", "std", "min", "1 %", "median", "99 %", "max")]
        for name, c in zip(self.channel_names, self.channels, strict=True):
            values = (c.mean, c.std, c.min, c.p1, c.median, c.p99, c.max)
            lines.append(_row(name, *[f"{value:.3f}" for value in values]))
        return lines

    def _label_lines(self) -> list[str]:
        having = sum(image.foreground > 0 for image in self.images)
        shares = [f"{100 * share:.2f}" for share in self.foreground]
        lines = [
            _row("", "images", "number", "min", "25 %", "median", "75 %", "max"),
            _row("foreground, %", having, "", *shares),
        ]
        for name, found in zip(self.class_names[1:], self.objects, strict=True):
            numbers, areas = ([f"{v:.0f}" for v in q] for q in (found.per_image, found.area))
            lines.append(_row(f"{name[:12]}, objects", found.images, "", *numbers))
            lines.append(_row(f"{name[:12]}, pixels", "", found.count, *areas))
        return [*lines, f"{self.empty} of {len(self.images)} images have no foreground"]


def _row(name: str, *cells: object) -> str:
    return (f"{name:22}" + "".join(f"{cell!s:>8}" for cell in cells)).rstrip()


def open_stats(source: str, config: DataConfig, like: DatasetStats | None = None) -> DatasetStats:
    """The statistics of a dataset, read as the settings say, with the channels of another."""
    channels = len(like.images[0].counts) if like else None
    with Progress(f"reading {source}") as progress:
        dataset = Dataset(source, config, channels=channels, progress=progress.update)
    return dataset_stats(dataset, Preprocess(config.preprocess))


def dataset_stats(dataset: Dataset, preprocess: Preprocess) -> DatasetStats:
    """Reads all images of a dataset once, preprocessed as they would be for training."""
    images = []
    with Progress(f"measuring {dataset.source}", len(dataset)) as progress:
        for index in range(len(dataset)):
            sample = dataset[index]
            images.append(image_stats(preprocess(sample.image), sample.label, dataset.classes))
            progress.update(index + 1)
    return DatasetStats(dataset.source, dataset.class_names, tuple(images))


def image_stats(image_hwc: np.ndarray, label_hw: np.ndarray | None, classes: int) -> ImageStats:
    """The statistics of one image (H, W, C) and its label (H, W)."""
    whole = image_hwc.dtype == np.uint8
    placed = image_hwc if whole else np.rint(image_hwc * (FINE - 1)).astype(np.uint16)
    planes = placed.reshape(-1, image_hwc.shape[2]).T
    counts = np.stack([np.bincount(plane, minlength=256 if whole else FINE) for plane in planes])
    ends = np.stack([image_hwc.min(axis=(0, 1)), image_hwc.max(axis=(0, 1))])
    if label_hw is None:
        label_hw = np.full(image_hwc.shape[:2], IGNORE, np.uint8)
    counted = int((label_hw != IGNORE).sum())
    share = float(is_foreground(label_hw).sum()) / counted if counted else np.nan
    areas = tuple(object_areas(label_hw == kind) for kind in range(1, classes))
    return ImageStats(
        (image_hwc.shape[0], image_hwc.shape[1]), counts, unit_range(ends), share, areas
    )


def object_areas(mask_hw: np.ndarray) -> np.ndarray:
    """Pixels of each connected component; corners do not connect."""
    return np.bincount(ndimage.label(mask_hw)[0].ravel())[1:]


def _quantiles(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    if not len(values):
        return ()
    return tuple(map(float, np.quantile(np.asarray(values, np.float64), QUANTILES)))


def weighted_quantiles(
    values: np.ndarray, weights: np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """The smallest value with at least each share of the weight at or below it."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    found = np.searchsorted(below, np.asarray(shares) * below[-1])
    return np.asarray(values[order][found])
