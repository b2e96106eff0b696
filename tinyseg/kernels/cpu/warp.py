"""The kernel that samples images (bilinear) and labels (nearest) at displaced places, together."""

from dataclasses import dataclass

from tinygrad.dtype import dtypes
from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import (
    Program,
    integer,
    kernel,
    larger,
    quotient,
    remainder,
    smaller,
)

IMAGE_OUT, LABEL_OUT, IMAGE, LABEL, MATRIX = range(5)
"""Buffers; displacements of pixels and what fills the border follow, where there are any."""
SHIFT, FILL = 5, -1


@dataclass(frozen=True)
class Warp:
    """What is compiled into the kernel."""

    batch: int
    channels: int
    rows: int
    columns: int
    out_rows: int
    out_columns: int
    shifted: bool
    """Whether each output pixel has a displacement of its own."""
    filled: bool
    """Whether the outside is filled; otherwise the image is reflected at its border."""
    ignore: int
    threads: int

    @property
    def label(self) -> str:
        """A name for programs."""
        sizes = (self.batch, self.channels, self.rows, self.columns)
        return "x".join(map(str, (*sizes, self.out_rows, self.out_columns)))


@kernel
def warp_kernel(program: Program, warp: Warp) -> None:
    """Emit the kernel (image, label, from image, from label, matrices, [shifts], [fill])."""
    program.start(
        f"warp_{warp.label}", warp.threads, 40 * warp.batch * warp.out_rows * warp.out_columns
    )
    with program.share(warp.batch * warp.out_rows) as line:
        sample, row = quotient(line, warp.out_rows), remainder(line, warp.out_rows)
        matrix = [program.emit(program.read(MATRIX, sample * 6 + k)) for k in range(6)]
        down = program.emit(_centered(row, warp.out_rows))
        with program.loop(warp.out_columns) as column:
            right = _centered(column, warp.out_columns)
            _pixel(program, warp, sample, line, column, matrix, (down, right))


def _centered(index: UOp, size: int) -> UOp:
    return index.cast(dtypes.float) - _number((size - 1) / 2)


def _pixel(
    program: Program,
    warp: Warp,
    sample: UOp,
    line: UOp,
    column: UOp,
    matrix: list[UOp],
    place: tuple[UOp, UOp],
) -> None:
    """Write one pixel of all channels and of the label."""
    down, right = place
    if warp.shifted:
        first = (line + sample * warp.out_rows) * warp.out_columns + column
        plane = warp.out_rows * warp.out_columns
        down = down + program.read(SHIFT, first)
        right = right + program.read(SHIFT, first + plane)
    y = _axis(warp, matrix[0] * down + matrix[1] * right + matrix[2], warp.rows)
    x = _axis(warp, matrix[3] * down + matrix[4] * right + matrix[5], warp.columns)
    outside = y.outside.alu(Ops.OR, x.outside) if warp.filled else None
    nearest = (sample * warp.rows + y.nearest) * warp.columns + x.nearest
    value = program.read(LABEL, nearest)
    if outside is not None:
        value = outside.where(UOp.const(value.dtype, warp.ignore), value)
    program.write(LABEL_OUT, line * warp.out_columns + column, value)
    for node in (*y.ends, *x.ends, y.fraction, x.fraction):
        program.emit(node)
    row = line - sample * warp.out_rows
    with program.loop(warp.channels) as channel:
        plane = sample * warp.channels + channel
        value = _bilinear(program, warp, plane, y, x)
        if outside is not None:
            slot = len(program.buffers) + FILL
            value = outside.where(program.read(slot, plane), value)
        target = (plane * warp.out_rows + row) * warp.out_columns + column
        program.write(IMAGE_OUT, target, value)


@dataclass(frozen=True)
class _Axis:
    """Where a coordinate falls on one axis of the image."""

    ends: tuple[UOp, UOp]
    """The pixels before and after, inside the image."""
    fraction: UOp
    """The position between the first and the second, 0 to 1."""
    nearest: UOp
    outside: UOp


def _axis(warp: Warp, place: UOp, size: int) -> _Axis:
    """Follow `reference._axis`, operation by operation."""
    if not warp.filled:
        place = _reflected(place, size)
    outside = place.alu(Ops.CMPLT, _number(-0.5)).alu(
        Ops.OR, _number(size - 0.5).alu(Ops.CMPLT, place)
    )
    place = _clamped(place, -0.5, size - 0.5)
    before = (place + _number(1.0)).cast(dtypes.int) - integer(1)
    nearest = (place + _number(0.5)).cast(dtypes.int)
    ends = larger(before, 0), smaller(before + 1, size - 1)
    fraction = place - before.cast(dtypes.float)
    return _Axis(ends, fraction, smaller(nearest, size - 1), outside)


def _reflected(place: UOp, size: int) -> UOp:
    """Mirror a coordinate at the outer edges of the first and the last pixel."""
    place = _clamped(place, -100.0 * size, 100.0 * size) + _number(0.5)
    turns = (place * _number(0.5 / size) + _number(128.0)).cast(dtypes.int) - integer(128)
    place = place - turns.cast(dtypes.float) * _number(2.0 * size)
    back = _number(2.0 * size) - place
    return back.alu(Ops.CMPLT, place).where(back, place) - _number(0.5)


def _clamped(place: UOp, low: float, high: float) -> UOp:
    place = place.alu(Ops.CMPLT, _number(low)).where(_number(low), place)
    return _number(high).alu(Ops.CMPLT, place).where(_number(high), place)


def _bilinear(program: Program, warp: Warp, plane: UOp, y: _Axis, x: _Axis) -> UOp:
    """Return the value between four pixels; exactly a pixel's own where the fractions are 0."""
    rows = [(plane * warp.rows + end) * warp.columns for end in y.ends]
    (a, b), (c, d) = ([program.read(IMAGE, row + end) for end in x.ends] for row in rows)
    above, below = a + (b - a) * x.fraction, c + (d - c) * x.fraction
    return above + (below - above) * y.fraction


def _number(value: float) -> UOp:
    return UOp.const(dtypes.float, value)
