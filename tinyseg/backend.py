"""Picks device and compiler once and says why; all that depends on tinygrad's version is here."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tinygrad.helpers
from tinygrad import Device, Tensor, TinyJit
from tinygrad.codegen import to_program, to_program_cache
from tinygrad.dtype import _from_np_dtype, _to_np_dtype
from tinygrad.helpers import BEAM, CPU_COUNT, DEV, Context, diskcache_get
from tinygrad.renderer.cstyle import ClangJITRenderer
from tinygrad.runtime.support.compiler_cpu import ClangJITCompiler
from tinygrad.runtime.support.elf import jit_loader

from tinyseg.cache import cache_folder
from tinyseg.errors import BackendError
from tinyseg.gpus import may_be_there, nvidia_compiler, use_cuda_extra
from tinyseg.graphs import finalize, launcher, mend

Array = np.ndarray[Any, np.dtype[Any]]

OLDEST_CLANG = 19
"""Older compilers leave the vector units idle: clang 14 gave 9 GFLOP/s where 19 gave 102."""
CLANG_ARGUMENTS = (
    *("-c", "-x", "c", "-O2", "-fPIC", "-ffreestanding", "-nostdlib", "-fno-ident"),
    "-fno-math-errno",  # a square root becomes an instruction, not a call
)
NO_COMPILER = (
    'no compiler for the CPU: run  pip install "tinyseg[cpu]"  (brings one, no root needed) '
    f"or put clang >= {OLDEST_CLANG} on the PATH"
)


@dataclass(frozen=True)
class Compiler:
    """A way to turn a kernel into machine code."""

    name: str
    """clang, zig or llvm."""
    version: str
    command: tuple[str, ...]
    """How it is called; empty for a library in this process."""


@dataclass(frozen=True)
class Backend:
    """Where and how the network runs."""

    device: str
    """tinygrad's device name: CPU, CUDA, METAL, CL, ..."""
    reason: str
    """Why this device and this compiler, in words."""
    compiler: Compiler | None
    """The CPU's compiler; None on other devices."""
    threads: int
    """CPU threads of a kernel."""


@functools.cache
def backend() -> Backend:
    """Chooses device and compiler at the first call; raises BackendError when there is none."""
    _use_writable_cache()
    device, reason = _choose_device()
    mend(Device[device])
    if device in ("NV", "CUDA"):
        reason = f"{reason}; {nvidia_compiler(Device[device])}"
    if device != "CPU":
        return Backend(device, reason, None, CPU_COUNT.value)
    compiler, why = _choose_compiler()
    _install(compiler)
    if compiler.command:
        Device["CPU"].graph = launcher(Device["CPU"].renderer.compiler.compile_cached)
    return Backend(device, f"{reason}; {why}", compiler, CPU_COUNT.value)


def upload(array: Array) -> Tensor:
    """A realized Tensor with a buffer of its own that holds a copy of `array`; no kernel runs."""
    backend()
    tensor = Tensor.empty(*array.shape, dtype=_from_np_dtype(array.dtype))
    overwrite(tensor, array)
    return tensor


def overwrite(tensor: Tensor, array: Array) -> None:
    """Copies `array` into the tensor's own buffer, as its dtype, wherever else that is used."""
    # tinygrad copies from writable memory only
    host = np.require(array, _to_np_dtype(tensor.dtype), ["C", "W"])
    tensor.uop.buffer.ensure_allocated().copyin(host.reshape(-1).view(np.uint8).data)


def owns_buffer(tensor: Tensor) -> bool:
    """Whether the tensor is a whole realized buffer: all else is baked into a jitted step."""
    uop = tensor.uop
    while uop.op.name == "RESHAPE":
        uop = uop.src[0]
    return bool(uop.op.name == "BUFFER" and uop.is_realized)


