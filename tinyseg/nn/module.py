"""How the layers and Tensors of a network are found and named."""

from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from tinygrad import Tensor, TinyJit


def layers(module: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `module` and every object below it once, by dotted name, in the order of definition."""
    for path, thing in _walk(module, name, set()):
        if hasattr(thing, "__dict__") and not isinstance(thing, Tensor):
            yield path, thing


def state_dict(module: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return all Tensors below `module` by dotted name, in the order of their definition.

    They are found and named as `tinygrad.nn.state.get_state_dict` does, but a Tensor that has
    several names (tied weights) is listed once, by the first of them.
    """
    things = _walk(module, prefix.rstrip("."), set())
    return {name: thing for name, thing in things if isinstance(thing, Tensor)}


def parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a `state_dict` that are trained, by tinygrad's flag `is_param`."""
    return {name: t for name, t in state.items() if t.is_param and t.is_floating_point()}


def _walk(thing: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    yield name, thing
    for key, child in _children(thing):
        yield from _walk(child, f"{name}.{key}" if name else str(key), seen)


def _children(thing: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(thing, Tensor | TinyJit | type | ModuleType):
        return ()
    if hasattr(thing, "_asdict"):  # a namedtuple
        return list(thing._asdict().items())
    if isinstance(thing, dict):
        return list(thing.items())
    if hasattr(thing, "__dict__"):
        return list(vars(thing).items())
    return enumerate(thing) if isinstance(thing, list | tuple) else ()
