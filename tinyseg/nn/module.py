"""How a network's Tensors are named, found and drawn."""

from typing import Any

from tinygrad import Tensor

BUFFERS = ("running_mean", "running_var", "key")
"""Attributes that hold state which no gradient changes."""


def state_dict(module: Any, prefix: str = "") -> dict[str, Tensor]:
    """All Tensors below `module` by dotted name, in the order of their definition."""
    if isinstance(module, Tensor):
        return {prefix[:-1]: module}
    items = (
        enumerate(module) if isinstance(module, list) else getattr(module, "__dict__", {}).items()
    )
    found: dict[str, Tensor] = {}
    for name, child in items:
        found |= state_dict(child, f"{prefix}{name}.")
    return found


def parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a `state_dict` that are trained."""
    return {name: t for name, t in state.items() if name.rsplit(".", 1)[-1] not in BUFFERS}
