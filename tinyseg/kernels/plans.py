"""Which path a convolution takes on a device, with which tile, and why."""

import functools
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tinygrad import Device, Tensor, dtypes
from tinygrad.helpers import CPU_COUNT
from tinygrad.renderer.cstyle import ClangRenderer

from tinyseg.kernels.cpu.channels import Channels
from tinyseg.kernels.cpu.spatial import Join, Pooling
from tinyseg.kernels.memory import HALF
from tinyseg.kernels.shapes import Convolution, Instruction, Tile, Warp

FORWARD_SLAB_BYTES = 160 * 1024
"""Weights of one output tile and channel block: read once per pixel tile, so they live in L2."""

WEIGHTS_IN_CACHE_BYTES = 512 * 1024
"""With more weights than this, every thread keeps its own output tiles and walks all pixels."""

GRADIENT_BLOCK_BYTES = 32 * 1024
"""Image and output gradient of one block of rows: read for every register tile, so L1 or L2."""

SMALL_OPERATIONS = 500_000
"""Below this, waking a second thread costs more than it does (about 20 microseconds)."""

SMALL_ELEMENTS = 16 * 1024
"""The same for elementwise work."""

WARPS = 2048
"""A large GPU runs a thousand warps at once: with fewer than this, each one computes less."""

overridden: str | Instruction | None = None
"""Set to "plain" in a test to switch fast paths off, to an instruction to take the GPU's path."""


@dataclass(frozen=True)
class Plan:
    """A tile, or none with the reason why; `own_tiles` is how the threads share the work."""

    tile: Tile | None
    reason: str
    own_tiles: bool = False

    def __str__(self) -> str:
        if self.tile is None:
            return f"plain: {self.reason}"
        share = "channels" if self.own_tiles else "rows"
        return f"tile {self.tile}, threads share {share}: {self.reason}"


@dataclass(frozen=True)
class Machine:
    """What a tile has to fit."""

    lanes: int
    registers: int
    threads: int


@functools.cache
def machine() -> Machine:
    """Return the vector width and register count of this processor."""
    threads = max(1, int(CPU_COUNT.value))
    if platform.machine().lower() in ("arm64", "aarch64"):
        return Machine(4, 32, threads)
    flags = Path("/proc/cpuinfo")
    if flags.is_file() and "avx512f" in flags.read_text():
        return Machine(16, 32, threads)
    return Machine(8, 16, threads)


@functools.cache
def device_reason(device: str) -> str:
    """Return why a device has no fast path, or an empty string when it has one."""
    renderer = Device[device].renderer
    if device == "CPU" and isinstance(renderer, ClangRenderer):
        return ""
    return f"{device} compiles with {type(renderer).__name__}; only the C renderer has kernels"


def kernels_of(device: str) -> str:
    """Return in words whose kernels a device runs in float32."""
    if reason := device_reason(device):
        return f"tinygrad's own: {reason}"
    return f"tinyseg's, {machine().lanes} floats at a time, {machine().threads} threads"


_collecting: list[list[str]] = []


@contextmanager
def fallbacks() -> Iterator[list[str]]:
    """Collect, while a step is traced, each convolution without a kernel of ours, and why."""
    _collecting.append([])
    try:
        yield _collecting[-1]
    finally:
        _collecting.pop()


_counting: list[list[int]] = []


@contextmanager
def operations() -> Iterator[list[int]]:
    """Collect the floating-point operations of each convolution and attention that is traced.

    Meanwhile no kernels of ours are built, which would take longer than all else.
    """
    global overridden
    before, overridden = overridden, "plain"
    _counting.append([])
    try:
        yield _counting[-1]
    finally:
        overridden = before
        _counting.pop()


def count(operations: int) -> None:
    """Add operations, a multiply-add counted as two, to all that collect them."""
    for each in _counting:
        each.append(operations)


