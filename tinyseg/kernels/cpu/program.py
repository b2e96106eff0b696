"""A small assembler for CPU kernels: UOps in execution order, with vector types kept whole.

tinygrad's own lowering takes vectors apart (float4 at most), and what clang then makes of them
depends on its SLP pass. A custom kernel may return an `Ops.PROGRAM` that is past the lowering: that
saves its seconds in Python, and the C renderer writes 512-bit loads, multiplications and stores
exactly as they are here.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeAlias, cast

from tinygrad import Device
from tinygrad.dtype import AddrSpace, DType, dtypes
from tinygrad.renderer import Estimates
from tinygrad.uop.ops import AxisType, KernelInfo, Ops, ProgramInfo, UOp

P = ParamSpec("P")
Index: TypeAlias = int | UOp
Kernel: TypeAlias = Callable[..., UOp]
"""What `Tensor.custom_kernel` calls with a placeholder for each buffer, the outputs first."""


def integer(value: Index) -> UOp:
    """Return an index expression as a 32-bit UOp."""
    return value if isinstance(value, UOp) else UOp.const(dtypes.int, value)


def quotient(value: UOp, divisor: int) -> UOp:
    """Return value // divisor for a value >= 0."""
    return value if divisor == 1 else value.alu(Ops.CDIV, integer(divisor))


def remainder(value: UOp, divisor: int) -> UOp:
    """Return value % divisor for a value >= 0."""
    return integer(0) if divisor == 1 else value.alu(Ops.CMOD, integer(divisor))


def smaller(left: Index, right: Index) -> UOp:
    """Return the smaller of two index expressions."""
    left, right = integer(left), integer(right)
    return left.alu(Ops.CMPLT, right).where(left, right)


def larger(left: Index, right: Index) -> UOp:
    """Return the larger of two index expressions."""
    left, right = integer(left), integer(right)
    return left.alu(Ops.CMPLT, right).where(right, left)


def maximum(left: UOp, right: UOp) -> UOp:
    """Return the larger of two floats or, lane by lane, of two vectors."""
    return left.alu(Ops.CMPLT, right).where(right, left)


