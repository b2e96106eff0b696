"""The convolution kernel: NHWC images, weights packed by output tile, registers full of pixels.

Loops, outermost first: the thread's share of (rows x output tiles), blocks of input channels,
column tiles, kernel rows inside the image, input channels; the body of the last one is unrolled
over kernel columns x pixels x vectors of output channels. Padding costs nothing: rows outside
are left out of a loop's bounds, columns outside are left out of the text of the edge tiles.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import (
    Index,
    Program,
    broadcast,
    constant,
    integer,
    kernel,
    larger,
    maximum,
    quotient,
    remainder,
    smaller,
)
from tinyseg.kernels.shapes import Convolution, Tile

OUTPUT, IMAGE, WEIGHT, _, BIAS = range(5)
"""Argument 3 holds the weights before packing: not read by the kernel but by their gradient."""
Sums = dict[tuple[int, int], UOp]
"""The registers by pixel and vector."""


@kernel
def forward_kernel(
    program: Program, conv: Convolution, tile: Tile, weights_first: bool = False
) -> None:
    """Emit the kernel (y, x, packed, weights, bias?).

    `weights_first` gives every thread its own output tiles (deep layers: few pixels, many
    weights); without it every thread has its own rows.
    """
    program.start(f"conv_{conv.label}", tile.threads, conv.operations)
    _Forward(program, conv, tile).emit(weights_first)


@dataclass
class _Forward:
    """Emits the loops of one kernel."""

    program: Program
    conv: Convolution
    tile: Tile

    def emit(self, weights_first: bool) -> None:
        """Share the work out and walk over it."""
        conv, tile, program = self.conv, self.tile, self.program
        rows, tiles = conv.batch * conv.out_rows, conv.outputs // tile.width
        shared = tiles if weights_first else rows
        first = quotient(program.core * shared, tile.threads)
        count = quotient((program.core + 1) * shared, tile.threads) - first
        with program.loop(count) as outer:
            if not weights_first:
                with program.loop(tiles) as number, program.loop(1):
                    self._blocks(number, lambda body: body(first + outer))
                return

            def all_rows(body: Callable[[UOp], None]) -> None:
                with program.loop(rows) as row:
                    body(row)

            self._blocks(first + outer, all_rows)

    def _blocks(self, number: UOp, rows: Callable[[Callable[[UOp], None]], None]) -> None:
        """Walk over the blocks of input channels; more than one block adds up in the output."""
        blocks = self.conv.inputs // self.tile.block
        if blocks == 1:
            rows(lambda row: self._row(row, number, integer(0), False))
            return
        rows(lambda row: self._fill(row, number))
        with self.program.loop(blocks) as block:
            rows(lambda row: self._row(row, number, block, True))

    def _fill(self, row: UOp, number: UOp) -> None:
        """Set one output row to the bias or zero, before the blocks add to it."""
        with self.program.loop(self.conv.out_columns) as column:
            for vector in range(self.tile.vectors):
                value = self._initial(row, number, False, column, 0, vector)
                self.program.store(self._output(row, number, column, 0, vector), value)

    def _row(self, row: UOp, number: UOp, block: UOp, add: bool) -> None:
        """Walk over the columns of one output row: edge tiles as they are, the rest in a loop."""
        columns, steps = self.conv.out_columns, self.tile.steps
        starts = list(range(0, columns, steps))
        inner = [start for start in starts if self._inside(start)]
        for start in starts:
            if start not in inner:
                self._tile(row, number, block, add, start, min(steps, columns - start))
        if inner:
            with self.program.loop(len(inner)) as index:
                self._tile(row, number, block, add, index * steps + inner[0], steps)

    def _inside(self, start: int) -> bool:
        """Tell whether a full tile from this column on needs no padding."""
        conv, last = self.conv, start + self.tile.steps - 1
        reach = last * conv.stride + conv.kernel - 1 - conv.padding
        return (
            start * conv.stride >= conv.padding and reach < conv.columns and last < conv.out_columns
        )

    def _tile(self, row: UOp, number: UOp, block: UOp, add: bool, start: Index, steps: int) -> None:
        """Compute `steps` pixels of one output tile."""
        program, tile = self.program, self.tile
        numbers = itertools.product(range(steps), range(tile.vectors))
        sums = dict(zip(numbers, program.registers(steps * tile.vectors, tile.lanes), strict=True))
        for (step, vector), register in sums.items():
            program.store(register, self._initial(row, number, add, start, step, vector))
        self._accumulate(sums, row, number, block, start)
        for (step, vector), register in sums.items():
            address = self._output(row, number, start, step, vector)
            program.store(address, self._finished(program.load(register), block))

    def _initial(
        self, row: UOp, number: UOp, add: bool, start: Index, step: int, vector: int
    ) -> UOp:
        tile, program = self.tile, self.program
        if add:
            return program.load(self._output(row, number, start, step, vector))
        if not self.conv.bias:
            return constant(0.0, tile.lanes)
        per_phase = self.conv.outputs // self.conv.scatter**2 // tile.width
        channel = remainder(number, per_phase) * tile.width + vector * tile.lanes
        return program.read(BIAS, channel, tile.lanes)

    def _finished(self, value: UOp, block: UOp) -> UOp:
        """Return a sum as it is written: with `relu` rectified, but only after the last block."""
        blocks = self.conv.inputs // self.tile.block
        if not self.conv.relu:
            return value
        rectified = maximum(value, constant(0.0, self.tile.lanes))
        if blocks == 1:
            return rectified
        return block.alu(Ops.CMPLT, integer(blocks - 1)).where(value, rectified)

    def _output(self, row: UOp, number: UOp, start: Index, step: int, vector: int) -> UOp:
        """Return the address of one output vector, scattered for a transposed convolution."""
        conv, tile = self.conv, self.tile
        column = integer(start) + step
        if conv.scatter == 1:
            pixel, channels, tile_number = row * conv.out_columns + column, conv.outputs, number
        else:
            scatter = conv.scatter
            channels = conv.outputs // scatter**2
            tiles = channels // tile.width
            phase, tile_number = quotient(number, tiles), remainder(number, tiles)
            out_row = row * scatter + quotient(phase, scatter)
            out_column = column * scatter + remainder(phase, scatter)
            pixel = out_row * (conv.out_columns * scatter) + out_column
        offset = pixel * channels + tile_number * tile.width + vector * tile.lanes
        return self.program.at(OUTPUT, offset, tile.lanes)

    def _accumulate(self, sums: Sums, row: UOp, number: UOp, block: UOp, start: Index) -> None:
        """Add the products of all kernel rows and input channels of one block."""
        conv, tile, program = self.conv, self.tile, self.program
        image, out_row = quotient(row, conv.out_rows), remainder(row, conv.out_rows)
        top = out_row * conv.stride - conv.padding
        begin = larger(0, integer(0) - top)
        end = smaller(conv.kernel, integer(conv.rows) - top)
        blocks = conv.inputs // tile.block
        with program.loop(end - begin) as index:
            kernel_row = begin + index
            in_row = (image * conv.rows + top + kernel_row) * (conv.columns * conv.inputs)
            slab = ((number * blocks + block) * conv.kernel + kernel_row) * tile.block
            with program.loop(tile.block) as channel:
                pixels = in_row + block * tile.block + channel
                weights = (slab + channel) * (conv.kernel * tile.width)
                self._products(sums, pixels, weights, start)

    def _products(self, sums: Sums, pixels: UOp, weights: UOp, start: Index) -> None:
        """Unroll kernel columns x pixels x vectors for one input channel."""
        conv, tile, program = self.conv, self.tile, self.program
        for kernel_column in range(conv.kernel):
            weight = [
                program.read(WEIGHT, weights + (kernel_column * tile.width + skip), tile.lanes)
                for skip in range(0, tile.width, tile.lanes)
            ]
            for step in sorted({step for step, _ in sums}):
                shift = step * conv.stride + kernel_column - conv.padding
                if isinstance(start, int) and not (0 <= start * conv.stride + shift < conv.columns):
                    continue
                column = integer(start) * conv.stride + shift
                value = program.read(IMAGE, pixels + column * conv.inputs)
                spread = broadcast(value, tile.lanes)
                for vector in range(tile.vectors):
                    program.add(sums[step, vector], spread * weight[vector])
