"""Augmentation of whole batches on the device: drawn, sampled once, inside the compiled step."""

import functools
import operator
from collections.abc import Iterator

from tinygrad import Tensor

from tinyseg import draws, kernels
from tinyseg.augment.draw import Draw
from tinyseg.augment.geometry import Matrix, Move, Reflect
from tinyseg.augment.transforms import TRANSFORMS, Term, parse
from tinyseg.backend import Array, upload
from tinyseg.config import IGNORE
from tinyseg.errors import StepError

NUMBERS = 64
"""Uniform numbers drawn for each sample in a step: more than all transforms together take."""


class Augmentation:
    """Called as `augmentation(image, label)` it returns both, augmented.

    Images are at the network's door: (B, C, H, W) float32 of mean 0 and deviation 1, labels
    (B, H, W) class ids. Every sample has draws of its own. An image is sampled bilinearly, its
    label at the nearest pixel of the same place; what has no source is 0, and ignored.
    """

    def __init__(self, text: str = "none", seed: int = 0):
        """`text` as in the config: see `transforms.parse`, which raises ConfigError."""
        self.terms: tuple[Term, ...] = parse(text)
        self.key = draws.make_key(seed) if self.terms else None

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def text(self) -> str:
        """The canonical text of all transforms, by which an equal augmentation can be made."""
        return "+".join(map(str, self.terms)) or "none"

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
        block = draws.uniform(self.key, NUMBERS * batch).reshape(NUMBERS, batch)
        numbers = (block[index] for index in range(NUMBERS))
        made = [self._draw(term, numbers) for term in self.terms]
        return _sample(image, label, made)

    def _draw(self, term: Term, numbers: Iterator[Tensor]) -> object:
        on = None if term.probability == 1 else next(numbers) < term.probability
        return TRANSFORMS[term.name](Draw(numbers, on), **term.options)

    def arrays(self, image_bchw: Array, label_bhw: Array) -> tuple[Array, Array]:
        """The same for arrays, at once: for pictures and proofs."""
        image, label = self(upload(image_bchw), upload(label_bhw))
        image.realize(label, *self.state.values())
        return image.numpy(), label.numpy()


def _sample(image: Tensor, label: Tensor, made: list[object]) -> tuple[Tensor, Tensor]:
    """Samples a batch once, by all matrices and moves together."""
    batch, _, rows, columns = (int(n) for n in image.shape)
    matrices = [each for each in made if isinstance(each, Matrix)]
    moves = [each for each in made if isinstance(each, Move)]
    whole = functools.reduce(operator.matmul, matrices, Matrix())
    origin = whole(
        sum((-move.row * rows for move in moves), 0.0),
        sum((-move.column * columns for move in moves), 0.0),
    )
    down, right = (rows - 1) / 2 + origin[0], (columns - 1) / 2 + origin[1]
    entries = (whole.a, whole.b, down, whole.c, whole.d, right)
    columns_of = [e if isinstance(e, Tensor) else Tensor.full((batch,), e) for e in entries]
    matrix = Tensor.stack(*columns_of, dim=1).contiguous()
    reflect = any(isinstance(each, Reflect) for each in made)
    return kernels.warp(image, label, matrix, reflect=reflect, ignore=IGNORE)
