"""The Tensors behind a step, wherever it keeps them, so that an experiment can restore them."""

from collections.abc import Iterator
from types import CellType, ModuleType
from typing import Any, TypeVar

from tinygrad import Tensor, TinyJit

from tinyseg.common.arrays import Array
from tinyseg.device.random import tinygrad_random
from tinyseg.device.tensors import copy_, ensure_buffer
from tinyseg.nn import parameters, state_dict

Kind = TypeVar("Kind")

MAX_DEPTH = 8
"""Levels of objects within objects that are searched."""
NOT_SEARCHED = ("numpy", "tinygrad.tensor", "tinygrad.uop", "tinygrad.device", "tinygrad.engine")
"""Modules whose objects hold no Tensors that a user would call state."""


class State:
    """Everything that a step may change, found by searching the step and the model."""

    def __init__(self, step: Any, model: Any):
        self.weights = state_dict(model)
        owners = (step, model, tinygrad_random())  # the last one for dropout in a custom step
        tensors = {id(tensor): tensor for owner in owners for tensor in tensors_of(owner)}
        self.tensors = list(tensors.values())
        self.kept: list[Tensor] = []
        """Those that `load` leaves as they are, such as a learning rate under test."""
        ensure_buffer(*self.tensors)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The trained weights by their names in the model."""
        return parameters(self.weights)

    def save(self) -> list[Array]:
        """Return a copy of all values."""
        return [tensor.numpy().copy() for tensor in self.tensors]

    def load(self, arrays: list[Array]) -> None:
        """Restore a copy."""
        ensure_buffer(*self.tensors)
        kept = {id(tensor) for tensor in self.kept}
        for tensor, array in zip(self.tensors, arrays, strict=True):
            if id(tensor) not in kept:
                copy_(tensor, array)


def tensors_of(thing: Any) -> Iterator[Tensor]:
    """Yield the Tensors in attributes, containers, closures and bound objects of anything."""
    return found_in(thing, Tensor)


def found_in(
    thing: Any, kind: type[Kind], depth: int = MAX_DEPTH, visited: set[int] | None = None
) -> Iterator[Kind]:
    """Yield the objects of a type in attributes, containers, closures and bound objects."""
    visited = set() if visited is None else visited
    if id(thing) in visited or depth < 0:
        return
    visited.add(id(thing))
    if isinstance(thing, kind):
        yield thing
        return
    for part in _parts(thing):
        yield from found_in(part, kind, depth - 1, visited)


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, list | tuple):
        return list(thing)
    if isinstance(thing, TinyJit):
        return [thing.fxn]
    module = getattr(type(thing), "__module__", "")
    if isinstance(thing, type | ModuleType) or module.startswith(NOT_SEARCHED):
        return []
    cells = getattr(thing, "__closure__", None) or ()
    bound = [getattr(thing, "__self__", None)]
    return [*getattr(thing, "__dict__", {}).values(), *bound, *map(_content, cells)]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the name is not assigned yet
        return None
