"""The Tensors behind a step, wherever it keeps them, so that all can be put back."""

from collections.abc import Iterator
from types import CellType, ModuleType
from typing import Any

from tinygrad import Tensor, TinyJit

from tinyseg.common.arrays import Array
from tinyseg.device.random import tinygrad_random
from tinyseg.device.tensors import copy_, ensure_buffer, restored
from tinyseg.nn import forward, parameters, state_dict

DEEP = 8
"""Objects within objects that are looked into."""

INNER = ("numpy", "tinygrad.tensor", "tinygrad.uop", "tinygrad.device", "tinygrad.engine")
"""Modules whose objects hold no Tensors that a user would call state."""


class State:
    """Everything that running a step may change, found by walking the step and the model."""

    def __init__(self, step: Any, model: Any):
        self.weights = state_dict(model)
        owners = (step, model, tinygrad_random())  # the last for dropout in a user's step
        found = {id(tensor): tensor for owner in owners for tensor in tensors_of(owner)}
        self.tensors = list(found.values())
        ensure_buffer(*self.tensors)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by the names of the model."""
        return parameters(self.weights)

    def save(self) -> list[Array]:
        """A copy of all values."""
        return [tensor.numpy().copy() for tensor in self.tensors]

    def load(self, arrays: list[Array]) -> None:
        """Puts a copy back."""
        ensure_buffer(*self.tensors)
        for tensor, array in zip(self.tensors, arrays, strict=True):
            copy_(tensor, array)


def probe(model: Any, image: Tensor, training: bool) -> Tensor:
    """Return a network's logits; what it assigns meanwhile, as running statistics, is undone."""
    with restored(state_dict(model).values()):
        return forward(model, image, training)


def tensors_of(thing: Any, deep: int = DEEP, seen: set[int] | None = None) -> Iterator[Tensor]:
    """The Tensors in attributes, containers, closures and bound objects of anything."""
    seen = set() if seen is None else seen
    if id(thing) in seen or deep < 0:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        return
    for part in _parts(thing):
        yield from tensors_of(part, deep - 1, seen)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, TinyJit):
        return [thing.fxn]
    module = getattr(type(thing), "__module__", "")
    if isinstance(thing, type | ModuleType) or module.startswith(INNER):
        return []
    cells = getattr(thing, "__closure__", None) or ()
    bound = [getattr(thing, "__self__", None)]
    return [*getattr(thing, "__dict__", {}).values(), *bound, *map(_content, cells)]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is not assigned yet
        return None
