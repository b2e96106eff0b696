"""Replay of the kernels of a captured step: one call per thread on the CPU; repairs elsewhere.

tinygrad 0.13 starts each kernel of the CPU from Python: queues, wake-ups and a C call whose
arguments are converted one by one take some 60 microseconds, a quarter of a small U-Net's step. A
`Launcher` keeps the kernels and their arguments in one table of 64-bit words, and a few lines of C
walk over it in every thread, with a barrier wherever one of two neighbors uses several threads. The
kernels are the same, and so is every bit of their results.
"""

import ctypes
import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tinygrad import Device
from tinygrad.engine.jit import GraphRunner
from tinygrad.engine.realize import _resolve, get_call_arg_uops
from tinygrad.runtime.ops_cpu import CPUProgram, CPUWorker
from tinygrad.uop.ops import CallInfo, Ops

FIXED = 4
"""Words of an entry before its arguments: function, kind (see `_kind`), threads, barrier."""
SPINS = 300
"""Rounds (some 20 us) that a thread waits awake at a barrier before it sleeps in `read`."""

SOURCE = """
typedef long long word;
typedef unsigned long long count;
#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() __asm__ volatile("yield")
#endif
struct bed { count asleep; word in, out; };
struct gate {
  count arrived;
  word (*read)(int, void *, count);
  word (*write)(int, const void *, count);
  struct bed beds[];
};
void launch(const word *entry, const word *end, struct gate *gate, count passed, word threads,
            word core) {
  char byte = 0;
  struct bed *own = &gate->beds[core];
  while (entry != end) {
    if (entry[3]) {
      passed += threads;
      if (__atomic_add_fetch(&gate->arrived, 1, __ATOMIC_SEQ_CST) == passed)
        for (struct bed *bed = gate->beds; bed < gate->beds + threads; bed++)
          if (__atomic_exchange_n(&bed->asleep, 0, __ATOMIC_SEQ_CST))
            gate->write((int)bed->out, &byte, 1);
      for (word spins = 0; __atomic_load_n(&gate->arrived, __ATOMIC_SEQ_CST) < passed; spins++) {
        RELAX();
        if (spins < %d) continue;
        __atomic_store_n(&own->asleep, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&gate->arrived, __ATOMIC_SEQ_CST) >= passed) break;
        gate->read((int)own->in, &byte, 1);
      }
    }
    const word *a = entry + %d;
    const word run = core < entry[2];
    switch (entry[1]) {
%s
    }
  }
}
"""
"""A thread at the gate announces that it will sleep, checks once more, sleeps until a byte comes;
the last to arrive sends a byte to each that sleeps. One of the two sees the other, as both are
sequentially consistent, and a byte too many only lets a sleeper check once more."""


class Launcher(GraphRunner):  # type: ignore[misc]
    """Replays a captured list of kernels, each thread with one call."""

    compile: Callable[[str], bytes]
    """Turns C into machine code; set by `launcher`."""

    def __init__(self, linear: Any, input_uops: tuple[Any, ...] = ()):
        super().__init__(linear, input_uops)
        self.cpu = Device[self.device]
        self.threads = max(_threads(call[1]) for call in self.calls)
        self.places: dict[Any, list[int]] = {}
        """For each input, or view of one, the words of the table that are set at each call."""
        words, kinds, self.barriers = self._words()
        self.table = np.array(words, np.int64)
        self.gate, self.passed, self.lock = _Gate(self.threads), 0, threading.Lock()
        self.native = CPUProgram(self.cpu, "launch", self.compile(_source(kinds)))

    def _words(self) -> tuple[list[int], set[int], int]:
        """Return the table, the kinds of calls in it, and the number of barriers."""
        words: list[int] = []
        kinds: set[int] = set()
        before, barriers = 1, 0
        calls = zip(self.linear.src, self.calls, self.runtimes, strict=True)
        for call, (_, program, buffers, _), runtime in calls:
            threads = _threads(program)
            barrier = bool(words) and max(threads, before) > 1
            kinds.add(kind := _kind(program))
            function = ctypes.cast(runtime.fxn, ctypes.c_void_p).value
            words += [int(function or 0), kind, threads, int(barrier)]
            uops = get_call_arg_uops(call)
            for index in program.arg.globals:
                if any(node.op is Ops.PARAM for node in uops[index].toposort()):
                    self.places.setdefault(uops[index], []).append(len(words))
                words.append(buffers[index]._buf.va_addr)
            before, barriers = threads, barriers + barrier
        return words, kinds, barriers

    def __call__(
        self, input_uops: tuple[Any, ...], var_vals: dict[str, int], wait: bool = False
    ) -> float | None:
        table = self.table.copy()  # the call before may still be running
        for uop, places in self.places.items():
            table[places] = _resolve(uop, input_uops).buffer.ensure_allocated()._buf.va_addr
        start, end = table.ctypes.data, table.ctypes.data + table.nbytes
        with self.lock:  # the queue has the calls in the order in which they count at the gate
            arguments = (start, end, self.gate.address, self.passed, self.threads)
            self.passed += self.barriers * self.threads
            queue = self.cpu.hw_compute_queue_t()
            queue.cmd(self._run, table, *arguments, threads=self.threads)
            queue.signal(self.cpu.timeline_signal, self.cpu.next_timeline()).submit(self.cpu)
        if wait:
            self.cpu.synchronize()
        return None

    def _run(self, core: int, table: object, *arguments: int) -> None:
        """Run one thread's part; called by tinygrad's worker threads."""
        self.native.fxn(*map(ctypes.c_int64, arguments), ctypes.c_int64(core))

    @staticmethod
    def supports_uop(devices: list[Any], call: Any) -> bool:
        """Return whether a call can be in the table: a kernel of the CPU without symbolic sizes."""
        if not GraphRunner.supports_uop(devices, call):
            return False
        return set(call.src[0].arg.runtimevars) >= {v.expr for v in call.src[0].arg.vars}


