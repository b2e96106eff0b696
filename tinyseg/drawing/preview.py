"""A picture of what augmentation does to a dataset: every transform alone, and combined."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinyseg.augment import PRESETS, TRANSFORMS, Augmentation
from tinyseg.common.arrays import Array
from tinyseg.common.progress import Progress
from tinyseg.config import Config
from tinyseg.data import (
    Dataset,
    InputPipeline,
    InputScale,
    Tile,
    find_scale,
    prepare_label,
    with_foreground,
)
from tinyseg.drawing.pictures import color_image, overlay, save_bands
from tinyseg.errors import DataError

SIDE = 192
"""Pixels of a tile."""
MOST = 16
"""The most images in one picture."""


def preview(
    data: str | Path, out: Path, config: Config | None = None, images: Sequence[str] = ("3",)
) -> None:
    """Write a PNG: a row for each image, a column for each transform, with the label as overlay.

    `images` are names, or the number of images to take, with foreground. Transforms that are in
    `train.augment` have its arguments; the last columns are all of it and the presets.
    """
    config = config or Config()
    texts = _texts(config.train.augment)
    with Progress(f"reading {data}") as progress:
        dataset = Dataset(data, config.data, progress=progress.update)
    if len(images) == 1 and images[0].isdecimal():
        count = min(int(images[0]), len(dataset))
        indices = with_foreground(dataset, count, config.data.size, config.data.fit)
    else:
        indices = [dataset.index(name) for name in images]
    if len(indices) > MOST:
        raise DataError(
            f"--images: {len(indices)} images are too many for one picture; give at most {MOST}"
        )
    samples = [dataset[index] for index in indices]
    scale = find_scale(config.data, [sample.image for sample in samples], dataset.channels)
    pipeline = InputPipeline(config.data, scale)
    tiles = [pipeline.tile(sample.image) for sample in samples]
    size, fit = config.data.size, config.data.fit
    labels = np.stack([prepare_label(s.label, size, fit) for s in samples if s.label is not None])
    columns = [_overlays(tiles, pipeline.to_batch(tiles), labels, dataset.classes)]
    with Progress("augmenting", len(texts)) as progress:
        for number, text in enumerate(texts.values(), start=1):
            moved, classes = Augmentation(text, config.train.seed).arrays(
                pipeline.to_batch(tiles), labels
            )
            columns.append(_overlays(tiles, moved, classes, dataset.classes))
            progress.update(number)
    rows = list(zip(*columns, strict=True))
    save_bands(out, rows, [s.name for s in samples], ["original", *texts], side=SIDE)


def _texts(augment: str) -> dict[str, str]:
    """Return the titles of the columns and the augmentation of each."""
    own = {term.name: term for term in Augmentation(augment).terms}
    alone = {name: name for name in TRANSFORMS if name != "reflect"}
    alone |= {name: term.alone for name, term in own.items() if name in alone}
    combined = {name: name for name in (*PRESETS, "trivial")}
    return {**alone, **({"train.augment": augment} if own else {}), **combined}


def _overlays(tiles: Sequence[Tile], x_bchw: Array, labels: Array, classes: int) -> list[Array]:
    """Return each image before normalization, with its label."""
    scales = (tile.scale for tile in tiles)
    pictures = (color_image(_to_pixels(x, scale)) for x, scale in zip(x_bchw, scales, strict=True))
    pairs = zip(pictures, labels, strict=True)
    return [overlay(picture, label, classes, SIDE) for picture, label in pairs]


def _to_pixels(x_chw: Array, scale: InputScale) -> Array:
    """Return the pixels of a network input (C, H, W): (H, W, C) in [0, 1]."""
    mean, std = (np.array(v, np.float32) for v in (scale.mean, scale.std))
    return np.asarray((x_chw.transpose(1, 2, 0) * std + mean).clip(0, 1))