def settle(*tensors: Tensor) -> None:
    """Gives each tensor a whole buffer of its own; `realize` alone leaves a constant without one.

    What waits to be assigned to it goes into the buffer that it has: a jitted step knows that one.
    All are realized in one call: random ones of one shape, one by one, would come out equal.
    """
    waiting = [tensor for tensor in tensors if not owns_buffer(tensor)]
    if waiting:
        Tensor.realize(*waiting)
    constants = [tensor for tensor in waiting if not owns_buffer(tensor)]
    for tensor in constants:
        tensor.replace(tensor.clone().realize())


def jitted(function: Callable[..., Any]) -> TinyJit:
    """A TinyJit that captures at its first call; all state must be realized before."""
    finalize()
    jit = _Jit(function)
    jit.cnt = 1  # call 0 would run eagerly and compile everything twice
    return jit


class _Jit(TinyJit):  # type: ignore[misc]
    """Compiles the kernels of a capture in several processes at once; replays them as one graph."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with Context(JIT_BATCH_SIZE=0) if self.captured is None else contextlib.nullcontext():
            return super().__call__(*arguments, **named)

    def add_linear(self, linear: Any, var_vals: dict[str, int]) -> None:
        super().add_linear(linear, var_vals)
        renderer = Device[backend().device].renderer
        if isinstance(renderer.compiler, _Clang) and not BEAM.value:
            _compile_together(dict.fromkeys(call.src[0] for call in linear.src), renderer)


def _compile_together(kernels: Iterable[Any], renderer: Any) -> None:
    """Fills tinygrad's table of programs: lowers one kernel while others are compiled."""
    compiler: _Clang = renderer.compiler
    compiler.deferred = True
    try:
        # our own kernels are rendered already: the compilers begin with them
        for kernel in sorted(kernels, key=lambda kernel: kernel.op.name != "PROGRAM"):
            if kernel.op.name in ("PROGRAM", "SINK"):
                to_program(kernel, renderer)
    finally:
        compiler.deferred = False
        begun = [(key, p) for key, p in to_program_cache.items() if p.src[-1].arg == b""]
        for key, _ in begun:
            del to_program_cache[key]  # should a compiler fail, none stays without its code
    try:
        for key, program in begun:
            *rest, source, binary = program.src
            code = binary.replace(arg=compiler.compile_cached(source.arg))
            to_program_cache[key] = program.replace(src=(*rest, source, code))
    finally:
        compiler.begun.clear()  # nor does a failure wait for the next attempt


def copied(tensor: Tensor) -> Tensor:
    """A copy in a buffer of its own, by one memory copy: a kernel for it costs milliseconds."""
    source = tensor.uop.buffer.ensure_allocated()
    made = Tensor.empty(*tensor.shape, dtype=tensor.dtype, device=tensor.device)
    made.uop.buffer.ensure_allocated().copyin(source.as_memoryview(allow_zero_copy=True))
    return made


def versions() -> dict[str, str]:
    """Versions of what numbers depend on, for the run folder and `tinyseg info`."""
    names = ("tinyseg", "tinygrad", "numpy", "pillow", "scipy")
    found = {name: _version(name) for name in names}
    return {**found, "python": platform.python_version(), "platform": platform.platform()}


def settings() -> dict[str, str]:
    """tinygrad's switches as they are now: nearly all change what is compiled."""
    known = tinygrad.helpers.ContextVar._cache.items()
    switches = {name: repr(value.value) for name, value in known if name not in _TALK}
    return switches | {name: os.environ[name] for name in sorted(os.environ) if _shapes(name)}


_TALK = ("DEBUG", "NO_COLOR", "CACHELEVEL", "CCACHE", "CAPTURING", "ALLOW_DEVICE_USAGE")
"""Switches of tinygrad that change no program."""


def _shapes(name: str) -> bool:
    starts = ("BEAM_", "MV", "REDUCEOP_", "HCQ", "UNSAFE_", "GRAPH_", "LLVM")
    return name.startswith(starts) or name in ("CC", "JITBEAM", "EXPAND_SSA", "ALLOW_HALF8")


