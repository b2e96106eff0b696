"""Batch normalization with its activation, over NHWC memory: two passes forward, two backward.

A layer of stock operations makes about 20 kernels; here it is sums, normalize + ReLU, gradient
sums, gradient. All per-channel arithmetic between the passes is done by each thread for itself
at the head of the next pass, so that there are no small kernels between the large ones.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad.dtype import dtypes
from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import (
    Program,
    constant,
    kernel,
    maximum,
    quotient,
    smaller,
)

MEAN, INVERSE, SCALE, SHIFT = range(4)
"""The rows of the table that `normalize_kernel` makes for each thread."""
SLOPE, OFFSET = range(2)
"""The rows of the table that `gradient_kernel` makes for each thread."""

RUN = 256
"""Pixels summed in registers before they join the total: keeps the rounding error small."""


@dataclass(frozen=True)
class Channels:
    """Sizes of a tensor of pixels x channels, and how the work is shared."""

    pixels: int
    channels: int
    lanes: int
    threads: int

    @property
    def vectors(self) -> int:
        """Vectors per pixel."""
        return self.channels // self.lanes

    @property
    def group(self) -> int:
        """Vectors whose sums are held in registers at once."""
        return next(size for size in (4, 3, 2, 1) if self.vectors % size == 0)

    @property
    def label(self) -> str:
        """A name for programs."""
        return f"{self.pixels}x{self.channels}"

    def place(self, pixel: UOp, vector: UOp) -> UOp:
        """Return the offset of a pixel's vector."""
        return pixel * self.channels + vector * self.lanes


@kernel
def sums_kernel(program: Program, size: Channels) -> None:
    """Emit the kernel (parts, x): per thread and channel, sums of x - x[0] and its square."""
    program.start(f"sums_{size.label}", size.threads, 3 * size.pixels * size.channels)

    def terms(pixel: UOp, vector: UOp) -> tuple[UOp, UOp]:
        place = size.place(pixel, vector)
        first = program.read(1, vector * size.lanes, size.lanes)
        centered = program.read(1, place, size.lanes) - first
        return centered, centered * centered

    _sum_terms(program, size, 2, terms)


@kernel
def totals_kernel(program: Program, size: Channels) -> None:
    """Emit the kernel (parts, x): the sum of each channel over the pixels of each thread."""
    program.start(f"totals_{size.label}", size.threads, size.pixels * size.channels)

    def term(pixel: UOp, vector: UOp) -> tuple[UOp]:
        place = size.place(pixel, vector)
        return (program.read(1, place, size.lanes),)

    _sum_terms(program, size, 1, term)


@kernel
def normalize_kernel(program: Program, size: Channels, eps: float, rectify: bool) -> None:
    """Emit the kernel (y, table, mean, variance, x, parts, weight, bias).

    Every thread writes the mean and the variance, all the same numbers: that is harmless.
    """
    program.start(f"normalize_{size.label}", size.threads, 2 * size.pixels * size.channels)
    table = _Table(program, size, 1, 4)
    with program.loop(size.channels) as channel:
        _statistics(program, size, table, channel, eps)
    with program.share(size.pixels) as pixel, program.loop(size.vectors) as vector:
        place = size.place(pixel, vector)
        x = program.read(4, place, size.lanes)
        y = x * table.read(SCALE, vector) + table.read(SHIFT, vector)
        y = maximum(y, constant(0.0, size.lanes)) if rectify else y
        program.write(0, place, y)


@kernel
def gradient_sums_kernel(program: Program, size: Channels, rectify: bool) -> None:
    """Emit the kernel (parts, dy, x, table): sums of the gradient and of gradient x (x - mean).

    With `rectify` the gradient is that before the ReLU.
    """
    program.start(f"gradient_sums_{size.label}", size.threads, 6 * size.pixels * size.channels)
    table = _Table(program, size, 3, 4)

    def terms(pixel: UOp, vector: UOp) -> tuple[UOp, UOp]:
        place = size.place(pixel, vector)
        x = program.read(2, place, size.lanes)
        dz = _before_relu(program.read(1, place, size.lanes), x, table, vector, rectify)
        return dz, dz * (x - table.read(MEAN, vector))

    _sum_terms(program, size, 2, terms)


@kernel
def gradient_kernel(program: Program, size: Channels, rectify: bool) -> None:
    """Emit the kernel (dx, slopes, dweight, dbias, dy, x, table, parts): all gradients.

    dx = scale (dz - mean(dz) - (x - mean) mean(dz (x - mean)) / variance) = scale dz + slope x
    + offset, with slope and offset per channel.
    """
    program.start(f"gradient_{size.label}", size.threads, 6 * size.pixels * size.channels)
    table, slopes = _Table(program, size, 6, 4), _Table(program, size, 1, 2)
    with program.loop(size.channels) as channel:
        _slopes(program, size, table, slopes, channel)
    with program.share(size.pixels) as pixel, program.loop(size.vectors) as vector:
        place = size.place(pixel, vector)
        x = program.read(5, place, size.lanes)
        dz = _before_relu(program.read(4, place, size.lanes), x, table, vector, rectify)
        linear = x * slopes.read(SLOPE, vector) + slopes.read(OFFSET, vector)
        dx = dz * table.read(SCALE, vector) + linear
        program.write(0, place, dx)


