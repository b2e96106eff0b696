"""Compilers for the CPU: which are installed, which is fastest, and how tinygrad uses it."""

import contextlib
import functools
import hashlib
import json
import re
import shutil
import subprocess
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tinygrad import Device, Tensor, TinyJit
from tinygrad.helpers import CPU_COUNT, DEV, Context
from tinygrad.renderer.cstyle import ClangJITRenderer
from tinygrad.runtime.support.compiler_cpu import ClangJITCompiler
from tinygrad.runtime.support.elf import jit_loader

from tinyseg.common.cache_dir import CacheOff, FileCache, cache_folder
from tinyseg.device.environment import cpu_model
from tinyseg.device.kernel_cache import kernel_cache
from tinyseg.errors import BackendError

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
    """The command line; empty for a library in this process."""


def _choose_compiler() -> tuple[Compiler, str]:
    if renderer := DEV.renderer:
        name = "llvm" if renderer == "LLVM" else renderer.lower()
        return Compiler(name, "", ()), f"{renderer} because DEV asks for it"
    installed = compilers()
    if not installed:
        raise BackendError(NO_COMPILER)
    if len(installed) == 1:
        (only,) = installed
        return only, f"{only.name} {only.version} because no other compiler was found"
    speeds = _speeds(installed)
    best = max(installed, key=lambda c: speeds[_identity(c)])
    listed = ", ".join(f"{c.name} {c.version} {speeds[_identity(c)]:.0f}" for c in installed)
    return best, f"{best.name} because it was the fastest (GFLOP/s: {listed})"


@functools.cache
def compilers() -> tuple[Compiler, ...]:
    """Return the usable compilers of this machine: clang on the PATH, the zig wheel, libLLVM."""
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
        self.started: dict[str, Future[bytes]] = {}

    def start(self, src: str) -> None:
        """Start to compile, in the background, what `compile` will be called for."""
        if src not in self.started and kernel_cache().load(self, src) is None:
            self.started[src] = self.pool.submit(self.compile_to_obj, src)

    def compile_cached(self, src: str) -> bytes:
        if self.deferred:
            self.start(src)
            return b""
        return kernel_cache().compile(self, src)

    def compile(self, src: str) -> bytes:
        started = self.started.pop(src, None)
        return bytes(jit_loader(started.result() if started else self.compile_to_obj(src)))

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


def speed_files() -> FileCache:
    """Return the folder of measured speeds; raises CacheOff or BackendError if there is none."""
    return FileCache(cache_folder() / "compilers", ".json", 2**20)


def _speeds(installed: tuple[Compiler, ...]) -> dict[str, float]:
    """Return GFLOP/s by identity, measured once for these compilers where it can be stored."""
    key = hashlib.sha256(" ".join(map(_identity, installed)).encode()).hexdigest()
    with contextlib.suppress(CacheOff, BackendError):
        if stored := speed_files().load(key):
            return {name: float(speed) for name, speed in json.loads(stored).items()}
    speeds = {_identity(c): _measure(c) for c in installed}
    with contextlib.suppress(CacheOff, BackendError, OSError):
        speed_files().store(key, json.dumps(speeds).encode())
    return speeds


def _measure(compiler: Compiler, side: int = 256) -> float:
    """Return the GFLOP/s of a matrix product compiled by `compiler`; 0 when it cannot."""
    device, before = Device["CPU"], list(Device["CPU"].renderers)
    _install(compiler)
    try:
        with Context(DEV="CPU"):
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
