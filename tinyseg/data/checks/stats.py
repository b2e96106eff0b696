"""Measure a dataset: pixel values of its channels, share and objects of its foreground."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from tinyseg.common.progress import Progress
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.input_statistics import channel_names
from tinyseg.data.prepare.normalize import unit_range
from tinyseg.data.prepare.preprocess import Preprocess
from tinyseg.data.reading.label_map import is_foreground

FINE = 4096
"""Bins of the histogram of a float32 image over [0, 1]; a uint8 image has 256."""
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class ImageStats:
    """The statistics of one image; its pixels are not kept."""

    size: tuple[int, int]
    counts: np.ndarray
    """Pixels of each level (C, 256), or (C, FINE) for float32; level / last level is the value."""
    limits: np.ndarray
    """Smallest and largest value of each channel (2, C)."""
    foreground: float
    """Share of the pixels that are not ignored; NaN when there are none."""
    areas: tuple[np.ndarray, ...]
    """For each class but 0 the pixels of its connected components (joined by edges)."""


class ChannelStats(NamedTuple):
    """One channel over all pixels of all images, in [0, 1]."""

    mean: float
    std: float
    min: float
    p1: float
    median: float
    p99: float
    max: float


@dataclass(frozen=True)
class ObjectStats:
    """The objects of one class; an object is a connected component, so touching ones are one."""

    count: int
    images: int
    """The number of images that hold any."""
    per_image: tuple[float, ...]
    """QUANTILES of their number in the images that hold any; () if none does."""
    area: tuple[float, ...]
    """QUANTILES of their pixels."""


@dataclass(frozen=True)
class DatasetStats:
    """The statistics of the images of a dataset, one by one and all together."""

    source: str
    class_names: tuple[str, ...]
    images: tuple[ImageStats, ...]

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the channels."""
        return channel_names(len(self.images[0].counts))

    @property
    def channels(self) -> dict[str, ChannelStats]:
        """Statistics of each channel, by its name."""
        limits = np.stack([image.limits for image in self.images])
        low, high = limits[:, 0].min(axis=0), limits[:, 1].max(axis=0)
        channels = {}
        for index, (values, weights) in enumerate(self.histograms()):
            mean = np.average(values, weights=weights)
            std = np.sqrt(np.average((values - mean) ** 2, weights=weights))
            p1, median, p99 = weighted_quantiles(values, weights, (0.01, 0.5, 0.99))
            numbers = (mean, std, low[index], p1, median, p99, high[index])
            channels[self.channel_names[index]] = ChannelStats(*map(float, numbers))
        return channels

    def histograms(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return values in [0, 1] and their pixels, for each channel, over all images."""
        by_levels: dict[int, np.ndarray] = {}
        for image in self.images:
            levels = image.counts.shape[1]
            by_levels[levels] = by_levels.get(levels, 0) + image.counts
        values = np.concatenate([np.linspace(0, 1, levels) for levels in by_levels])
        counts = np.concatenate([*by_levels.values()], axis=1)
        return [(values, row) for row in counts]

    @property
    def empty(self) -> int:
        """The number of images without any foreground."""
        return sum(image.foreground == 0 for image in self.images)

    @property
    def foreground(self) -> tuple[float, ...]:
        """QUANTILES of the foreground's share of an image, over the images that have any."""
        return _quantiles([image.foreground for image in self.images if image.foreground > 0])

    @property
    def objects(self) -> dict[str, ObjectStats]:
        """The objects of each class but the background, by its name."""
        objects = {}
        for index, name in enumerate(self.class_names[1:]):
            areas = [image.areas[index] for image in self.images if len(image.areas[index])]
            counts, all_areas = [len(a) for a in areas], np.concatenate([np.empty(0), *areas])
            quantiles = (_quantiles(counts), _quantiles(all_areas))
            objects[name] = ObjectStats(sum(counts), len(areas), *quantiles)
        return objects

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON file holds."""
        sizes = np.array([image.size for image in self.images])
        return {
            "source": self.source,
            "images": len(self.images),
            "smallest": sizes.min(axis=0).tolist(),
            "largest": sizes.max(axis=0).tolist(),
            "channels": {name: channel._asdict() for name, channel in self.channels.items()},
            "empty": self.empty,
            "quantiles": QUANTILES,
            "foreground": self.foreground,
            "objects": {name: vars(objects) for name, objects in self.objects.items()},
        }

    def table(self) -> str:
        """Return all of it as text."""
        sizes, count = np.array([image.size for image in self.images]), len(self.images)
        (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
        size = f"{low_h} to {high_h} pixels high, {low_w} to {high_w} wide"
        rows = [_row("pixels in [0, 1]", "mean", "std", "min", "1 %", "median", "99 %", "max")]
        for name, channel in self.channels.items():
            rows.append(_row(name, *[f"{value:.3f}" for value in channel]))
        having = sum(image.foreground > 0 for image in self.images)
        shares = [f"{100 * share:.2f}" for share in self.foreground]
        rows += ["", _row("", "images", "number", "min", "25 %", "median", "75 %", "max")]
        rows.append(_row("foreground, %", having, "", *shares))
        for name, objects in self.objects.items():
            numbers, areas = ([f"{v:.0f}" for v in q] for q in (objects.per_image, objects.area))
            rows.append(_row(f"{name[:12]}, objects", objects.images, "", *numbers))
            rows.append(_row(f"{name[:12]}, pixels", "", objects.count, *areas))
        title = f"{self.source}: {count} images, {size}"
        return "\n".join([title, *rows, f"{self.empty} of {count} images have no foreground"])


def _row(name: str, *cells: object) -> str:
    return (f"{name:22}" + "".join(f"{cell!s:>8}" for cell in cells)).rstrip()


def open_stats(source: str, config: DataConfig, like: DatasetStats | None = None) -> DatasetStats:
    """Return the statistics of a dataset, with the channels of another one if given.

    Each image is read once and preprocessed as it would be for training.
    """
    channels, preprocess = len(like.channel_names) if like else None, Preprocess(config.preprocess)
    with Progress(f"reading {source}") as progress:
        dataset = Dataset(source, config, channels=channels, progress=progress.update)
    images = []
    with Progress(f"measuring {source}", len(dataset)) as progress:
        for sample in dataset:
            images.append(image_stats(preprocess(sample.image), sample.label, dataset.classes))
            progress.update(len(images))
    return DatasetStats(dataset.source, dataset.class_names, tuple(images))


def image_stats(image_hwc: np.ndarray, label_hw: np.ndarray | None, classes: int) -> ImageStats:
    """Return the statistics of one image (H, W, C) and its label (H, W)."""
    levels, deep = image_hwc, image_hwc.dtype != np.uint8
    if deep:
        levels = np.rint(image_hwc * (FINE - 1)).astype(np.uint16)
    planes = levels.reshape(-1, image_hwc.shape[2]).T
    counts = np.stack([np.bincount(plane, minlength=FINE if deep else 256) for plane in planes])
    limits = np.stack([image_hwc.min(axis=(0, 1)), image_hwc.max(axis=(0, 1))])
    if label_hw is None:
        label_hw = np.full(image_hwc.shape[:2], IGNORE, np.uint8)
    valid = int((label_hw != IGNORE).sum())
    share = float(is_foreground(label_hw).sum()) / valid if valid else np.nan
    areas = tuple(object_areas(label_hw == class_id) for class_id in range(1, classes))
    height, width = image_hwc.shape[:2]
    return ImageStats((height, width), counts, unit_range(limits), share, areas)


def object_areas(mask_hw: np.ndarray) -> np.ndarray:
    """Return the pixels of each connected component; corners do not connect."""
    return np.bincount(ndimage.label(mask_hw)[0].ravel())[1:]


def _quantiles(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    if not len(values):
        return ()
    return tuple(map(float, np.quantile(np.asarray(values, np.float64), QUANTILES)))


def weighted_quantiles(
    values: np.ndarray, weights: np.ndarray, shares: Sequence[float]
) -> np.ndarray:
    """Return the smallest value with at least each share of the weight at or below it."""
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    index = np.searchsorted(below, np.asarray(shares) * below[-1])
    return np.asarray(values[order][index])
