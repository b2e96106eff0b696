"""Augment whole batches on the device, inside the compiled step."""

import functools
import operator
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.augment.field import Crop, Elastic
from tinyseg.augment.geometry import Entry, Matrix, Move, Reflect
from tinyseg.augment.intensity import Cutout, Optics, Statistics, Tone
from tinyseg.augment.sampling import Draw
from tinyseg.augment.transforms import TRANSFORMS, Term, parse
from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE
from tinyseg.device import random
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import StepError

NUMBERS = 64
"""Uniform numbers drawn for each sample in a step: more than all transforms together use."""

Kind = TypeVar("Kind")


class Augmentation:
    """Augment whole batches: `augmentation(image, label)` returns both.

    Images are network input, (B, C, H, W) float32 of any scale; labels (B, H, W) class ids. Every
    sample has random numbers of its own. An image is sampled bilinearly, its label at the nearest
    pixel of the same place; beyond the image's edge is its own mean, and the label is ignored.
    """

    def __init__(self, text: str = "none", seed: int = 0):
        """`text` is `train.augment`: see `transforms.parse`, which raises ConfigError."""
        self.terms: tuple[Term, ...] = parse(text)
        self.key = random.make_key(seed) if self.terms else None

    @property
    def text(self) -> str:
        """The canonical text of all transforms, equal for equal augmentations."""
        parts = [str(term) for term in self.terms if not term.choice]
        return "+".join(parts + ["trivial"] * any(term.choice for term in self.terms)) or "none"

    @property
    def state(self) -> dict[str, Tensor]:
        """The random state, for a checkpoint; empty without transforms."""
        return {} if self.key is None else {"augment.key": self.key}

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        if self.key is None:
            return image, label
        batch, _, rows, columns = (int(n) for n in image.shape)
        label = label.reshape(batch, rows, columns)
        if rows != columns and any(term.name == "rotate90" for term in self.terms):
            raise StepError(
                f"rotate90 needs square images, not {rows} x {columns}; use flip or rotate"
            )
        random.advance(self.key)
        return _apply(self._sample_transforms(self.key, batch), image, label)

    def _sample_transforms(self, key: Tensor, batch: int) -> list[object]:
        """Return what every transform does this time, for each sample."""
        block = random.uniform(key, NUMBERS * batch).reshape(NUMBERS, batch)
        numbers = (block[index] for index in range(NUMBERS))
        choices = 1 + sum(term.choice > 0 for term in self.terms)
        choice = (next(numbers) * choices).floor()
        sampled: list[object] = []
        for term in self.terms:
            applied = None
            if term.choice:
                applied = choice == term.choice
            elif term.probability < 1:
                applied = next(numbers) < term.probability
            draw = Draw(numbers, functools.partial(_normal, term, key, batch), applied)
            sampled.append(TRANSFORMS[term.name](draw, **term.options))
        return sampled

    def again(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Repeat the last call on its batch, to look into a step that failed."""
        if self.key is not None:
            copy_(self.key, self.key.numpy() - np.array([0, 1], np.uint32))
        return self(image, label)

    def arrays(self, image_bchw: Array, label_bhw: Array) -> tuple[Array, Array]:
        """Augment arrays at once, for pictures and tests."""
        image, label = self(to_device(image_bchw), to_device(label_bhw))
        image.realize(label, *self.state.values())
        return image.numpy(), label.numpy()

    def pipeline(self, image_hwc: Array, label_hw: Array) -> tuple[Array, Array]:
        """Augment one image and its label, as `alignment` wants it."""
        image, label = self.arrays(image_hwc.transpose(2, 0, 1)[None], label_hw[None])
        return image[0].transpose(1, 2, 0), label[0]


def _normal(term: Term, key: Tensor, batch: int, count: int) -> Tensor:
    stream = 1 + list(TRANSFORMS).index(term.name)
    return random.normal(key, batch * count, stream).reshape(batch, count)


def _apply(sampled: Sequence[object], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Apply transforms in the order of a camera: geometry, optics, tone and noise, then holes."""
    rows, columns = int(image.shape[2]), int(image.shape[3])
    statistics = Statistics.of(image)
    if any(isinstance(one, Matrix | Move | Crop | Elastic) for one in sampled):
        image, label = _warp(sampled, image, label, statistics)
    if optics := _all(sampled, Optics):
        image = functools.reduce(operator.add, optics)(image)
    for tone in _all(sampled, Tone):
        image = tone.change(image, statistics)
    for cutout in _all(sampled, Cutout):
        hole = cutout(rows, columns)
        image = hole.unsqueeze(1).where(statistics.mean, image)
        label = hole.where(IGNORE, label).cast(label.dtype).contiguous()
    return image.contiguous(), label


def _warp(
    sampled: Sequence[object], image: Tensor, label: Tensor, statistics: Statistics
) -> tuple[Tensor, Tensor]:
    """Apply all geometric transforms together: each pixel is sampled once."""
    batch, channels, rows, columns = (int(n) for n in image.shape)
    moves, fields = _all(sampled, Move), _all(sampled, Elastic)
    whole = functools.reduce(operator.matmul, _all(sampled, Matrix), Matrix())
    down: Entry = sum((-move.row * rows for move in moves), 0.0)
    right: Entry = sum((-move.column * columns for move in moves), 0.0)
    down, right = whole(down, right)
    for crop in _all(sampled, Crop):
        whole = Matrix(crop.side, 0.0, 0.0, crop.side) @ whole
        middle = crop(label)
        down, right = crop.side * down + middle[0], crop.side * right + middle[1]
    entries = (whole.a, whole.b, down + (rows - 1) / 2, whole.c, whole.d, right + (columns - 1) / 2)
    parts = [e if isinstance(e, Tensor) else Tensor.full((batch,), e) for e in entries]
    matrix = Tensor.stack(*parts, dim=1).contiguous()
    shift = fields[0](batch, rows, columns) if fields else None
    fill = None if _all(sampled, Reflect) else statistics.mean.reshape(batch, channels)
    return kernels.warp(image, label, matrix, shift, fill, ignore=IGNORE)


def _all(sampled: Sequence[object], kind: type[Kind]) -> list[Kind]:
    return [one for one in sampled if isinstance(one, kind)]
