"""One kernel for a whole optimizer step: every parameter is read and written once, in place.

Stock operations make three kernels a parameter (about 240 for a U-Net, and as many compiles).
"""

from dataclasses import dataclass

from tinygrad.dtype import dtypes
from tinygrad.uop.ops import Ops, UOp

from tinyseg.kernels.cpu.program import Program, broadcast, constant, kernel, pieces
from tinyseg.kernels.shapes import AdamSettings

RATE, RESCALE, SHRINK, ACCEPT = range(4)
"""What changes per step: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), lr * decay, 1 to accept."""
BUFFERS = 4
"""Per parameter: parameter, mean, square, gradient; the numbers of the step come last."""


@kernel
def adam_kernel(
    program: Program, sizes: tuple[int, ...], settings: AdamSettings, lanes: int, threads: int
) -> None:
    """Emit the kernel (parameter, mean, square, gradient, ..., numbers), all but two in place."""
    program.start(f"adam_{len(sizes)}_{sum(sizes)}", threads, 12 * sum(sizes))
    last = len(program.buffers) - 1
    numbers = [program.emit(program.read(last, index)) for index in range(4)]
    for index, size in enumerate(sizes):
        for first, count, width in pieces(size, lanes):
            with program.share(count) as place:
                start = place * width + first
                _update(program, settings, numbers, index * BUFFERS, start, width)


def _update(
    program: Program, settings: AdamSettings, numbers: list[UOp], slot: int, first: UOp, width: int
) -> None:
    """Update some neighboring numbers of one parameter (Kingma & Ba 2015, algorithm 1)."""
    places = [program.at(slot + offset, first, width) for offset in range(BUFFERS)]
    parameter, mean, square, gradient = (program.load(place) for place in places)
    rate, rescale, shrink, accept = (broadcast(number, width) for number in numbers)

    def times(value: UOp, factor: float) -> UOp:
        return value * constant(factor, width)

    pull = gradient + times(parameter, settings.weight_decay) if settings.weight_decay else gradient
    new_mean = times(mean, settings.beta1) + times(pull, 1 - settings.beta1)
    new_square = times(square, settings.beta2) + times(pull * pull, 1 - settings.beta2)
    below = _root(new_square, width) * rescale + constant(settings.eps, width)
    change = (rate * new_mean).alu(Ops.FDIV, below) + shrink * parameter
    refused = accept.alu(Ops.CMPLT, constant(0.5, width))
    news = (parameter - change, new_mean, new_square)
    for place, old, new in zip(places, (parameter, mean, square), news, strict=False):
        program.emit(new)
        program.store(place, refused.where(old, new))  # not a product: new may be NaN


@kernel
def squares_kernel(program: Program, sizes: tuple[int, ...], lanes: int, threads: int) -> None:
    """Emit the kernel (parts, gradient, ...): sums of squares, of each thread `lanes + 1`."""
    program.start(f"squares_{len(sizes)}_{sum(sizes)}", threads, 2 * sum(sizes))
    totals = {width: program.registers(1, width)[0] for width in (lanes, 1)}
    for width, total in totals.items():
        program.store(total, constant(0.0, width))
    for slot, size in enumerate(sizes, start=1):
        for first, count, width in pieces(size, lanes):
            # summed within one gradient first: keeps the rounding error small
            (part,) = program.zeros(1, width)
            with program.share(count) as place:
                value = program.read(slot, place * width + first, width)
                program.add(part, value * value)
            program.add(totals[width], program.load(part))
    start = program.core * (lanes + 1)
    program.write(0, start, program.load(totals[lanes]))
    program.write(0, start + lanes, program.load(totals[1]))


@dataclass(frozen=True)
class Average:
    """One running vector, as it is compiled into the kernel of all."""

    size: int
    momentum: float
    """Weight of the new values."""
    factor: float
    """What the new values are multiplied by first."""


@kernel
def averages_kernel(program: Program, averages: tuple[Average, ...], lanes: int) -> None:
    """Emit the kernel (running, new, running, new, ...), every running vector in place."""
    program.start(f"averages_{len(averages)}", 1, 3 * sum(average.size for average in averages))
    for index, average in enumerate(averages):
        width = lanes if average.size % lanes == 0 else 1
        with program.loop(average.size // width) as place:
            slots = (2 * index, 2 * index + 1)
            old, new = (program.read(slot, place * width, width) for slot in slots)
            part = constant(average.momentum * average.factor, width)
            moved = old * constant(1 - average.momentum, width) + new * part
            # x - x is below 1 unless x is NaN or infinite, which would stay in the average
            finite = (new - new).alu(Ops.CMPLT, constant(1.0, width))
            program.write(2 * index, place * width, finite.where(moved, old))


def _root(value: UOp, width: int) -> UOp:
    """Return the square root lane by lane, which clang joins into one instruction."""
    if width == 1:
        return value.alu(Ops.SQRT)
    lanes = [UOp(Ops.GEP, dtypes.float, (value,), (lane,)) for lane in range(width)]
    roots = tuple(lane.alu(Ops.SQRT) for lane in lanes)
    return UOp(Ops.STACK, dtypes.float.vec(width), roots)
