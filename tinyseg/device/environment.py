"""What compiled code depends on: versions, tinygrad's settings, compiler, processor."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

from tinygrad import Device
from tinygrad.helpers import ContextVar


def versions() -> dict[str, str]:
    """Return the versions that results depend on, for the run folder and `tinyseg info`."""
    names = ("tinyseg", "tinygrad", "numpy", "pillow", "scipy")
    packages = {name: _version(name) for name in names}
    return {**packages, "python": platform.python_version(), "platform": platform.platform()}


def settings() -> dict[str, str]:
    """Return tinygrad's settings as they are now: nearly all change what is compiled."""
    values = {name: repr(setting.value) for name, setting in ContextVar._cache.items()}
    for name in _HARMLESS:
        values.pop(name, None)
    return values | {name: os.environ[name] for name in sorted(os.environ) if _matters(name)}


_HARMLESS = ("DEBUG", "NO_COLOR", "CACHELEVEL", "CCACHE", "CAPTURING", "ALLOW_DEVICE_USAGE")
"""Settings of tinygrad that change no program."""


def _matters(name: str) -> bool:
    starts = ("BEAM_", "MV", "REDUCEOP_", "HCQ", "UNSAFE_", "GRAPH_", "LLVM")
    return name.startswith(starts) or name in ("CC", "JITBEAM", "EXPAND_SSA", "ALLOW_HALF8")


def renderer(device: str) -> str:
    """Return what writes and compiles the kernels of a device."""
    writer = Device[device].renderer
    compiler = f"{type(writer.compiler).__name__} {getattr(writer.compiler, 'cachekey', None)}"
    return f"{type(writer).__name__} {writer.target!r} {compiler}"


def cpu_model() -> str:
    """Return the processor's name; compiled code is only valid for it."""
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
