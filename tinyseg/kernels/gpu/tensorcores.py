"""Convolutions as matrix products for the tensor cores of GPUs, in half types over NHWC memory.

A warp multiplies weights x pixels (forward and input gradient) or output channels x input channels
(weight gradient); tinygrad's lowering makes the innermost three loops one instruction. Rows and
the summed axis may come in any order, if both factors agree on it: the order here gives a thread
neighbors in memory, which it reads and writes by up to 16 bytes at once.
"""

from collections.abc import Callable
from itertools import count

from tinygrad.codegen.opt import Opt, OptOps
from tinygrad.dtype import DType, dtypes
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, UOp

from tinyseg.kernels.shapes import Convolution, Warp

Kernel = Callable[..., UOp]


def forward_kernel(conv: Convolution, warp: Warp, spread: int = 1) -> Kernel:
    """Build out (b, y, x, o) from images (b, y, x, i), weights (o, ky, kx, i) and a bias (o).

    With `spread` > 1 the images are read as if spread - 1 zeros stood between their pixels (the
    input gradient of a strided convolution); `conv` has that larger size. A scattering
    convolution has weights (sy, sx, o, i).
    """

    def build(out: UOp, x: UOp, weights: UOp, *bias: UOp) -> UOp:
        loops, scale, outputs = _Loops(warp), conv.scatter, conv.outputs // conv.scatter**2
        wide, tall = loops.unrolled(warp.wide), loops.unrolled(warp.tall)
        down, right, image = loops.over(scale), loops.over(scale), loops.over(conv.batch)
        row, column = _output_pixel(loops, conv, wide)
        inside = (row < conv.out_rows) & (column < conv.out_columns)
        channel = _output_channel(loops, outputs, tall)
        tap_row, tap_column, feature, known = _summed_inputs(loops, conv)

        source, seen = _source(conv, image, row, column, tap_row, tap_column, spread)
        line = (down * scale + right) * outputs + channel
        tap = (line * conv.kernel + tap_row) * conv.kernel + tap_column
        total = loops.total(
            _read(weights, tap * conv.inputs + feature, known & (channel < outputs)),
            _read(x, source * conv.inputs + feature, known & inside & seen),
        )
        if bias:
            total = total + _read(bias[0], channel, channel < outputs).cast(dtypes.float)
        if conv.relu:
            total = (total < 0).where(0, total)  # NaN is passed on
        row, column = row * scale + down, column * scale + right
        pixel = (image * conv.out_rows * scale + row) * conv.out_columns * scale + column
        target = (pixel * outputs + channel).valid(inside & (channel < outputs))
        return loops.kernel(f"forward_{conv.label}", out, target, total)

    return build


def weight_kernel(conv: Convolution, warp: Warp) -> Kernel:
    """Build sums (part, ky x kx x i, o) from images (b, y, x, i) and output gradient (b, y, x, o).

    Each part sums over its own rows of pixels.
    """

    def build(out: UOp, x: UOp, gradient: UOp) -> UOp:
        loops = _Loops(warp)
        wide, tall = loops.unrolled(warp.wide), loops.unrolled(warp.tall)
        part = loops.over(warp.parts)
        channel = _output_channel(loops, conv.outputs, tall)
        tap_row, tap_column, feature, known = _input_channel(loops, conv, wide)
        image, row, column, inside = _summed_pixel(loops, conv, part)

        source, seen = _source(conv, image, row, column, tap_row, tap_column)
        pixel = (image * conv.out_rows + row) * conv.out_columns + column
        total = loops.total(
            _read(gradient, pixel * conv.outputs + channel, inside & (channel < conv.outputs)),
            _read(x, source * conv.inputs + feature, known & inside & seen),
        )
        tap = (part * conv.kernel + tap_row) * conv.kernel + tap_column
        target = (tap * conv.inputs + feature) * conv.outputs + channel
        target = target.valid(known & (channel < conv.outputs))
        return loops.kernel(f"weight_{conv.label}", out, target, total)

    return build


