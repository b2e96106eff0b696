"""The key of a compiled step: a digest of everything that shapes it.

Whatever is baked into a step and missing here would be a silent error, so nothing is described by
hand: objects are walked attribute by attribute, and what cannot be described is never cached.
"""

import functools
import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.device.choose import backend
from tinyseg.device.environment import cpu_model, renderer, settings, versions
from tinyseg.kernels import plans

PACKAGE = Path(__file__).parents[1]
CODE = (
    *("augment", "config", "device", "inference.step", "jit"),
    *("kernels", "losses", "models", "nn"),
    *("training.loss_scale", "training.optimizer", "training.state", "training.step"),
)
"""Modules of tinyseg whose code shapes a step: their text is in the key, so their objects may be
described by class and attributes. Any other class may change without a trace."""


class NotCacheable(Exception):
    """A step cannot be cached; the message says why."""


def step_key(parts: Mapping[str, str]) -> str:
    """Return the digest of a step: its description, `parts`, and all that compiles it."""
    whole = {"parts": dict(parts), "made with": environment()}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def signature(tensors: Mapping[str, Tensor]) -> str:
    """Return names, shapes, types and devices, in the order of the arguments."""
    return "; ".join(f"{n} {tuple(t.shape)} {t.dtype} {t.device}" for n, t in tensors.items())


def describe(value: Any, state: Mapping[str, Tensor], without: Sequence[str] = ()) -> str:
    """Return an object as text, with all attributes but `without`; Tensors by name in `state`.

    NotCacheable for what no text can stand for: code that is not ours, hidden Tensors.
    """
    names = {id(tensor): name for name, tensor in state.items()}
    return _Describer(names, without).text(value)


class _Describer:
    def __init__(self, names: Mapping[int, str], without: Sequence[str]):
        self.names, self.without, self.open = names, without, set[int]()

    def text(self, value: Any) -> str:
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            return repr(value)
        if isinstance(value, Tensor):
            if id(value) not in self.names:
                raise NotCacheable("it contains a Tensor that is not part of its state")
            return f"<state {self.names[id(value)]}>"
        if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
            digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return f"<array {value.dtype} {value.shape} {digest}>"
        if inspect.isfunction(value) or isinstance(value, type):
            return _code(value)
        if id(value) in self.open:
            raise NotCacheable(f"an object of {_name(type(value))} contains itself")
        self.open.add(id(value))
        text = self._members(value)
        self.open.discard(id(value))
        return text

    def _members(self, value: Any) -> str:
        if type(value) in (list, tuple):
            return f"{type(value).__name__}({', '.join(map(self.text, value))})"
        items = value if type(value) is dict else self._attributes(value)
        kept = [(k, v) for k, v in items.items() if k not in self.without]
        inside = ", ".join(f"{self.text(k)}: {self.text(v)}" for k, v in kept)
        return f"{'dict' if type(value) is dict else _name(type(value))}{{{inside}}}"

    def _attributes(self, value: Any) -> dict[str, Any]:
        _code(type(value))
        if not hasattr(value, "__dict__"):
            raise NotCacheable(f"the attributes of {_name(type(value))} cannot be listed")
        return dict(vars(value))


def _name(code: Any) -> str:
    return f"{code.__module__}.{code.__qualname__}"


def _code(code: Any) -> str:
    """Return the name of a class or function of ours; NotCacheable unless it is as its source."""
    if not _is_ours(code.__module__):
        raise NotCacheable(f"{_name(code)} is code outside tinyseg, which may change unseen")
    if getattr(code, "__closure__", None) or "<locals>" in code.__qualname__:
        raise NotCacheable(f"{_name(code)} depends on the function that made it")
    for member in vars(code).values() if isinstance(code, type) else ():
        if inspect.isfunction(member) and not _is_ours(member.__module__):
            raise NotCacheable(f"{_name(code)} was changed by {_name(member)}")
    for base in code.__mro__[1:-1] if isinstance(code, type) else ():
        _code(base)
    return f"<code {_name(code)}>"


def _is_ours(module: str) -> bool:
    return any(f"{module}.".startswith(f"tinyseg.{name}.") for name in CODE)


def environment() -> dict[str, str]:
    """Return all that a compiled step depends on besides itself: machine, versions, our code."""
    chosen = backend()
    return {
        "device": f"{chosen.device} {renderer(chosen.device)}",
        "compiler": str(chosen.compiler),
        "processor": f"{cpu_model()} {_processor_flags()}",
        "threads": str(chosen.threads),
        "versions": json.dumps(versions()),
        "settings": json.dumps(settings()),
        "plans": f"{plans.machine()} {plans.overridden} {_plain_values(plans)}",
        "code": CODE_DIGEST,
    }


def _plain_values(module: Any) -> dict[str, Any]:
    """Return the switches and constants of a module as they are now."""
    plain = (bool, int, float, str, type(None))
    return {k: v for k, v in vars(module).items() if type(v) in plain and not k.startswith("__")}


@functools.cache
def _processor_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    flags = sorted(set(re.findall(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.M)))
    return hashlib.sha256(json.dumps(flags).encode()).hexdigest()


def _code_digest() -> str:
    """Return a digest of the source text of all modules in CODE."""
    digest = hashlib.sha256()
    for module in CODE:
        path = PACKAGE.joinpath(*module.split("."))
        single = path.with_suffix(".py")
        for file in [single] if single.exists() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(PACKAGE).as_posix()}\n".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


CODE_DIGEST = _code_digest()
"""Digest of the code that this process runs, taken at import: files may change later."""
