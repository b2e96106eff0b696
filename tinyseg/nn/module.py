"""How a network's Tensors are named, found and drawn."""

from collections.abc import Iterable, Iterator
from typing import Any

from tinygrad import Tensor

BUFFERS = ("running_mean", "running_var", "key")
"""Attributes that hold state which no gradient changes."""


def layers(module: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """`module` and every object below it, by dotted name, in the order of definition."""
    if isinstance(module, Tensor) or not (isinstance(module, list) or hasattr(module, "__dict__")):
        return
    if not isinstance(module, list):
        yield name, module
    for key, child in _children(module):
        yield from layers(child, f"{name}.{key}" if name else str(key))


def state_dict(module: Any, prefix: str = "") -> dict[str, Tensor]:
    """All Tensors below `module` by dotted name, in the order of their definition."""
    if isinstance(module, Tensor):
        return {prefix[:-1]: module}
    found: dict[str, Tensor] = {}
    for name, child in _children(module):
        found |= state_dict(child, f"{prefix}{name}.")
    return found


def _children(module: Any) -> Iterable[tuple[Any, Any]]:
    return (
        enumerate(module) if isinstance(module, list) else getattr(module, "__dict__", {}).items()
    )


def parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a `state_dict` that are trained: by their names, and by tinygrad's flag."""
    own = {name: t for name, t in state.items() if name.rsplit(".", 1)[-1] not in BUFFERS}
    return {name: t for name, t in own.items() if t.is_param}