def launcher(compile: Callable[[str], bytes]) -> type[Launcher]:
    """Return the graph class whose C is compiled by `compile`."""
    return type("CompiledLauncher", (Launcher,), {"compile": staticmethod(compile)})


def _threads(program: Any) -> int:
    return int((program.arg.global_size or (1,))[0])


def _kind(program: Any) -> int:
    """Return twice the number of buffers, plus 1 if the number of the thread comes after them."""
    return 2 * len(program.arg.globals) + len(program.arg.vars)


def _source(kinds: Iterable[int]) -> str:
    """Return the walk over the table, with a case for each kind of call in it."""
    return SOURCE % (SPINS, FIXED, "\n".join(_case(kind) for kind in sorted(kinds)))


def _case(kind: int) -> str:
    buffers, takes_core = kind // 2, kind % 2
    types = ", ".join(["word"] * buffers + ["int"] * takes_core)
    values = ", ".join([f"a[{index}]" for index in range(buffers)] + ["(int)core"] * takes_core)
    call = f"if (run) ((void (*)({types}))entry[0])({values});"
    return f"    case {kind}: {call} entry = a + {buffers}; break;"


class _Gate:
    """What the threads share: a counter, and for each thread a pipe to sleep at."""

    def __init__(self, threads: int) -> None:
        library = ctypes.CDLL(None)
        functions = [ctypes.cast(f, ctypes.c_void_p).value for f in (library.read, library.write)]
        pipes = [os.pipe() for _ in range(threads)]
        for _, end in pipes:
            os.set_blocking(end, False)  # a pipe that is full wakes its sleeper as well
        self.words = np.array([0, *functions, *(w for pipe in pipes for w in (0, *pipe))], np.int64)
        self.address = self.words.ctypes.data
        weakref.finalize(self, _close, pipes)


def _close(pipes: list[tuple[int, int]]) -> None:
    for descriptor in (end for pipe in pipes for end in pipe):
        os.close(descriptor)


_with_gradient = CallInfo.__repr__


def find_schedules_again() -> None:
    """Let tinygrad know a step's graph again when it runs without the JIT, in a third of the time.

    Its key of a graph has the id of each kernel's gradient function, which every call makes anew.
    """

    def without_gradient(self: CallInfo) -> Any:
        return _with_gradient(dataclasses.replace(self, grad_fxn=None))

    CallInfo.__repr__ = without_gradient


def repair_graph(device: Any) -> None:
    """Repair two faults of tinygrad 0.13's own graphs, for a device that has them.

    1. The silent lock: a replay gets new inputs, but a view of one (an image of one channel in
       channels-last order) stays that of the first call. Here such kernels stay out of graphs.
    2. A hang: a graph's finalizer waits for the device. When Python collects it in a thread of the
       device, that thread waits for itself. Here it is postponed until `finalize`.
    """
    partial = isinstance(device.graph, functools.partial)
    graph: Any = device.graph.func if partial else device.graph
    if graph is None:
        return

    def supports(devices: list[Any], call: Any) -> bool:
        views = [a for a in call.src[1:] if a.op in (Ops.BUFFER_VIEW, Ops.MSELECT)]
        of_input = any(view.src[0].op is Ops.PARAM for view in views)
        return not of_input and bool(graph.supports_uop(devices, call))

    def postpone(self: Any) -> None:
        if isinstance(threading.current_thread(), CPUWorker):
            _unfinalized.append((graph, self))
        elif hasattr(graph, "__del__"):
            graph.__del__(self)

    members = {"supports_uop": staticmethod(supports), "__del__": postpone}
    repaired: Any = type(f"Repaired{graph.__name__}", (graph,), members)
    if partial:
        repaired = functools.partial(repaired, *device.graph.args, **device.graph.keywords)
    device.graph = repaired


_unfinalized: list[tuple[Any, Any]] = []


def finalize() -> None:
    """Finalize the graphs that were postponed; not to be called in a thread of a device."""
    while _unfinalized:
        graph, instance = _unfinalized.pop()
        graph.__del__(instance)
