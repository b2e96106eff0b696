"""Kernels that move pixels of NHWC memory: 2 x 2 pooling, its gradient, joining, parting."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import (
    Program,
    constant,
    integer,
    kernel,
    maximum,
    quotient,
    remainder,
)

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Pooling:
    """Sizes of images that are pooled 2 x 2, and how the work is shared."""

    batch: int
    rows: int
    columns: int
    channels: int
    lanes: int
    threads: int

    @property
    def label(self) -> str:
        """A name for programs."""
        return f"{self.batch}x{self.rows}x{self.columns}x{self.channels}"

    @property
    def pooled(self) -> int:
        """Rows of all pooled images together."""
        return self.batch * (self.rows // 2)


@kernel
def pool_kernel(program: Program, size: Pooling) -> None:
    """Emit the kernel (y, x): the maximum of every 2 x 2 square."""
    program.start(
        f"pool_{size.label}", size.threads, 3 * size.pooled * size.columns // 2 * size.channels
    )
    with program.share(size.pooled) as row, _squares(program, size) as (column, vector):
        corners = _corners(program, size, 1, row, column, vector)
        place = _pooled_place(size, row, column, vector)
        value = functools.reduce(maximum, corners)
        program.write(0, place, value)


@kernel
def pool_gradient_kernel(program: Program, size: Pooling) -> None:
    """Emit the kernel (dx, dy, x): the gradient goes to the first of the largest pixels."""
    operations = 6 * size.pooled * size.columns // 2 * size.channels
    program.start(f"pool_gradient_{size.label}", size.threads, operations)
    with program.share(size.pooled) as row:
        with _squares(program, size) as (column, vector):
            _spread(program, size, row, column, vector)
        _clear_odd_edges(program, size, row)


@contextmanager
def _squares(program: Program, size: Pooling) -> Iterator[tuple[UOp, UOp]]:
    """Loop over the squares of a row and the vectors of a square."""
    vectors = size.channels // size.lanes
    with program.loop(size.columns // 2) as column, program.loop(vectors) as vector:
        yield column, vector


def _spread(program: Program, size: Pooling, row: UOp, column: UOp, vector: UOp) -> None:
    """Give the gradient of one pooled vector to one of its four pixels, lane by lane."""
    corners = _corners(program, size, 2, row, column, vector)
    place = _pooled_place(size, row, column, vector)
    rest = program.read(1, place, size.lanes)
    largest = functools.reduce(maximum, corners)
    zero = constant(0.0, size.lanes)
    for (down, right), corner in zip(CORNERS, corners, strict=True):
        share = corner.alu(Ops.CMPLT, largest).where(zero, rest)
        rest = corner.alu(Ops.CMPLT, largest).where(rest, zero)
        target = _place(size, row, column, vector, down, right)
        program.write(0, target, share)


def _clear_odd_edges(program: Program, size: Pooling, row: UOp) -> None:
    """Write zeros where an odd last row or column has no square."""
    zero, vectors = constant(0.0, size.lanes), size.channels // size.lanes
    if size.columns % 2:
        with program.loop(2) as down, program.loop(vectors) as vector:
            place = _place(size, row, integer(size.columns // 2), vector, down, 0)
            program.write(0, place, zero)
    if size.rows % 2:
        half = size.rows // 2
        is_last = remainder(row, half).alu(Ops.CMPLT, integer(half - 1))
        with program.loop(is_last.where(integer(0), integer(size.columns * vectors))) as vector:
            place = _place(size, row, integer(0), vector, 2, 0)
            program.write(0, place, zero)


def _place(size: Pooling, row: UOp, column: UOp, vector: UOp, down: int | UOp, right: int) -> UOp:
    """Return the offset of a pixel's vector below and right of a square's first pixel."""
    half = size.rows // 2
    first = quotient(row, half) * size.rows + remainder(row, half) * 2 + down
    pixel = first * size.columns + column * 2 + right
    return pixel * size.channels + vector * size.lanes


def _pooled_place(size: Pooling, row: UOp, column: UOp, vector: UOp) -> UOp:
    return (row * (size.columns // 2) + column) * size.channels + vector * size.lanes


def _corners(
    program: Program, size: Pooling, slot: int, row: UOp, column: UOp, vector: UOp
) -> list[UOp]:
    """Return the four vectors of a square."""
    places = [_place(size, row, column, vector, down, right) for down, right in CORNERS]
    return [program.read(slot, place, size.lanes) for place in places]


@dataclass(frozen=True)
class Join:
    """Pixels whose channels come from two tensors."""

    pixels: int
    left: int
    right: int
    lanes: int
    threads: int


@kernel
def join_kernel(program: Program, size: Join) -> None:
    """Emit the kernel (joined, left, right)."""
    _copy(program, size, "join", (1, 2), 0)


@kernel
def part_kernel(program: Program, size: Join) -> None:
    """Emit the kernel (left, right, joined)."""
    _copy(program, size, "part", (0, 1), 2)


def _copy(program: Program, size: Join, name: str, sides: tuple[int, int], joined: int) -> None:
    """Copy between two tensors and the joined one, whichever way the slots say."""
    program.start(f"{name}_{size.pixels}x{size.left}x{size.right}", size.threads)
    with program.share(size.pixels) as pixel:
        start = 0
        for slot, channels in zip(sides, (size.left, size.right), strict=True):
            with program.loop(channels // size.lanes) as vector:
                inside = pixel * channels + vector * size.lanes
                outside = pixel * (size.left + size.right) + start + vector * size.lanes
                side = program.at(slot, inside, size.lanes)
                whole = program.at(joined, outside, size.lanes)
                target, source = (whole, side) if joined == 0 else (side, whole)
                program.store(target, program.load(source))
            start += channels
