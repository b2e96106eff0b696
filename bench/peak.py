"""The machine's own peak: multiply-adds on registers alone, with the vectors the kernels use."""

import time

from tinygrad import Device, Tensor, TinyJit

from tinyseg.kernels.cpu.program import Program, constant, kernel
from tinyseg.kernels.plans import machine

ROUNDS = 1_000_000


def peak_gflops(repeats: int = 5) -> float:
    """Return the best of some runs of a kernel that does nothing but fused multiply-adds."""
    host = machine()
    held = min(host.registers * 3 // 4, 24)

    @kernel
    def build(program: Program) -> None:
        program.start("peak", host.threads)
        registers = program.registers(held, host.lanes)
        for register in registers:
            program.store(register, constant(1.0, host.lanes))
        factor, term = (program.read(1, k * host.lanes, host.lanes) for k in (0, 1))
        program.emit(factor)
        program.emit(term)
        with program.loop(ROUNDS):
            for register in registers:
                program.store(register, program.load(register) * factor + term)
        for number, register in enumerate(registers):
            place = (program.core * held + number) * host.lanes
            program.write(0, place, program.load(register))

    start = Tensor([0.5] * (2 * host.lanes)).realize()
    size = host.threads * held * host.lanes
    run = TinyJit(lambda x: Tensor.empty(size).custom_kernel(x, fxn=build())[0].realize())
    seconds = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        run(start)
        Device["CPU"].synchronize()
        seconds.append(time.perf_counter() - began)
    return 2.0 * size * ROUNDS / min(seconds) / 1e9
