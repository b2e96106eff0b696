"""The device and the compiler of this process: chosen once, with the reason in words."""

import functools
import os
from dataclasses import dataclass

from tinygrad import Device
from tinygrad.helpers import CPU_COUNT, DEV

from tinyseg.device.compilers import Compiler, _choose_compiler, _install
from tinyseg.device.gpus import may_be_there, nvidia_compiler, use_cuda_extra
from tinyseg.device.graph import find_schedules_again, launcher, repair_graph
from tinyseg.device.kernel_cache import keep_kernels, turn_off_database
from tinyseg.errors import BackendError


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
    """Choose device and compiler at the first call; BackendError when there is none."""
    turn_off_database()
    find_schedules_again()
    device, reason = _choose_device()
    repair_graph(Device[device])
    if device in ("NV", "CUDA"):
        reason = f"{reason}; {nvidia_compiler(Device[device])}"
    if device != "CPU":
        keep_kernels(Device[device].renderer.compiler)
        return Backend(device, reason, None, CPU_COUNT.value)
    compiler, why = _choose_compiler()
    _install(compiler)
    if compiler.command:
        Device["CPU"].graph = launcher(Device["CPU"].renderer.compiler.compile_cached)
    else:
        keep_kernels(Device["CPU"].renderer.compiler)
    return Backend(device, f"{reason}; {why}", compiler, CPU_COUNT.value)


def _choose_device() -> tuple[str, str]:
    if name := DEV.device:
        if not _opens(name, requested=True):
            raise BackendError(
                f"DEV={name}: this device cannot be opened; unset DEV or set another"
            )
        return name, f"{name} because DEV={os.environ.get('DEV', name)} asks for it"
    for name in ("METAL", "AMD", "NV", "CUDA", "QCOM", "CL"):
        if _opens(name):
            DEV.value = name
            return name, f"{name} because it is the first GPU that can be opened"
    DEV.value = "CPU"
    return "CPU", "CPU because no GPU can be opened"


def _opens(name: str, requested: bool = False) -> bool:
    if not requested and not may_be_there(name):
        return False
    if name in ("NV", "CUDA", "NULL"):
        use_cuda_extra()
    try:
        return name == "CPU" or bool(Device[name].renderer)  # which needs a compiler
    except Exception:  # noqa: BLE001  a driver may fail in any way; then it is not there
        return False