@dataclass
class _Table:
    """Per-channel numbers of one thread in a buffer (threads, rows, channels)."""

    program: Program
    size: Channels
    slot: int
    rows: int

    def _place(self, row: int) -> UOp:
        return (self.program.core * self.rows + row) * self.size.channels

    def read(self, row: int, vector: UOp) -> UOp:
        """Return one vector of a row."""
        lanes = self.size.lanes
        return self.program.read(self.slot, self._place(row) + vector * lanes, lanes)

    def read_one(self, row: int, channel: UOp) -> UOp:
        """Return the number of one channel."""
        return self.program.read(self.slot, self._place(row) + channel)

    def write(self, row: int, channel: UOp, value: UOp) -> None:
        """Set the number of one channel."""
        self.program.write(self.slot, self._place(row) + channel, value)


def _sum_terms(
    program: Program, size: Channels, count: int, terms: Callable[[UOp, UOp], tuple[UOp, ...]]
) -> None:
    """Write the sums over this thread's pixels of `count` terms, as (threads, count, channels)."""
    first = quotient(program.core * size.pixels, size.threads)
    pixels = quotient((program.core + 1) * size.pixels, size.threads) - first
    with program.loop(size.vectors // size.group) as group:
        totals = program.zeros(count * size.group, size.lanes)
        with program.loop(quotient(pixels + (RUN - 1), RUN)) as run:
            sums = program.zeros(count * size.group, size.lanes)
            with program.loop(smaller(RUN, pixels - run * RUN)) as index:
                pixel = first + run * RUN + index
                for number in range(size.group):
                    for row, term in enumerate(terms(pixel, group * size.group + number)):
                        program.add(sums[count * number + row], term)
            for total, part in zip(totals, sums, strict=True):
                program.add(total, program.load(part))
        for number in range(size.group):
            for row in range(count):
                start = (program.core * count + row) * size.channels
                place = start + (group * size.group + number) * size.lanes
                value = program.load(totals[count * number + row])
                program.write(0, place, value)


def _total(program: Program, size: Channels, slot: int, half: int, channel: UOp) -> UOp:
    """Add up the parts of all threads, in their order, and divide by the pixels."""
    parts = [
        program.read(slot, channel + (thread * 2 + half) * size.channels)
        for thread in range(size.threads)
    ]
    return functools.reduce(lambda a, b: a + b, parts) * (1.0 / size.pixels)


def _statistics(program: Program, size: Channels, table: _Table, channel: UOp, eps: float) -> None:
    """Fill the table of `normalize_kernel` for one channel."""
    shifted = _total(program, size, 5, 0, channel)
    square = _total(program, size, 5, 1, channel)
    variance = maximum(square - shifted * shifted, UOp.const(dtypes.float, 0.0))
    mean = shifted + program.read(4, channel)
    inverse = UOp.const(dtypes.float, 1.0).alu(Ops.FDIV, (variance + eps).alu(Ops.SQRT))
    scale = inverse * program.read(6, channel)
    table.write(MEAN, channel, mean)
    program.write(2, channel, mean)
    program.write(3, channel, variance)
    table.write(INVERSE, channel, inverse)
    table.write(SCALE, channel, scale)
    table.write(SHIFT, channel, program.read(7, channel) - mean * scale)


def _slopes(program: Program, size: Channels, table: _Table, slopes: _Table, channel: UOp) -> None:
    """Fill the table of `gradient_kernel` for one channel."""
    mean_dz = _total(program, size, 7, 0, channel)
    mean_product = _total(program, size, 7, 1, channel)
    scale, inverse = table.read_one(SCALE, channel), table.read_one(INVERSE, channel)
    slope = (scale * inverse) * (inverse * mean_product) * -1.0
    slopes.write(SLOPE, channel, slope)
    offset = scale * mean_dz * -1.0 - slope * table.read_one(MEAN, channel)
    slopes.write(OFFSET, channel, offset)
    to_weight = mean_product * inverse * float(size.pixels)
    program.write(2, channel, to_weight)
    program.write(3, channel, mean_dz * float(size.pixels))


def _before_relu(dy: UOp, x: UOp, table: _Table, vector: UOp, rectify: bool) -> UOp:
    """Return the gradient before the ReLU, whose sign is computed anew from x."""
    if not rectify:
        return dy
    y = x * table.read(SCALE, vector) + table.read(SHIFT, vector)
    zero = constant(0.0, table.size.lanes)
    return zero.alu(Ops.CMPLT, y).where(dy, zero)