def cpu_model() -> str:
    """The processor's name; compiled code is only valid for it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = re.findall(r"^(?:model name|cpu family|model|Hardware)\s*:\s*(.*)$", text, re.M)
    return " ".join(dict.fromkeys(names)) or platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _use_writable_cache() -> None:
    wanted = Path(tinygrad.helpers.CACHEDB).parent
    with contextlib.suppress(OSError):
        wanted.mkdir(parents=True, exist_ok=True)
    if not os.access(wanted, os.W_OK):
        tinygrad.helpers.CACHEDB = str(cache_folder() / "tinygrad.db")


def _choose_device() -> tuple[str, str]:
    if asked := DEV.device:
        if not _opens(asked, asked_for=True):
            raise BackendError(
                f"DEV={asked}: this device does not answer; unset DEV or name another"
            )
        return asked, f"{asked} because DEV={os.environ.get('DEV', asked)} asks for it"
    for name in ("METAL", "AMD", "NV", "CUDA", "QCOM", "CL"):
        if _opens(name):
            DEV.value = name
            return name, f"{name} because it is the first GPU that answers"
    DEV.value = "CPU"
    return "CPU", "CPU because no GPU answers"


def _opens(name: str, asked_for: bool = False) -> bool:
    if not asked_for and not may_be_there(name):
        return False
    if name in ("NV", "CUDA", "NULL"):
        use_cuda_extra()
    try:
        return name == "CPU" or bool(Device[name].renderer)  # which needs a compiler
    except Exception:  # noqa: BLE001  a driver may fail in any way; then it is not there
        return False


def _choose_compiler() -> tuple[Compiler, str]:
    if renderer := DEV.renderer:
        name = "llvm" if renderer == "LLVM" else renderer.lower()
        return Compiler(name, "", ()), f"{renderer} because DEV asks for it"
    found = compilers()
    if not found:
        raise BackendError(NO_COMPILER)
    if len(found) == 1:
        return found[0], f"{found[0].name} {found[0].version} because no other compiler was found"
    speeds = _measured(found)
    best = max(found, key=lambda c: speeds[_identity(c)])
    told = ", ".join(f"{c.name} {c.version} {speeds[_identity(c)]:.0f}" for c in found)
    return best, f"{best.name} because it was the fastest (GFLOP/s: {told})"


@functools.cache
def compilers() -> tuple[Compiler, ...]:
    """All usable compilers on this machine: clang on the PATH, the zig wheel, libLLVM."""
    return tuple(c for c in (_find_clang(), _find_zig(), _find_llvm()) if c is not None)


def _find_clang() -> Compiler | None:
    names = ["clang", *(f"clang-{version}" for version in range(40, OLDEST_CLANG - 1, -1))]
    for path in filter(None, map(shutil.which, names)):
        version = _clang_version((path,))
        if version is not None and int(version.split(".")[0]) >= OLDEST_CLANG:
            return Compiler("clang", version, (path,))
    return None


def _find_zig() -> Compiler | None:
    try:
        import ziglang
    except ImportError:
        return None
    path = str(Path(ziglang.__file__).parent / "zig")
    # `zig clang` is the plain clang driver: it takes tinygrad's arguments as they are
    version = _clang_version((path, "clang"))
    return Compiler("zig", version, (path, "clang")) if version is not None else None


def _find_llvm() -> Compiler | None:
    try:
        from tinygrad.runtime.autogen import llvm

        parts = [llvm.c.ctypes.c_uint32() for _ in range(3)]
        llvm.LLVMGetVersion(*parts)
    except Exception:  # noqa: BLE001  no library, or one without this function
        return None
    if parts[0].value < OLDEST_CLANG:
        return None
    return Compiler("llvm", ".".join(str(part.value) for part in parts), ())


def _clang_version(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"clang version (\d+(?:\.\d+)*)", done.stdout)
    return match.group(1) if match else None


def _identity(compiler: Compiler) -> str:
    text = f"{compiler.name} {compiler.version} {' '.join(compiler.command)} {cpu_model()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Clang(ClangJITCompiler):  # type: ignore[misc]
    """tinygrad's compiler with another command, and a cache key that names it."""

    def __init__(self, arch: list[str], compiler: Compiler):
        super().__init__(arch, cachekey=f"tinyseg_{_identity(compiler)}")
        self.command, self.deferred = compiler.command, False
        self.pool = ThreadPoolExecutor(CPU_COUNT.value, "tinyseg-compiler")
        self.begun: dict[str, Future[bytes]] = {}

    def begin(self, src: str) -> None:
        """Starts compiling in the background what `compile` will be asked for."""
        if src not in self.begun and diskcache_get(self.cachekey, src) is None:
            self.begun[src] = self.pool.submit(self.compile_to_obj, src)

    def compile_cached(self, src: str) -> bytes:
        if self.deferred:
            self.begin(src)
            return b""
        return bytes(super().compile_cached(src))

    def compile(self, src: str) -> bytes:
        begun = self.begun.pop(src, None)
        return bytes(jit_loader(begun.result() if begun else self.compile_to_obj(src)))

    def compile_to_obj(self, src: str) -> bytes:
        target = f"--target={self.arch}-none-unknown-elf"
        command = [*self.command, *CLANG_ARGUMENTS, target, *self.args, "-", "-o", "-"]
        done = subprocess.run(command, input=src.encode(), capture_output=True, check=False)
        if done.returncode != 0:
            raise BackendError(f"{command[0]} failed: {done.stderr.decode()[-300:]}")
        return done.stdout