def report(conv: Convolution, plan: Plan) -> Plan:
    """Return the plan; a plain one is reported to all that collect `fallbacks`."""
    for reasons in _collecting if plan.tile is None else ():
        reasons.append(f"{conv.label}: {plan.reason}")
    return plan


def fallback_reason(*tensors: Tensor | None) -> str:
    """Return why these tensors cannot take the fast path, or an empty string."""
    if overridden == "plain":
        return "switched off"
    present = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.dtype != dtypes.float32 for tensor in present):
        return "only float32 has kernels"
    if any(not isinstance(tensor.device, str) for tensor in present):
        return "the tensors are spread over several devices"
    return device_reason(str(present[0].device))


def tensor_core(conv: Convolution, x: Tensor) -> Instruction | None:
    """Return the instruction that multiplies these images, when the device has one."""
    if conv.out_rows < 1 or conv.out_columns < 1 or conv.padding >= conv.kernel:
        return None
    if isinstance(overridden, Instruction):
        return overridden
    if overridden == "plain" or x.dtype not in HALF or not isinstance(x.device, str):
        return None
    for core in Device[x.device].renderer.tensor_cores:
        if core.dtype_in == x.dtype and core.dtype_out == dtypes.float:
            return Instruction(*core.dims)
    return None


def forward_warp(conv: Convolution, instruction: Instruction) -> Warp:
    """Choose what a warp computes of a forward convolution or an input gradient."""
    channels = -(-(conv.outputs // conv.scatter**2) // instruction.rows)
    tall = _factor(channels)
    columns = -(-conv.out_columns // instruction.columns)
    wide = _factor(columns)
    pixels = conv.batch * conv.out_rows * conv.out_columns // instruction.columns
    warps = pixels * channels * conv.scatter**2
    while wide * tall > 1 and warps // (wide * tall) < WARPS:
        wide, tall = (wide // 2, tall) if wide >= tall else (wide, tall // 2)
    together = _factor(channels // tall)
    return Warp(instruction, wide, tall, together if instruction.exists else 1)


def weight_warp(conv: Convolution, instruction: Instruction) -> Warp:
    """Choose what a warp computes of a weight gradient, and how many share the pixels."""
    rows = -(-conv.outputs // instruction.rows)
    columns = -(-(conv.inputs * conv.kernel**2) // instruction.columns)
    tall = _factor(rows)
    wide = _factor(columns)
    warps = rows // tall * (columns // wide)
    parts = max(1, min(WARPS // warps, conv.batch * conv.out_rows // 2))
    return Warp(instruction, wide, tall, 1, parts)


def _factor(number: int) -> int:
    """Return the largest of 4, 2 and 1 that divides a number."""
    return math.gcd(number, 4)


def forward_plan(conv: Convolution) -> Plan:
    """Choose the tile of a forward convolution (or an input gradient, which is one as well)."""
    host = machine()
    channels = conv.outputs // conv.scatter**2
    lanes = _lanes(channels, host.lanes)
    if lanes == 0:
        return Plan(None, f"{channels} output channels are not a multiple of 4")
    vectors = 2 if channels % (2 * lanes) == 0 else 1
    # kernel columns share image values, which takes registers; 12x1 and 8x2 were best of 7 to 16
    budget = host.registers * 3 // 4 if vectors == 1 or conv.kernel == 1 else host.registers // 2
    wide = 12 if vectors == 1 else budget // vectors
    steps = _even_steps(conv.out_columns, min(wide, budget))
    bytes_per_input = conv.kernel**2 * lanes * vectors * 4
    block = _divisor(conv.inputs, FORWARD_SLAB_BYTES // bytes_per_input)
    tiles = conv.outputs // (lanes * vectors)
    weight_bytes = conv.kernel**2 * conv.inputs * conv.outputs * 4
    own_tiles = weight_bytes > WEIGHTS_IN_CACHE_BYTES and tiles >= 4 * host.threads
    threads = _threads(conv, tiles if own_tiles else conv.batch * conv.out_rows)
    tile = Tile(lanes, vectors, steps, block, threads)
    return Plan(tile, "weights exceed the cache" if own_tiles else "weights fit", own_tiles)


def weight_plan(conv: Convolution) -> Plan:
    """Choose the tile of a weight gradient."""
    host = machine()
    lanes = _lanes(conv.outputs, host.lanes)
    if lanes == 0:
        return Plan(None, f"{conv.outputs} output channels are not a multiple of 4")
    vectors = 2 if conv.outputs % (2 * lanes) == 0 else 1
    taps = conv.kernel if conv.stride == 1 else 1
    budget = host.registers * 3 // 4 // (taps * vectors)
    steps = max(1, min(budget, conv.inputs))
    own_tiles = conv.inputs % steps == 0 and _large(conv) and conv.inputs // steps >= host.threads
    row = (conv.columns * conv.inputs + conv.out_columns * conv.outputs) * 4
    rows = conv.batch * conv.out_rows
    fewest = 256 if own_tiles else 64  # large sums should not come by often
    block = max(GRADIENT_BLOCK_BYTES // row, -(-fewest // conv.out_columns), 1)
    threads = _threads(conv, conv.inputs // steps if own_tiles else rows)
    tile = Tile(lanes, vectors, steps, min(block, rows), threads)
    return Plan(tile, "the sums are large" if own_tiles else "the sums are small", own_tiles)


def channel_plan(pixels: int, channels: int) -> Channels | None:
    """Choose how pixels x channels are walked elementwise; None when no vector divides them."""
    lanes = _lanes(channels, machine().lanes)
    if lanes == 0 or pixels == 0:
        return None
    threads = machine().threads if pixels * channels >= SMALL_ELEMENTS else 1
    return Channels(pixels, channels, lanes, max(1, min(threads, pixels)))


def shared_threads(rows: int, width: int) -> int:
    """Return how many threads share some rows of elementwise work."""
    threads = machine().threads if rows * width >= SMALL_ELEMENTS else 1
    return max(1, min(threads, rows))


def pool_plan(batch: int, rows: int, columns: int, channels: int) -> Pooling | None:
    """Choose how images are pooled; None when no vector divides the channels."""
    walk = channel_plan(batch * rows * columns, channels)
    if walk is None or rows < 2 or columns < 2:
        return None
    threads = min(walk.threads, batch * (rows // 2))
    return Pooling(batch, rows, columns, channels, walk.lanes, threads)


def join_plan(pixels: int, left: int, right: int) -> Join | None:
    """Choose how channels are joined; None when no vector divides both sides."""
    walk = channel_plan(pixels, math.gcd(left, right))
    wide = channel_plan(pixels, left + right)
    if walk is None or wide is None:
        return None
    return Join(pixels, left, right, walk.lanes, wide.threads)


def _large(conv: Convolution) -> bool:
    """Tell whether a copy of the weight gradient per thread would cost more than it saves."""
    return conv.kernel**2 * conv.inputs * conv.outputs * 4 > WEIGHTS_IN_CACHE_BYTES


def _lanes(channels: int, widest: int) -> int:
    return next((lanes for lanes in (16, 8, 4) if lanes <= widest and channels % lanes == 0), 0)


def _even_steps(columns: int, most: int) -> int:
    """Return the smallest tile that needs no more tiles per row than the largest would."""
    tiles = -(-columns // max(1, most))
    return -(-columns // tiles)


def _divisor(number: int, most: int) -> int:
    """Return the largest divisor of a number up to a limit; the number itself if all are tiny."""
    best = max(d for d in range(1, number + 1) if number % d == 0 and d <= max(most, 1))
    return best if best >= 16 else number


def _threads(conv: Convolution, shared: int) -> int:
    """Return how many threads share the work; no more than there is work to share."""
    if conv.operations < SMALL_OPERATIONS:
        return 1
    return max(1, min(machine().threads, shared))
