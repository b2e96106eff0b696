"""The kernel that filters images along rows and columns, with weights for every place."""

from dataclasses import dataclass

from tinygrad.uop.ops import UOp

from tinyseg.kernels.cpu.program import (
    Program,
    broadcast,
    constant,
    kernel,
    larger,
    pieces,
    quotient,
    remainder,
    smaller,
)

OUT, SCRATCH, IMAGE, DOWN, RIGHT = range(5)
"""Buffers; the scratch has one line for each thread, with room for the taps on both sides."""


@dataclass(frozen=True)
class Smooth:
    """What is compiled into the kernel."""

    batch: int
    channels: int
    rows: int
    columns: int
    taps: int
    """An odd number: so many neighbors are weighed, the pixel itself in the middle."""
    lanes: int
    threads: int

    @property
    def reach(self) -> int:
        """Pixels on either side."""
        return self.taps // 2

    @property
    def line(self) -> int:
        """Floats in a thread's scratch, in whole vectors."""
        return -(-(self.columns + 2 * self.reach) // self.lanes) * self.lanes

    @property
    def label(self) -> str:
        """A name for programs."""
        sizes = (self.batch, self.channels, self.rows, self.columns, self.taps)
        return "x".join(map(str, sizes))


@kernel
def smooth_kernel(program: Program, size: Smooth) -> None:
    """Emit the kernel (out, scratch, image, taps for rows, taps for columns)."""
    operations = 4 * size.taps * size.batch * size.channels * size.rows * size.columns
    program.start(f"smooth_{size.label}", size.threads, operations)
    start = program.emit(program.core * size.line)
    with program.loop(size.line // size.lanes) as place:
        zero = constant(0.0, size.lanes)
        program.write(SCRATCH, start + place * size.lanes, zero)
    with program.share(size.batch * size.channels * size.rows) as line:
        _down(program, size, line, start)
        _right(program, size, line, start)


def _down(program: Program, size: Smooth, line: UOp, start: UOp) -> None:
    """Weigh the rows above and below a line into the scratch."""
    plane, row = quotient(line, size.rows), remainder(line, size.rows)
    sample = quotient(plane, size.channels)
    weights, sources = [], []
    for tap in range(size.taps):
        place = (sample * size.taps + tap) * size.rows + row
        weights.append(program.emit(program.read(DOWN, place)))
        source = larger(smaller(row + (tap - size.reach), size.rows - 1), 0)
        sources.append(program.emit((plane * size.rows + source) * size.columns))
    for first, count, width in pieces(size.columns, size.lanes):
        with program.loop(count) as index:
            column = index * width + first
            total = constant(0.0, width)
            for weight, source in zip(weights, sources, strict=True):
                value = program.read(IMAGE, source + column, width)
                total = total + broadcast(weight, width) * value
            program.write(SCRATCH, start + (column + size.reach), total)


def _right(program: Program, size: Smooth, line: UOp, start: UOp) -> None:
    """Weigh the scratch's neighbors into the output."""
    sample = quotient(quotient(line, size.rows), size.channels)
    for first, count, width in pieces(size.columns, size.lanes):
        with program.loop(count) as index:
            column = index * width + first
            total = constant(0.0, width)
            for tap in range(size.taps):
                place = (sample * size.taps + tap) * size.columns + column
                weight = program.read(RIGHT, place, width)
                total = total + weight * program.read(SCRATCH, start + (column + tap), width)
            program.write(OUT, line * size.columns + column, total)