class _Loops:
    """The loops of a kernel, numbered in the order in which they are made.

    The order matters: `Opt` unrolls the first loop of those that are left, and the tensor core
    takes the last loop over the rows, over the columns, and of the sum.
    """

    def __init__(self, warp: Warp):
        self.warp, self.instruction = warp, warp.instruction
        self.numbers = count()
        self.outer: list[UOp] = []
        self.summed: list[UOp] = []
        exists = self.instruction.exists
        self.opts = [Opt(OptOps.TC, 0, (-1, 0, 1))] if exists else []

    def over(self, size: int, kind: AxisType = AxisType.LOOP) -> UOp:
        """Return the index of a loop over the output."""
        return self._add(self.outer, size, kind)

    def unrolled(self, size: int, summed: bool = False) -> UOp:
        """Return the index of a loop that becomes registers; only others may follow it."""
        if size > 1:
            self.opts.append(Opt(OptOps.UNROLL if summed else OptOps.UPCAST, 0, size))
        return self.sum(size) if summed else self.over(size)

    def sum(self, size: int) -> UOp:
        """Return the index of a loop that is summed over."""
        return self._add(self.summed, size, AxisType.REDUCE)

    def _add(self, loops: list[UOp], size: int, kind: AxisType) -> UOp:
        if size == 1:
            return UOp.const(dtypes.weakint, 0)
        loops.append(UOp.range(size, next(self.numbers), kind))
        return loops[-1]

    def total(self, row: UOp, column: UOp) -> UOp:
        """Return the sum of products in float32."""
        if self.instruction.exists:  # tinygrad knows the instruction by this form
            product = (row * column).cast(dtypes.float)
        else:
            product = row.cast(dtypes.float) * column.cast(dtypes.float)
        return product.reduce(*self.summed, arg=Ops.ADD)

    def kernel(self, name: str, out: UOp, target: UOp, value: UOp) -> UOp:
        """Return the kernel that stores a value."""
        memory, dtype = _memory(out)
        stored = value.cast(dtype).bitcast(memory.dtype.base)
        store = memory.index(target, ptr=True).store(stored).end(*self.outer)
        return store.sink(arg=KernelInfo(name, opts_to_apply=tuple(self.opts)))


