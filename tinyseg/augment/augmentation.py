"""Augmentation of whole batches on the device: drawn, sampled once, inside the compiled step."""

import functools
import operator
from collections.abc import Iterator, Sequence
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
from tinyseg.device import random as draws
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import StepError

NUMBERS = 64
"""Uniform numbers drawn for each sample in a step: more than all transforms together take."""

Kind = TypeVar("Kind")


class Augmentation:
    """Called as `augmentation(image, label)` it returns both, augmented.

    Images are at the network's door, (B, C, H, W) float32 of any scale; labels (B, H, W) class
    ids. Every sample has draws of its own. An image is sampled bilinearly, its label at the
    nearest pixel of the same place; what has no source is the image's own mean, and ignored.
    """

    def __init__(self, text: str = "none", seed: int = 0):
        """`text` as in the config: see `transforms.parse`, which raises ConfigError."""
        self.terms: tuple[Term, ...] = parse(text)
        self.key = draws.make_key(seed) if self.terms else None

    @property
    def text(self) -> str:
        """The canonical text of all transforms, by which an equal augmentation can be made."""
        parts = [str(term) for term in self.terms if not term.choice]
        return "+".join(parts + ["trivial"] * any(term.choice for term in self.terms)) or "none"

    @property
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold for the draws to go on; empty without transforms."""
        return {} if self.key is None else {"augment.key": self.key}

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        if self.key is None:
            return image, label
        batch, _, rows, columns = (int(n) for n in image.shape)
        label = label.reshape(batch, rows, columns)
        if rows != columns and any(term.name == "rotate90" for term in self.terms):
            raise StepError(f"rotate90 needs squares, not {rows} x {columns}; use flip or rotate")
        draws.advance(self.key)
        return _apply(self._draw(self.key, batch), image, label)

    def _draw(self, key: Tensor, batch: int) -> list[object]:
        """What every transform is this time, for each sample."""
        block = draws.uniform(key, NUMBERS * batch).reshape(NUMBERS, batch)
        numbers = (block[index] for index in range(NUMBERS))
        choices = 1 + sum(term.choice > 0 for term in self.terms)
        chosen = (next(numbers) * choices).floor()
        made: list[object] = []
        for term in self.terms:
            normal = functools.partial(self._normal, term, key, batch)
            draw = Draw(numbers, normal, _who(term, numbers, chosen))
            made.append(TRANSFORMS[term.name](draw, **term.options))
        return made

    def _normal(self, term: Term, key: Tensor, batch: int, count: int) -> Tensor:
        stream = 1 + list(TRANSFORMS).index(term.name)
        return draws.normal(key, batch * count, stream).reshape(batch, count)

    def again(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """What the last call made of a batch: to look into a step that failed."""
        if self.key is not None:
            copy_(self.key, self.key.numpy() - np.array([0, 1], np.uint32))
        return self(image, label)

    def arrays(self, image_bchw: Array, label_bhw: Array) -> tuple[Array, Array]:
        """The same for arrays, at once: for pictures and proofs."""
        image, label = self(to_device(image_bchw), to_device(label_bhw))
        image.realize(label, *self.state.values())
        return image.numpy(), label.numpy()

    def pipeline(self, image_hwc: Array, label_hw: Array) -> tuple[Array, Array]:
        """The same for one image and its label: as `alignment` wants it."""
        image, label = self.arrays(image_hwc.transpose(2, 0, 1)[None], label_hw[None])
        return image[0].transpose(1, 2, 0), label[0]


def _who(term: Term, numbers: Iterator[Tensor], chosen: Tensor) -> Tensor | None:
    """Which samples get a transform (B,); None: all."""
    if term.choice:
        return chosen == term.choice
    return None if term.probability == 1 else next(numbers) < term.probability


def _apply(made: Sequence[object], image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """As light comes to a picture: scene, lens and sensor, tone and noise, then holes."""
    rows, columns = int(image.shape[2]), int(image.shape[3])
    own = Statistics.of(image)
    if any(isinstance(each, Matrix | Move | Crop | Elastic) for each in made):
        image, label = _sample(made, image, label, own)
    if optics := _all(made, Optics):
        image = functools.reduce(operator.add, optics)(image)
    for tone in _all(made, Tone):
        image = tone.change(image, own)
    for cutout in _all(made, Cutout):
        gone = cutout(rows, columns)
        image = gone.unsqueeze(1).where(own.mean, image)
        label = gone.where(IGNORE, label).cast(label.dtype).contiguous()
    return image.contiguous(), label


def _sample(
    made: Sequence[object], image: Tensor, label: Tensor, own: Statistics
) -> tuple[Tensor, Tensor]:
    """Samples a batch once, by all that says where pixels come from."""
    batch, channels, rows, columns = (int(n) for n in image.shape)
    moves, crops, fields = _all(made, Move), _all(made, Crop), _all(made, Elastic)
    whole = functools.reduce(operator.matmul, _all(made, Matrix), Matrix())
    down: Entry = sum((-move.row * rows for move in moves), 0.0)
    right: Entry = sum((-move.column * columns for move in moves), 0.0)
    down, right = whole(down, right)
    for crop in crops:
        whole = Matrix(crop.side, 0.0, 0.0, crop.side) @ whole
        middle = crop(label)
        down, right = crop.side * down + middle[0], crop.side * right + middle[1]
    entries = (whole.a, whole.b, down + (rows - 1) / 2, whole.c, whole.d, right + (columns - 1) / 2)
    parts = [e if isinstance(e, Tensor) else Tensor.full((batch,), e) for e in entries]
    matrix = Tensor.stack(*parts, dim=1).contiguous()
    shift = fields[0](batch, rows, columns) if fields else None
    fill = None if _all(made, Reflect) else own.mean.reshape(batch, channels)
    return kernels.warp(image, label, matrix, shift, fill, ignore=IGNORE)


def _all(made: Sequence[object], kind: type[Kind]) -> list[Kind]:
    return [each for each in made if isinstance(each, kind)]