def _renderer_class(compiler: Compiler) -> type[ClangJITRenderer]:
    def init(self: ClangJITRenderer, target: object) -> None:
        ClangJITRenderer.__init__(self, target)
        arch = [part for part in self.target.arch.split(",") if part != "AMX"]
        self.compiler = _Clang(arch, compiler)

    return type(f"Tinyseg{compiler.name.title()}Renderer", (ClangJITRenderer,), {"__init__": init})


def _install(compiler: Compiler) -> None:
    device = Device["CPU"]
    if compiler.command:
        device.renderers.insert(0, _renderer_class(compiler))
    elif compiler.name == "llvm":
        device.renderers.sort(key=lambda renderer: "LLVM" not in renderer.__name__)


def forget_compilers() -> bool:
    """Removes the measured speeds of compilers, so that the next process measures; if any were."""
    path = cache_folder() / _SPEEDS
    known = path.exists()
    path.unlink(missing_ok=True)
    return known


_SPEEDS = "compilers.json"


def _measured(found: tuple[Compiler, ...]) -> dict[str, float]:
    path = cache_folder() / _SPEEDS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {_identity(c): float(known[_identity(c)]) for c in found}
    except (OSError, ValueError, KeyError, TypeError):
        speeds = {_identity(c): _measure(c) for c in found}
        path.write_text(json.dumps(speeds), encoding="utf-8")
        return speeds


def _measure(compiler: Compiler, side: int = 256) -> float:
    """GFLOP/s of a matrix product compiled by `compiler`; 0 when it cannot."""
    device, before = Device["CPU"], list(Device["CPU"].renderers)
    _install(compiler)
    try:
        with Context(DEV="CPU", CACHELEVEL=0):
            return _matmul_speed(side)
    except Exception:  # noqa: BLE001  a compiler that fails here is not chosen
        return 0.0
    finally:
        device.renderers[:] = before


def _matmul_speed(side: int) -> float:
    a, b = (Tensor(np.ones((side, side), np.float32), device="CPU").realize() for _ in range(2))
    product = TinyJit(lambda a, b: (a @ b).realize())
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        product(a, b)
        Device["CPU"].synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds[2:]) / 1e9