class Program:
    """Collects the UOps of one kernel in execution order."""

    def __init__(self, placeholders: Sequence[UOp]) -> None:
        """Begin with the placeholders that a custom kernel gets, the outputs first."""
        self.placeholders = placeholders
        self.lines: list[UOp] = []
        self.scopes: list[set[UOp]] = [set()]
        self.registers_made = 0
        self.ranges_made = 0

    def start(self, name: str, threads: int = 1, operations: int = 0) -> None:
        """Set the name, the number of threads and the operations, before anything is emitted."""
        self.name, self.threads, self.operations = name, threads, operations
        self.buffers = [self.emit(_parameter(buffer)) for buffer in self.placeholders]
        self.core = self.emit(UOp(Ops.DEFINE_VAR, dtypes.int, arg=("core_id", 0, threads - 1)))

    def emit(self, expression: UOp) -> UOp:
        """Append an expression, leaving out what an open scope has computed already."""
        for node in expression.toposort(lambda node: not self._known(node)):
            if not self._known(node):
                self.lines.append(node)
                self.scopes[-1].add(node)
        return expression

    def _known(self, node: UOp) -> bool:
        return any(node in scope for scope in self.scopes)

    @contextmanager
    def loop(self, count: Index) -> Iterator[UOp]:
        """Open a loop over 0 <= index < count; what is emitted inside is its body."""
        self.ranges_made += 1
        bound = self.emit(integer(count))
        index = UOp(Ops.RANGE, dtypes.int, (bound,), arg=(self.ranges_made, AxisType.LOOP))
        self.lines.append(index)
        self.scopes.append({index})
        yield index
        self.scopes.pop()
        self.lines.append(UOp(Ops.END, dtypes.void, (UOp(Ops.NOOP), index)))

    @contextmanager
    def share(self, count: int) -> Iterator[UOp]:
        """Loop over this thread's part of 0 <= index < count."""
        first = quotient(self.core * count, self.threads)
        after = quotient((self.core + 1) * count, self.threads)
        with self.loop(after - first) as index:
            yield first + index

    def registers(self, count: int, width: int) -> list[UOp]:
        """Return `count` registers of `width` floats, to be read by `load`, set by `store`."""
        self.registers_made += 1
        dtype = _vector(width).ptr(count, AddrSpace.REG)
        array = self.emit(UOp(Ops.DEFINE_REG, dtype, arg=self.registers_made))
        return [UOp(Ops.INDEX, dtype, (array, integer(number))) for number in range(count)]

    def zeros(self, count: int, width: int) -> list[UOp]:
        """Return registers that are set to zero here."""
        registers = self.registers(count, width)
        for register in registers:
            self.store(register, constant(0.0, width))
        return registers

    def load(self, address: UOp) -> UOp:
        """Return the value at an address made by `at` or in a register."""
        return UOp(Ops.LOAD, address.dtype.base, (address,))

    def store(self, address: UOp, value: UOp) -> None:
        """Write a value to an address or a register, now."""
        self.emit(address)
        self.emit(value)
        self.lines.append(UOp(Ops.STORE, dtypes.void, (address, value)))

    def read(self, slot: int, offset: Index, width: int = 1) -> UOp:
        """Return `width` floats of a buffer."""
        return self.load(self.at(slot, offset, width))

    def write(self, slot: int, offset: Index, value: UOp) -> None:
        """Write a float or a vector to a buffer, now."""
        self.store(self.at(slot, offset, value.dtype.count), value)

    def add(self, address: UOp, value: UOp) -> None:
        """Add a value to what is at an address or in a register, now."""
        self.store(address, self.load(address) + value)

    def at(self, slot: int, offset: Index, width: int = 1) -> UOp:
        """Return the address of `width` floats; for width > 1 it must be a multiple of them."""
        buffer = self.buffers[slot]
        address = UOp(Ops.INDEX, buffer.dtype, (buffer, integer(offset)))
        size = buffer.ptrdtype.size
        return address if width == 1 else address.cast(_vector(width).ptr(size))

    def finish(self) -> UOp:
        """Return the `Ops.PROGRAM` for `Tensor.custom_kernel`; slot 0 is the output."""
        traffic = sum(buffer.ptrdtype.nbytes() for buffer in self.buffers)
        estimates = Estimates(self.operations, traffic, traffic)
        sink = UOp(Ops.SINK, dtypes.void, arg=KernelInfo(self.name, estimates=estimates))
        slots = tuple(range(len(self.buffers)))
        outputs = tuple(slot for slot in slots if self._written(slot))
        info = ProgramInfo(
            self.name, (self.threads, 1, 1), (1, 1, 1), (self.core,), slots, outputs, slots
        )
        # rendered now: with its thousand lines as sources every toposort of the step's graph would
        # walk them again, which made scheduling a U-Net 35 s long
        renderer = Device["CPU"].renderer
        text = renderer.render([*self.lines, sink])
        # a slice of a larger buffer may start anywhere, and aligned loads would crash there;
        # unaligned ones are as fast where the address happens to be aligned
        text = re.sub(r"aligned\(\d+\)", "aligned(4)", text)
        if start := getattr(renderer.compiler, "start", None):
            start(text)  # it is compiled while the rest of the step is traced
        source = (UOp(Ops.LINEAR, dtypes.void), UOp(Ops.SOURCE, arg=text))
        return UOp(Ops.PROGRAM, dtypes.void, (sink, UOp(Ops.DEVICE, arg="CPU"), *source), info)

    def _written(self, slot: int) -> bool:
        stores = (line.src[0] for line in self.lines if line.op is Ops.STORE)
        return any(self.buffers[slot] in (node.src[0], *node.src[0].src) for node in stores)


def kernel(emit: Callable[Concatenate[Program, P], None]) -> Callable[P, Kernel]:
    """Make a kernel of a function that starts a program and emits its lines."""

    @functools.cache
    def bind(*arguments: P.args, **named: P.kwargs) -> Kernel:
        @functools.cache
        def build(*placeholders: UOp) -> UOp:
            program = Program(placeholders)
            emit(program, *arguments, **named)
            return program.finish()

        return build

    return cast("Callable[P, Kernel]", functools.wraps(emit)(bind))


def pieces(size: int, lanes: int) -> list[tuple[int, int, int]]:
    """Return first index, count and width of the whole vectors, then of the single floats left."""
    whole, rest = divmod(size, lanes)
    return [piece for piece in ((0, whole, lanes), (whole * lanes, rest, 1)) if piece[1]]


def broadcast(value: UOp, width: int) -> UOp:
    """Return a vector that repeats a scalar."""
    return value if width == 1 else UOp(Ops.STACK, _vector(width), (value,) * width)


def constant(value: float, width: int) -> UOp:
    """Return a float constant as a vector."""
    return broadcast(UOp.const(dtypes.float, value), width)


def _vector(width: int) -> DType:
    return dtypes.float if width == 1 else dtypes.float.vec(width)


def _parameter(buffer: UOp) -> UOp:
    while buffer.op is not Ops.PARAM:  # a placeholder of several axes is a reshaped parameter
        buffer = buffer.src[0]
    return buffer
