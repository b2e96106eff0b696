"""Images and labels as the network sees them: fitted once, in threads, into a mapped file."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from tinyseg.common.threads import Progress, in_threads
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.input_pipeline import InputPipeline, Tile, find_scale
from tinyseg.data.prepare.normalize import InputScale, unit_range
from tinyseg.data.prepare.resize import Placement, cut_label
from tinyseg.data.storage.store import digest

Put = Callable[[int, Sequence[np.ndarray]], None]
Pixel = type[np.generic]


class PreparedImages:
    """Fitted images by index and their labels, from records on disk or in memory."""

    def __init__(self, records: np.ndarray) -> None:
        self.records = records
        self.labels: np.ndarray = records["label"]
        """(N, S, S) uint8; `labels[indices]` reads those of a batch."""
        self.image: np.ndarray = records["of"].copy()
        """(N,) Which image each square shows, from 0 and in order."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tile:
        record = self.records[index]
        scale = InputScale(*(tuple(record[name].tolist()) for name in ("mean", "deviation")))
        height, width, *place = record["box"].tolist()
        return Tile(record["image"], scale, Placement((height, width), *place))

    def __iter__(self) -> Iterator[Tile]:
        return (self[index] for index in range(len(self)))

    def images(self) -> Iterator[list[Tile]]:
        """The squares of each image."""
        edges = [0, *np.cumsum(np.bincount(self.image)).tolist()]
        return ([self[i] for i in range(*ends)] for ends in pairwise(edges))


class _Deep(Exception):
    """An image of more than 8 bits: all are kept as float32."""


def prepare_images(
    dataset: Dataset,
    names: Sequence[str],
    door: InputPipeline,
    overlap: float = 0.0,
    progress: Progress | None = None,
) -> PreparedImages:
    """Labelled images in the order of the names, fitted and kept by all that shapes them.

    They are memory-mapped; where the disk does not take them they are in memory. Windows that
    together are one image share `overlap` of their side.
    """
    texts = (
        door.size,
        door.how,
        overlap,
        door.preprocess.text,
        door.normalize.text,
        door.scale,
        IGNORE,
    )
    key = digest("squares", *_pixels(dataset, names), *texts)
    kept = dataset.store.map(key)
    if kept is not None:
        return PreparedImages(kept)
    try:
        return PreparedImages(_make(dataset, key, names, door, overlap, np.uint8, progress))
    except _Deep:
        return PreparedImages(_make(dataset, key, names, door, overlap, np.float32, progress))


def cached_scale(dataset: Dataset, names: Sequence[str], config: DataConfig) -> InputScale | None:
    """`find_scale` of these images, looked at once."""
    key = digest("scale", *_pixels(dataset, names), config.preprocess, config.normalize)
    kept = dataset.store.load(key)
    if kept is not None:
        return InputScale(tuple(kept["mean"].tolist()), tuple(kept["deviation"].tolist()))
    images = (dataset.load(dataset.index(name)).image for name in names)
    scale = find_scale(config, images, dataset.channels)
    if scale is not None:
        arrays = {"mean": np.array(scale.mean), "deviation": np.array(scale.deviation)}
        dataset.store.keep(key, arrays, {})
    return scale


def _pixels(dataset: Dataset, names: Sequence[str]) -> tuple[object, ...]:
    """What shapes the pixels before the door."""
    return dataset.fingerprint(), tuple(names), dataset.channels, dataset.label_map


def _make(
    dataset: Dataset,
    key: str,
    names: Sequence[str],
    door: InputPipeline,
    overlap: float,
    pixel: Pixel,
    progress: Progress | None,
) -> np.ndarray:
    record = _record(dataset.channels, door.size, pixel)
    sizes = [dataset.size(dataset.index(name)) for name in names]
    boxes = [door.placements(*size, overlap) for size in sizes]
    first = [0, *accumulate(map(len, boxes))]

    def fill(put: Put) -> None:
        def work(image: int) -> None:
            squares = _fitted(dataset, image, names[image], door, boxes[image], pixel)
            for place, values in enumerate(squares, start=first[image]):
                put(place, values)

        for _ in in_threads(work, range(len(names)), progress):
            pass

    records = dataset.store.make(key, record, first[-1], fill, {})
    if records is None:
        records = np.empty(first[-1], record)
        fill(records.__setitem__)
    return records


def _record(channels: int, size: int, pixel: Pixel) -> np.dtype[Any]:
    # the widest numbers first: each field is aligned
    scale = [(name, np.float64, (channels,)) for name in ("mean", "deviation")]
    image = ("image", pixel, (size, size, channels))
    label = ("label", np.uint8, (size, size))
    return np.dtype([*scale, ("of", np.int32), ("box", np.int32, (6,)), image, label])


def _fitted(
    dataset: Dataset,
    number: int,
    name: str,
    door: InputPipeline,
    boxes: Sequence[Placement],
    pixel: Pixel,
) -> Iterator[tuple[np.ndarray, ...]]:
    sample = dataset.load(dataset.index(name))
    views = door.cut(sample.image, boxes)
    if pixel == np.uint8 and views.pixels.dtype != np.uint8:
        raise _Deep
    assert sample.label is not None  # the images of a run have labels
    scale = np.array(views.scale.mean), np.array(views.scale.deviation)
    for fitted in views:
        box = fitted.box
        place = np.array([*box.original, box.top, box.left, box.rows, box.cols], np.int32)
        pixels = fitted.pixels if pixel == np.uint8 else unit_range(fitted.pixels)
        label = cut_label(sample.label, box, door.size)
        yield *scale, np.array(number, np.int32), place, pixels, label
