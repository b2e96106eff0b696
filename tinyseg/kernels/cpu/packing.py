"""Weights into the order in which the forward kernel reads them, and sums back into the layout."""

from dataclasses import dataclass

from tinygrad.dtype import dtypes
from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import Index, Program, kernel, quotient, remainder
from tinyseg.kernels.shapes import Convolution, Tile

CHUNK = 256
"""Inputs that `unpack_kernel` copies for one vector of outputs: 16 streams are then written from
front to back (1024 x 1024 x 3 x 3 took 22 ms the other way round, 11 ms so)."""


@dataclass(frozen=True)
class Layout:
    """How the weights of a convolution are laid out: the strides of its axes, in floats."""

    outputs: int
    inputs: int
    rows: int
    columns: int
    first: int = 0
    phases: int = 1
    """Sub-pixels of a transposed convolution; their weights are one float apart."""

    def turned(self, kernel: int) -> "Layout":
        """Return the layout for the input gradient: channels swapped, kernel turned around."""
        first = self.first + (kernel - 1) * (self.rows + self.columns)
        return Layout(self.inputs, self.outputs, -self.rows, -self.columns, first)


@kernel
def pack_kernel(program: Program, conv: Convolution, tile: Tile, layout: Layout) -> None:
    """Emit the kernel (packed, weights): (tile, block, ky, in, kx, out) from any layout."""
    program.start(f"pack_{conv.label}", tile.threads)
    blocks, tiles = conv.inputs // tile.block, conv.outputs // tile.width
    with program.share(tiles * blocks) as index, program.loop(conv.kernel) as row:
        number, block = quotient(index, blocks), remainder(index, blocks)
        per_phase = tiles // layout.phases
        phase, output = quotient(number, per_phase), remainder(number, per_phase)
        source = phase + output * (tile.width * layout.outputs) + row * layout.rows
        source = source + (block * (tile.block * layout.inputs) + layout.first)
        target = (index * conv.kernel + row) * (tile.block * conv.kernel * tile.width)
        with program.loop(tile.block) as channel, program.loop(conv.kernel) as column:
            start = source + channel * layout.inputs + column * layout.columns
            place = target + (channel * conv.kernel + column) * tile.width
            for vector in range(tile.vectors):
                value = _gather(program, start, vector * tile.lanes, tile, layout)
                program.write(0, place + vector * tile.lanes, value)


def _gather(program: Program, start: UOp, skip: int, tile: Tile, layout: Layout) -> UOp:
    """Return one vector of weights of neighboring output channels."""
    if layout.outputs == 1:
        return program.read(1, start + skip, tile.lanes)
    places = [start + (skip + lane) * layout.outputs for lane in range(tile.lanes)]
    values = tuple(program.read(1, place) for place in places)
    return UOp(Ops.STACK, dtypes.float.vec(tile.lanes), values)


@kernel
def unpack_kernel(
    program: Program, conv: Convolution, parts: int, lanes: int, threads: int, layout: Layout
) -> None:
    """Emit the kernel (dW, sums): add the threads' parts (ky, kx, in, out), put in a layout."""
    program.start(f"unpack_{conv.label}", threads)
    taps, part = conv.kernel**2, conv.kernel**2 * conv.inputs * conv.outputs
    chunk = max(d for d in range(1, CHUNK + 1) if conv.inputs % d == 0)
    chunks = conv.inputs // chunk
    pieces = conv.outputs // lanes * chunks
    with program.share(pieces) as piece, program.loop(chunk) as inside:
        vector, channel = quotient(piece, chunks), remainder(piece, chunks) * chunk + inside
        target = channel * layout.inputs + vector * (lanes * layout.outputs) + layout.first
        with program.loop(taps) as tap:
            row, column = quotient(tap, conv.kernel), remainder(tap, conv.kernel)
            start = (tap * conv.inputs + channel) * conv.outputs + vector * lanes
            total = program.read(1, start, lanes)
            for number in range(1, parts):
                total = total + program.read(1, start + number * part, lanes)
            place = target + row * layout.rows + column * layout.columns
            _scatter(program, place, total, lanes, layout.outputs)


def _scatter(program: Program, place: Index, value: UOp, lanes: int, step: int) -> None:
    """Store the lanes of a vector `step` floats apart."""
    if step == 1:
        program.write(0, place, value)
        return
    for lane in range(lanes):
        one = UOp(Ops.GEP, dtypes.float, (value,), (lane,))
        program.write(0, place + lane * step, one)
