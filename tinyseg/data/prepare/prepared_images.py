"""Tiles of labeled images, prepared once, in threads, and kept in a memory-mapped file."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from tinyseg.common.threads import Progress, in_threads
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.prepare.input_pipeline import InputPipeline, Tile, find_scale
from tinyseg.data.prepare.normalize import InputScale, unit_range
from tinyseg.data.prepare.resize import Placement, label_tile, place_tiles
from tinyseg.data.sample import Sample
from tinyseg.data.storage.store import digest

if TYPE_CHECKING:
    from tinyseg.data.dataset import Dataset

Put = Callable[[int, Sequence[np.ndarray]], None]


class PreparedImages:
    """The tiles of some images and their labels, from records on disk or in memory."""

    def __init__(self, records: np.ndarray) -> None:
        self.records = records
        self.labels: np.ndarray = records["label"]
        """(N, S, S) uint8; `labels[indices]` reads those of a batch."""
        self.image_index: np.ndarray = records["image_index"].copy()
        """(N,) For each tile the index of the image that it shows, from 0 and in order."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tile:
        record = self.records[index]
        scale = InputScale(tuple(record["mean"].tolist()), tuple(record["std"].tolist()))
        height, width, *place = record["placement"].tolist()
        return Tile(record["pixels"], scale, Placement((height, width), *place))

    def __iter__(self) -> Iterator[Tile]:
        return map(self.__getitem__, range(len(self)))

    def images(self) -> Iterator[list[Tile]]:
        """Yield the tiles of each image."""
        edges = [0, *np.cumsum(np.bincount(self.image_index)).tolist()]
        return ([self[i] for i in range(*ends)] for ends in pairwise(edges))


def prepare_images(
    dataset: "Dataset",
    names: Sequence[str],
    pipeline: InputPipeline,
    overlap: float = 0.0,
    progress: Progress | None = None,
) -> PreparedImages:
    """Return the tiles of labeled images in the order of their names.

    They are kept in the dataset's store, by everything that shapes them, and memory-mapped; they
    are in memory where the disk cannot hold them. Tiles of one image share `overlap` of their side.
    """
    key = digest(
        "tiles",
        *_source(dataset, names),
        pipeline.size,
        pipeline.fit,
        overlap,
        pipeline.preprocess.text,
        pipeline.normalize.text,
        pipeline.scale,
        IGNORE,
    )
    stored = dataset.store.map(key)
    if stored is None:
        try:
            stored = _prepare(dataset, key, names, pipeline, overlap, np.uint8, progress)
        except _DeepImage:
            stored = _prepare(dataset, key, names, pipeline, overlap, np.float32, progress)
    return PreparedImages(stored)


def cached_scale(dataset: "Dataset", names: Sequence[str], config: DataConfig) -> InputScale | None:
    """Return `find_scale` of these images, computed once and kept in the dataset's store."""
    key = digest("scale", *_source(dataset, names), config.preprocess, config.normalize)
    stored = dataset.store.load(key)
    if stored is not None:
        return InputScale(tuple(stored["mean"].tolist()), tuple(stored["std"].tolist()))
    images = (dataset[name].image for name in names)
    scale = find_scale(config, images, dataset.channels)
    if scale is not None:
        dataset.store.keep(key, {"mean": np.array(scale.mean), "std": np.array(scale.std)})
    return scale


def _source(dataset: "Dataset", names: Sequence[str]) -> tuple[object, ...]:
    """Return what shapes the pixels before the input pipeline."""
    return (
        dataset.fingerprint(),
        tuple(names),
        dataset.channels,
        dataset.config.pages,
        dict(dataset.ranges),
        dataset.label_map,
    )


class _DeepImage(Exception):
    """An image of more than 8 bits: all are kept as float32."""


def _prepare(
    dataset: "Dataset",
    key: str,
    names: Sequence[str],
    pipeline: InputPipeline,
    overlap: float,
    pixel: type[np.generic],
    progress: Progress | None,
) -> np.ndarray:
    """Write the records of all tiles, to the store if it can hold them, else to memory."""
    sizes = [dataset.size(dataset.index(name)) for name in names]
    placements = [place_tiles(*size, pipeline.size, pipeline.fit, overlap) for size in sizes]
    first = [0, *accumulate(map(len, placements))]
    channels, side = dataset.channels, (pipeline.size, pipeline.size)
    record = np.dtype(
        [  # the widest numbers first: each field is aligned
            ("mean", np.float64, (channels,)),
            ("std", np.float64, (channels,)),
            ("image_index", np.int32),
            ("placement", np.int32, (6,)),
            ("pixels", pixel, (*side, channels)),
            ("label", np.uint8, side),
        ]
    )

    def write(put: Put) -> None:
        def work(index: int) -> None:
            fields = _tile_fields(dataset[names[index]], pipeline, placements[index], pixel)
            for place, values in enumerate(fields, start=first[index]):
                put(place, (*values[:2], np.array(index, np.int32), *values[2:]))

        for _ in in_threads(work, range(len(names)), progress):
            pass

    records = dataset.store.make(key, record, first[-1], write)
    if records is None:
        records = np.empty(first[-1], record)
        write(records.__setitem__)
    return records


def _tile_fields(
    sample: Sample,
    pipeline: InputPipeline,
    placements: Sequence[Placement],
    pixel: type[np.generic],
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield mean, std, placement, pixels and label of each tile."""
    tiles = pipeline.tiles(sample.image, placements)
    if pixel == np.uint8 and tiles.pixels.dtype != np.uint8:
        raise _DeepImage
    assert sample.label is not None  # the images of a run have labels
    mean, std = np.array(tiles.scale.mean), np.array(tiles.scale.std)
    for tile in tiles:
        p = tile.placement
        place = np.array([*p.original, p.top, p.left, p.rows, p.cols], np.int32)
        pixels = tile.pixels if pixel == np.uint8 else unit_range(tile.pixels)
        yield mean, std, place, pixels, label_tile(sample.label, p, pipeline.size)
