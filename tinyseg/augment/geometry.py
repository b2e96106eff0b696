"""Geometric transforms as matrices, multiplied to one, so that an image is sampled once.

Matrices go from output to input: p_in = A (p_out - t), both from the center of the image, rows
first, in pixels.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

from tinygrad import Tensor

from tinyseg.augment.sampling import Draw

Entry: TypeAlias = "Tensor | float"


@dataclass(frozen=True)
class Matrix:
    """A 2 x 2 matrix by rows; each entry is one number, or one for each sample (B,)."""

    a: Entry = 1.0
    b: Entry = 0.0
    c: Entry = 0.0
    d: Entry = 1.0

    def __matmul__(self, other: "Matrix") -> "Matrix":
        s, o = self, other
        above = (s.a * o.a + s.b * o.c, s.a * o.b + s.b * o.d)
        return Matrix(*above, s.c * o.a + s.d * o.c, s.c * o.b + s.d * o.d)

    def __call__(self, row: Entry, column: Entry) -> tuple[Entry, Entry]:
        return self.a * row + self.b * column, self.c * row + self.d * column


@dataclass(frozen=True)
class Move:
    """A translation of the output, in fractions of its rows and columns."""

    row: Tensor
    column: Tensor


def flip(draw: Draw, horizontal: bool = True, vertical: bool = True) -> Matrix:
    """Mirror left and right, up and down, each for half of the samples."""
    signs = [(draw.uniform() < 0.5).where(-1.0, 1.0) for _ in range(2)]
    down, right = (draw.gate(sign, 1.0) for sign in signs)
    return Matrix(down if vertical else 1.0, 0.0, 0.0, right if horizontal else 1.0)


def rotate90(draw: Draw) -> Matrix:
    """Rotate square images by 0, 90, 180 or 270 degrees, each for a quarter of the samples."""
    turns = (draw.uniform() * 4).floor()
    cosine = (turns == 0).where(1.0, (turns == 2).where(-1.0, 0.0))
    sine = (turns == 1).where(1.0, (turns == 3).where(-1.0, 0.0))
    return _rotation(draw.gate(cosine, 1.0), draw.gate(sine, 0.0))


def rotate(draw: Draw, degrees: float = 15.0) -> Matrix:
    """Rotate by an angle uniform in +-degrees."""
    angle = draw.uniform(-degrees, degrees) * (math.pi / 180)
    return _rotation(draw.gate(angle.cos(), 1.0), draw.gate(angle.sin(), 0.0))


def _rotation(cosine: Tensor, sine: Tensor) -> Matrix:
    return Matrix(cosine, -sine, sine, cosine)


def scale(draw: Draw, low: float = 0.8, high: float = 1.25) -> Matrix:
    """Zoom by a factor whose logarithm is uniform: halving is as likely as doubling."""
    inverse = draw.gate(draw.uniform(-math.log2(high), -math.log2(low)).exp2(), 1.0)
    return Matrix(inverse, 0.0, 0.0, inverse)


def shear(draw: Draw, amount: float = 0.1) -> Matrix:
    """Shift columns by up to +-amount pixels a row, and rows by as much a column."""
    down, right = (draw.between(-amount, amount, 0.0) for _ in range(2))
    return Matrix(1.0, down, right, 1.0)


def translate(draw: Draw, fraction: float = 0.1) -> Move:
    """Shift by up to +-fraction of the rows and of the columns."""
    return Move(*(draw.between(-fraction, fraction, 0.0) for _ in range(2)))


@dataclass(frozen=True)
class Reflect:
    """Mirror the image beyond its edge instead of filling it."""


def reflect(draw: Draw) -> Reflect:
    """Mirror image and label beyond their edge, which is else the image's mean, and ignored."""
    return Reflect()
