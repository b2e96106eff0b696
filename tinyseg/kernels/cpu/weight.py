"""The weight-gradient kernel: dW[ky, kx, in, out] = sum over pixels of image x output gradient.

A register tile holds (kernel columns x input channels x vectors of output channels) and walks
over the pixels of a block of rows that stays in the cache. With stride 1 the walk goes over the
columns of the *image*: one broadcast of an image value meets the output gradients of all kernel
columns, which keeps the loads below the multiplications even at 16 channels.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import (
    Index,
    Program,
    broadcast,
    constant,
    integer,
    kernel,
    quotient,
    remainder,
    smaller,
)
from tinyseg.kernels.shapes import Convolution, Tile

OUTPUT, IMAGE, GRADIENT = range(3)


@kernel
def weight_kernel(program: Program, conv: Convolution, tile: Tile, split_inputs: bool) -> None:
    """Emit the kernel (dW parts, x, output gradient).

    `split_inputs` gives every thread its own input channels and leaves one part; otherwise every
    thread has its own rows and writes a part of its own, to be added afterwards in fixed order.
    """
    program.start(f"weight_{conv.label}", tile.threads, conv.operations)
    _Weight(program, conv, tile).emit(split_inputs)


@dataclass
class _Weight:
    """Emits the loops of one kernel."""

    program: Program
    conv: Convolution
    tile: Tile

    @property
    def together(self) -> bool:
        """Whether one register tile holds all kernel columns."""
        return self.conv.stride == 1

    @property
    def once(self) -> bool:
        """Whether one block holds all rows: the sums then start at zero in the registers."""
        return self.conv.batch * self.conv.out_rows <= self.tile.block

    def emit(self, split_inputs: bool) -> None:
        """Share the work out and walk over the blocks of rows."""
        conv, tile, program = self.conv, self.tile, self.program
        rows, tiles = conv.batch * conv.out_rows, conv.inputs // tile.steps
        shared = tiles if split_inputs else rows
        first = quotient(program.core * shared, tile.threads)
        count = quotient((program.core + 1) * shared, tile.threads) - first
        part = integer(0) if split_inputs else program.core
        if not self.once:
            self._clear(part, first, count, split_inputs)
        first_row, row_count = (integer(0), integer(rows)) if split_inputs else (first, count)
        with program.loop(quotient(row_count + (tile.block - 1), tile.block)) as block:
            begin = first_row + block * tile.block
            length = smaller(tile.block, row_count - block * tile.block)
            with program.loop(conv.kernel) as ky, program.loop(conv.outputs // tile.width) as out:
                if split_inputs:
                    with program.loop(count) as number:
                        self._tile(part, ky, out, (first + number) * tile.steps, begin, length)
                else:
                    self._all_inputs(part, ky, out, begin, length)

    def _clear(self, part: UOp, first: UOp, count: UOp, split_inputs: bool) -> None:
        """Set what this thread will add to, to zero."""
        conv, tile, program = self.conv, self.tile, self.program
        taps = conv.kernel**2
        start = first * tile.steps if split_inputs else integer(0)
        channels = count * tile.steps if split_inputs else integer(conv.inputs)
        with program.loop(taps) as tap, program.loop(channels) as channel:
            row = ((part * taps + tap) * conv.inputs + start + channel) * conv.outputs
            with program.loop(conv.outputs // tile.lanes) as vector:
                address = program.at(OUTPUT, row + vector * tile.lanes, tile.lanes)
                program.store(address, constant(0.0, tile.lanes))

    def _all_inputs(self, part: UOp, ky: UOp, out: UOp, begin: UOp, length: UOp) -> None:
        """Walk over the tiles of input channels, the last one may be narrower."""
        conv, tile = self.conv, self.tile
        whole, rest = divmod(conv.inputs, tile.steps)
        if whole:
            with self.program.loop(whole) as number:
                self._tile(part, ky, out, number * tile.steps, begin, length)
        if rest:
            self._tile(part, ky, out, integer(whole * tile.steps), begin, length, rest)

    def _tile(
        self,
        part: UOp,
        ky: UOp,
        out: UOp,
        channel: UOp,
        begin: UOp,
        length: UOp,
        steps: int | None = None,
    ) -> None:
        """Walk one register tile, or one per kernel column, over a block of rows."""
        kernel, steps = self.conv.kernel, steps or self.tile.steps
        groups = [list(range(kernel))] if self.together else [[kx] for kx in range(kernel)]
        for taps in groups:
            sums = _Sums(self.program, self.conv, self.tile, taps, steps, channel, out)
            if self.once:
                sums.clear()
            else:
                sums.move(part, ky, read=True)
            with self._inside(ky, begin, length) as (in_row, out_row):
                if self.together:
                    sums.walk_image(in_row, out_row)
                else:
                    sums.walk_output(in_row, out_row)
            sums.move(part, ky, read=False)

    @contextmanager
    def _inside(self, ky: UOp, begin: UOp, length: UOp) -> Iterator[tuple[UOp, UOp]]:
        """Loop over the rows whose image row exists; give the offsets of both rows."""
        conv, program = self.conv, self.program
        with program.loop(length) as index:
            row = begin + index
            image, out_row = quotient(row, conv.out_rows), remainder(row, conv.out_rows)
            in_row = out_row * conv.stride + ky - conv.padding
            inside = integer(-1).alu(Ops.CMPLT, in_row) & in_row.alu(Ops.CMPLT, integer(conv.rows))
            with program.loop(inside.where(integer(1), integer(0))):
                in_offset = (image * conv.rows + in_row) * (conv.columns * conv.inputs)
                yield in_offset, row * (conv.out_columns * conv.outputs)


@dataclass
class _Sums:
    """The registers of one tile: (kernel columns x input channels x output vectors)."""

    program: Program
    conv: Convolution
    tile: Tile
    taps: list[int]
    steps: int
    channel: UOp
    out: UOp

    def __post_init__(self) -> None:
        keys = [*itertools.product(self.taps, range(self.steps), range(self.tile.vectors))]
        registers = self.program.registers(len(keys), self.tile.lanes)
        self.registers = dict(zip(keys, registers, strict=True))

    def clear(self) -> None:
        """Start at zero."""
        for register in self.registers.values():
            self.program.store(register, constant(0.0, self.tile.lanes))

    def move(self, part: UOp, ky: UOp, read: bool) -> None:
        """Fetch the sums so far from memory, or write them to it."""
        conv, tile, program = self.conv, self.tile, self.program
        for (kx, step, vector), register in self.registers.items():
            tap = (part * conv.kernel + ky) * conv.kernel + kx
            line = (tap * conv.inputs + self.channel + step) * conv.outputs
            offset = line + self.out * tile.width + vector * tile.lanes
            memory = program.at(OUTPUT, offset, tile.lanes)
            target, source = (register, memory) if read else (memory, register)
            program.store(target, program.load(source))

    def walk_image(self, in_row: UOp, out_row: UOp) -> None:
        """Walk over image columns (stride 1); each meets one output column per kernel column."""
        conv = self.conv
        low = conv.kernel - 1 - conv.padding
        high = conv.out_columns - conv.padding
        edges = [column for column in range(conv.columns) if not low <= column < high]
        for column in edges:
            taps = [k for k in self.taps if 0 <= column - k + conv.padding < conv.out_columns]
            self._add(in_row, out_row, column, {k: column - k + conv.padding for k in taps})
        low = max(low, 0)
        high = min(high, conv.columns)
        if low < high:
            with self.program.loop(high - low) as index:
                column = index + low
                shifted = {k: index + (low - k + conv.padding) for k in self.taps}
                self._add(in_row, out_row, column, shifted)

    def walk_output(self, in_row: UOp, out_row: UOp) -> None:
        """Walk over the output columns that meet the image (any stride, one kernel column)."""
        conv, kx = self.conv, self.taps[0]
        shift = kx - conv.padding
        columns = range(conv.out_columns)
        inside = [c for c in columns if 0 <= c * conv.stride + shift < conv.columns]
        if inside:
            with self.program.loop(len(inside)) as index:
                column = index + inside[0]
                self._add(in_row, out_row, column * conv.stride + shift, {kx: column})

    def _add(self, in_row: UOp, out_row: UOp, column: Index, out_columns: dict[int, Index]) -> None:
        """Add the products of one image pixel with the output gradients it met."""
        conv, tile, program = self.conv, self.tile, self.program
        gradients: dict[tuple[int, int], UOp] = {}
        for kx, out_column in out_columns.items():
            start = out_row + integer(out_column) * conv.outputs + self.out * tile.width
            for vector in range(tile.vectors):
                address = program.at(GRADIENT, start + vector * tile.lanes, tile.lanes)
                gradients[kx, vector] = program.load(address)
        pixel = in_row + integer(column) * conv.inputs + self.channel
        for step in range(self.steps):
            value = program.read(IMAGE, pixel + step)
            spread = broadcast(value, tile.lanes)
            for (kx, vector), gradient in gradients.items():
                program.add(self.registers[kx, step, vector], spread * gradient)