def _output_pixel(loops: _Loops, conv: Convolution, wide: UOp) -> tuple[UOp, UOp]:
    """Return row and column; the instruction's columns are pixels."""
    size = loops.instruction.columns
    across = tile_width(conv.out_columns, size)
    row = loops.over(tiles(conv.out_rows, size // across))
    column = loops.over(tiles(conv.out_columns, across * loops.warp.wide))
    pixel = loops.over(size)
    below = pixel // across
    column = (column * loops.warp.wide + wide) * across + pixel - below * across
    return row * (size // across) + below, column


def _summed_pixel(loops: _Loops, conv: Convolution, part: UOp) -> tuple[UOp, UOp, UOp, UOp]:
    """Return image, row, column and whether they exist; the instruction sums over pixels."""
    size = loops.instruction.depth
    across = tile_width(conv.out_columns, size)
    high = tiles(conv.out_rows, size // across)
    shared = tiles(conv.batch * high, loops.warp.parts)
    line = part * shared + loops.sum(shared)
    column, pixel = loops.sum(tiles(conv.out_columns, across)), loops.sum(size)
    below, image = pixel // across, line // high
    row = (line - image * high) * (size // across) + below
    column = column * across + pixel - below * across
    inside = (image < conv.batch) & (row < conv.out_rows) & (column < conv.out_columns)
    return image, row, column, inside


def _output_channel(loops: _Loops, outputs: int, tall: UOp) -> UOp:
    """Return the channel; a thread's rows (n, n + 8 of each instruction) are neighbors."""
    size, warp = loops.instruction.rows, loops.warp
    block = loops.over(tiles(outputs, warp.rows)) * warp.together
    block = block + loops.over(warp.together, AxisType.LOCAL)
    row = loops.over(size)
    pairs = 2 if size == 16 else 1
    later = row // 8 if pairs == 2 else UOp.const(dtypes.weakint, 0)
    spaced = (row - later * 8) * (pairs * warp.tall)
    return block * (size * warp.tall) + spaced + tall * pairs + later


def _input_channel(loops: _Loops, conv: Convolution, wide: UOp) -> tuple[UOp, UOp, UOp, UOp]:
    """Return row and column of the tap, the channel, and whether they exist."""
    size = loops.instruction.columns * loops.warp.wide
    if conv.inputs % size == 0:
        taps = loops.over(conv.kernel), loops.over(conv.kernel)
        block, column = loops.over(conv.inputs // size), loops.over(loops.instruction.columns)
        return *taps, block * size + column * loops.warp.wide + wide, _always()
    block = loops.over(tiles(conv.inputs * conv.kernel**2, size))
    column = loops.over(loops.instruction.columns)
    return _split_tap(conv, block * size + column * loops.warp.wide + wide)


def _summed_inputs(loops: _Loops, conv: Convolution) -> tuple[UOp, UOp, UOp, UOp]:
    """Return row and column of the tap, the channel, and whether they exist.

    Of 16 or 32 channels a thread of CUDA's fragments sums k, k + 1, k + 8, k + 9 (k = 0, 2, 4, 6):
    they are moved to be neighbors.
    """
    size = loops.instruction.depth
    if conv.inputs % size:
        block = loops.sum(tiles(conv.inputs * conv.kernel**2, size))
        return _split_tap(conv, block * size + loops.sum(size))
    times = 2 if size == 16 and conv.inputs % 32 == 0 else 1
    time = loops.unrolled(times, summed=True)
    taps = loops.sum(conv.kernel), loops.sum(conv.kernel)
    block, inner = loops.sum(conv.inputs // (size * times)), loops.sum(size)
    if size == 16:  # 4 x times neighbors for each of the four threads of a row
        run = 4 * times
        pair, later = inner // 2, inner // 8
        inner = inner - pair * 2 + (pair - later * 4) * run + later * 2 + time * 4
    return *taps, block * (size * times) + inner, _always()


def _split_tap(conv: Convolution, number: UOp) -> tuple[UOp, UOp, UOp, UOp]:
    """Return row, column and channel of a number that counts them all; channels too few to fill."""
    tap = number // conv.inputs
    row = tap // conv.kernel
    known = number < conv.inputs * conv.kernel**2
    return row, tap - row * conv.kernel, number - tap * conv.inputs, known


def _source(
    conv: Convolution,
    image: UOp,
    row: UOp,
    column: UOp,
    tap_row: UOp,
    tap_column: UOp,
    spread: int = 1,
) -> tuple[UOp, UOp]:
    """Return the number of the pixel that a tap reads, and whether it exists."""
    row = row * conv.stride + tap_row - conv.padding
    column = column * conv.stride + tap_column - conv.padding
    seen = (row >= 0) & (row < conv.rows) & (column >= 0) & (column < conv.columns)
    if spread > 1:
        seen = seen & (row % spread).eq(0) & (column % spread).eq(0)
        row, column = row // spread, column // spread
    rows, columns = tiles(conv.rows, spread), tiles(conv.columns, spread)
    return (image * rows + row) * columns + column, seen


def _read(buffer: UOp, index: UOp, exists: UOp) -> UOp:
    """Return an element, 0 where there is none (lowering makes the condition one of the load).

    The condition may not be part of the index already: tinygrad would shorten an instruction's loop
    to the elements that exist.
    """
    memory, dtype = _memory(buffer)
    element = memory.index(index)
    return exists.where(element, element.const_like(0)).bitcast(dtype)


def _memory(buffer: UOp) -> tuple[UOp, DType]:
    """Return a flat buffer and the type of its elements; tinygrad has no vectors of bfloat16."""
    while buffer.op is not Ops.PARAM:  # a placeholder of several axes is a reshaped parameter
        buffer = buffer.src[0]
    dtype = buffer.dtype.base
    if dtype == dtypes.bfloat16:
        return buffer.replace(dtype=dtypes.half.ptr(buffer.ptrdtype.size)), dtype
    return buffer, dtype


def _always() -> UOp:
    return UOp.const(dtypes.bool, True)


def tiles(size: int, tile: int) -> int:
    """Return how many tiles cover a size."""
    return -(-size // tile)


def tile_width(columns: int, pixels: int) -> int:
    """Return the columns of a tile of pixels: a narrow image fills it with several rows."""
    return min(pixels, 1 << (columns - 1).bit_length())
