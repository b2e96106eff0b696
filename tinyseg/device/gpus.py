"""What is known of GPUs before one is opened: which may be there, and who compiles for NVIDIA's."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinyseg.errors import BackendError

_NODES = {
    "AMD": ("/dev/kfd",),
    "NV": ("/dev/nvidiactl",),
    "CUDA": ("/dev/nvidiactl", "/dev/dxg"),
    "QCOM": ("/dev/kgsl-3d0",),
}
"""Files by which Linux shows a GPU; loading tinygrad's drivers to find none takes 0.6 s."""

NO_NVRTC = (
    "tinygrad writes PTX itself, without bfloat16 on tensor cores, because NVIDIA's compiler was "
    'not found: run  pip install "tinyseg[cuda]"'
)


def may_be_there(name: str) -> bool:
    """Return False when opening tinygrad's device `name` would only cost time."""
    if name == "METAL":
        return sys.platform == "darwin"
    if name == "CL":
        return _opencl_is_a_gpu()
    nodes = _NODES.get(name, ()) if sys.platform == "linux" else ()
    return not nodes or any(Path(node).exists() for node in nodes)


def _opencl_is_a_gpu() -> bool:
    """Ask the platform that tinygrad would take; PoCL, for one, is only the CPU once more."""
    try:
        from tinygrad.runtime.autogen import opencl as cl

        platform, count = (cl.cl_platform_id * 1)(), cl.cl_uint()
        if cl.clGetPlatformIDs(1, platform, None) != 0:
            return False
        status = cl.clGetDeviceIDs(platform[0], cl.CL_DEVICE_TYPE_GPU, 0, None, count)
        return bool(status == 0 and count.value > 0)
    except Exception:  # noqa: BLE001  no OpenCL library, or a broken one
        return False


def use_cuda_extra() -> None:
    """Let tinygrad find NVIDIA's compiler and its headers in the wheels of the `cuda` extra.

    To be called before tinygrad loads either; a NVRTC_PATH that the user has set is left alone.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in map(Path, folders or ()):
        headers = folder / "cuda_runtime"
        libraries = sorted((folder / "cuda_nvrtc" / "lib").glob("libnvrtc.so.*"))
        if libraries and headers.is_dir() and "NVRTC_PATH" not in os.environ:
            os.environ["NVRTC_PATH"] = str(libraries[0])
            os.environ["CUDA_PATH"] = str(headers)  # of the same release as the library


def nvidia_compiler(device: Any) -> str:
    """Return in words who compiles for tinygrad's NV or CUDA device.

    Raises BackendError when the driver is too old to load what is compiled.
    """
    from tinygrad.runtime.support.compiler_cuda import NVRTCCompiler

    compiler = device.renderer.compiler
    if not isinstance(compiler, NVRTCCompiler):
        return NO_NVRTC
    from tinygrad.runtime.autogen import cuda, nvrtc

    release = _numbers(nvrtc.nvrtcVersion, 2)
    if compiler.ptx and device.device.startswith("CUDA"):
        (known,) = _numbers(cuda.cuDriverGetVersion, 1)
        driver = [known // 1000, known % 1000 // 10]  # 12040 is CUDA 12.4
        if release > driver:
            raise BackendError(_too_old(release, driver))
    return f"NVRTC {release[0]}.{release[1]} compiles"


def _numbers(function: Callable[..., object], count: int) -> list[int]:
    """Call a C function that fills integers."""
    numbers = [ctypes.c_int() for _ in range(count)]
    function(*map(ctypes.byref, numbers))
    return [number.value for number in numbers]


def _too_old(release: list[int], driver: list[int]) -> str:
    has, needs = (f"{major}.{minor}" for major, minor in (driver, release))
    wheels = (f'"nvidia-cuda-{part}-cu12=={has}.*"' for part in ("nvrtc", "runtime"))
    return (
        f"this NVIDIA driver knows CUDA {has} and cannot load what NVRTC {needs} compiles: update "
        f"the driver, or run  pip install {' '.join(wheels)}"
    )
