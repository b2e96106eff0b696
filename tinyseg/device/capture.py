"""A jitted function that captures at its first call and compiles its kernels side by side."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from tinygrad import Device, TinyJit
from tinygrad.codegen import to_program, to_program_cache
from tinygrad.helpers import BEAM, Context

from tinyseg.device.choose import backend
from tinyseg.device.compilers import _Clang
from tinyseg.device.graph import finalize


class JitFunction(TinyJit):  # type: ignore[misc]
    """Captures at its first call, compiles its kernels side by side, replays them as one graph.

    All state must be realized before.
    """

    def __init__(self, function: Callable[..., Any]):
        finalize()
        super().__init__(function)
        self.cnt = 1  # call 0 would run eagerly and compile everything twice

    @property
    def program(self) -> Any:
        """What was captured, to be replayed as `program(buffers, {})`; None before the capture."""
        return self.captured

    @program.setter
    def program(self, program: Any) -> None:
        self.captured = program

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with Context(JIT_BATCH_SIZE=0) if self.captured is None else contextlib.nullcontext():
            return super().__call__(*arguments, **named)

    def add_linear(self, linear: Any, var_vals: dict[str, int]) -> None:
        super().add_linear(linear, var_vals)
        renderer = Device[backend().device].renderer
        if isinstance(renderer.compiler, _Clang) and not BEAM.value:
            _compile_together(dict.fromkeys(call.src[0] for call in linear.src), renderer)


def _compile_together(kernels: Iterable[Any], renderer: Any) -> None:
    """Fill tinygrad's table of programs: lower one kernel while others are compiled."""
    compiler: _Clang = renderer.compiler
    compiler.deferred = True
    try:
        # our own kernels are rendered already: the compilers begin with them
        for kernel in sorted(kernels, key=lambda kernel: kernel.op.name != "PROGRAM"):
            if kernel.op.name in ("PROGRAM", "SINK"):
                to_program(kernel, renderer)
    finally:
        compiler.deferred = False
        started = [(key, p) for key, p in to_program_cache.items() if p.src[-1].arg == b""]
        for key, _ in started:
            del to_program_cache[key]  # if a compiler fails, no program stays without its code
    try:
        for key, program in started:
            *rest, source, binary = program.src
            code = binary.replace(arg=compiler.compile_cached(source.arg))
            to_program_cache[key] = program.replace(src=(*rest, source, code))
    finally:
        compiler.started.clear()  # a failure is not raised again by the next capture
