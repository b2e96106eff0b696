"""Images and labels at the network's size: fitted once, in threads, into a memory-mapped file."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.door import Door, Fitted, find_scale
from tinyseg.data.fit import Box, fit_label
from tinyseg.data.normalize import InputScale, unit_range
from tinyseg.data.store import digest
from tinyseg.data.threads import Progress, in_threads

Put = Callable[[int, Sequence[np.ndarray]], None]


class Squares:
    """Fitted images by index and their labels, from records on disk or in memory."""

    def __init__(self, records: np.ndarray) -> None:
        self.records = records
        self.labels: np.ndarray = records["label"]
        """(N, S, S) uint8; `labels[indices]` reads those of a batch."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Fitted:
        record = self.records[index]
        scale = InputScale(*(tuple(record[name].tolist()) for name in ("mean", "deviation")))
        height, width, *place = record["box"].tolist()
        return Fitted(record["image"], scale, Box((height, width), *place))

    def __iter__(self) -> Iterator[Fitted]:
        return (self[index] for index in range(len(self)))


class _Deep(Exception):
    """An image of more than 8 bits: all are kept as float32."""


def fit_squares(
    dataset: Dataset, names: Sequence[str], door: Door, progress: Progress | None = None
) -> Squares:
    """Labelled images in the order of the names, fitted and kept by all that shapes them.

    They are memory-mapped; where the disk does not take them they are in memory.
    """
    texts = (door.size, door.how, door.preprocess.text, door.normalize.text, door.scale, IGNORE)
    key = digest("squares", *_pixels(dataset, names), *texts)
    kept = dataset.store.map(key)
    if kept is not None:
        return Squares(kept)
    try:
        return Squares(_make(dataset, key, names, door, np.uint8, progress))
    except _Deep:
        return Squares(_make(dataset, key, names, door, np.float32, progress))


def keep_scale(dataset: Dataset, names: Sequence[str], config: DataConfig) -> InputScale | None:
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
    door: Door,
    pixel: type[np.generic],
    progress: Progress | None,
) -> np.ndarray:
    record = _record(dataset.channels, door.size, pixel)

    def fill(put: Put) -> None:
        def work(place: int) -> None:
            put(place, _fitted(dataset, names[place], door, pixel))

        for _ in in_threads(work, range(len(names)), progress):
            pass

    records = dataset.store.make(key, record, len(names), fill, {})
    if records is None:
        records = np.empty(len(names), record)
        fill(records.__setitem__)
    return records


def _record(channels: int, size: int, pixel: type[np.generic]) -> np.dtype[Any]:
    # the widest numbers first: each field is aligned
    scale = [(name, np.float64, (channels,)) for name in ("mean", "deviation")]
    image = ("image", pixel, (size, size, channels))
    return np.dtype([*scale, ("box", np.int32, (6,)), image, ("label", np.uint8, (size, size))])


def _fitted(
    dataset: Dataset, name: str, door: Door, pixel: type[np.generic]
) -> tuple[np.ndarray, ...]:
    sample = dataset.load(dataset.index(name))
    fitted = door.fit(sample.image)
    if pixel == np.uint8 and fitted.pixels.dtype != np.uint8:
        raise _Deep
    assert sample.label is not None  # the images of a run have labels
    box, scale = fitted.box, fitted.scale
    place = np.array([*box.original, box.top, box.left, box.rows, box.cols], np.int32)
    pixels = fitted.pixels if pixel == np.uint8 else unit_range(fitted.pixels)
    label = fit_label(sample.label, door.size, door.how)
    return np.array(scale.mean), np.array(scale.deviation), place, pixels, label
