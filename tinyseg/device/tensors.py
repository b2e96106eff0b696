"""Tensors with buffers of their own: how NumPy arrays reach the device, and what enters a step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from tinygrad import Tensor, UOp
from tinygrad.dtype import _from_np_dtype, _to_np_dtype

from tinyseg.common.arrays import Array
from tinyseg.device.choose import backend
from tinyseg.errors import StepError

Tensors = dict[str, Tensor]
"""By name."""


def to_device(array: Array) -> Tensor:
    """Return a realized Tensor with a copy of `array` in a buffer of its own; no kernel runs."""
    backend()
    tensor = Tensor.empty(*array.shape, dtype=_from_np_dtype(array.dtype))
    copy_(tensor, array)
    return tensor


def copy_(tensor: Tensor, array: Array) -> None:
    """Copy `array` into the tensor's buffer, as its dtype; all that share the buffer change."""
    # tinygrad copies from writable memory only
    host = np.require(array, _to_np_dtype(tensor.dtype), ["C", "W"])
    tensor.uop.buffer.ensure_allocated().copyin(host.reshape(-1).view(np.uint8).data)


def owns_buffer(tensor: Tensor) -> bool:
    """Return whether the tensor is a whole realized buffer: all else is baked into a step."""
    uop = tensor.uop
    while uop.op.name == "RESHAPE":
        uop = uop.src[0]
    return bool(uop.op.name == "BUFFER" and uop.is_realized)


def buffer_of(tensor: Tensor) -> UOp:
    """Return the identity of a tensor's buffer, the same for all tensors that share it."""
    return tensor.uop.base


def shorten_view(tensor: Tensor) -> None:
    """View a whole buffer directly: each assignment by a kernel puts two more reshapes around it.

    Without this a step's graph grows from call to call, and its schedule is never found again.
    """
    if owns_buffer(tensor):
        tensor.uop = buffer_of(tensor).reshape(tensor.shape)


def ensure_buffer(*tensors: Tensor) -> None:
    """Give each tensor a whole buffer of its own; `realize` alone leaves a constant without one.

    A pending assignment goes into the buffer that the tensor has: a jitted step knows that one. All
    are realized in one call: random tensors of one shape, one by one, would come out equal.
    """
    waiting = [tensor for tensor in tensors if not owns_buffer(tensor)]
    if waiting:
        Tensor.realize(*waiting)
    constants = [tensor for tensor in waiting if not owns_buffer(tensor)]
    for tensor in constants:
        tensor.replace(tensor.clone().realize())


def clone(tensor: Tensor) -> Tensor:
    """Return a copy in a buffer of its own, by one memory copy: a kernel takes milliseconds."""
    source = tensor.uop.buffer.ensure_allocated()
    copy = Tensor.empty(*tensor.shape, dtype=tensor.dtype, device=tensor.device)
    copy.uop.buffer.ensure_allocated().copyin(source.as_memoryview(allow_zero_copy=True))
    return copy


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Undo, at the end, what was assigned to tensors meanwhile and not realized."""
    kept = [(tensor, tensor.uop) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, uop in kept:
            tensor.uop = uop


@contextmanager
def hold_back(
    tensors: Iterable[Tensor], choose: Callable[[Tensor, Tensor], Tensor] | None = None
) -> Iterator[None]:
    """Hold back what is assigned to `tensors` meanwhile; then assign `choose(new, old)` instead.

    Nothing is realized. Whoever reads one of them meanwhile gets what was assigned. Without
    `choose` they are afterwards as they were.
    """
    held = []
    for tensor in tensors:
        held.append((tensor, tensor.uop, tensor.clone().uop))
        tensor.uop = held[-1][-1]
    try:
        yield
    finally:
        for tensor, old, copy in held:
            new, tensor.uop = Tensor(tensor.uop), old
            if choose and new.uop is not copy:
                tensor.assign(choose(new, tensor))


def finite_only(statistics: Iterable[Tensor]) -> AbstractContextManager[None]:
    """Keep, of what is assigned to `statistics` meanwhile, the finite values only (unrealized).

    One NaN in a running mean, as tinygrad's own BatchNorm assigns it, would stay there.
    """
    return hold_back(statistics, lambda new, old: new.isfinite().where(new, old))


def realize_weights(weights: Tensors) -> None:
    """Give all weights of a network buffers of their own, on the device that tinyseg uses.

    A network that was made before tinyseg chose a device is moved, in place. StepError where two
    weights share one buffer.
    """
    for tensor in weights.values():
        if str(tensor.device) != backend().device:
            tensor.to_(backend().device)
    ensure_buffer(*weights.values())
    owners: dict[Any, str] = {}
    for name, tensor in weights.items():
        owner = owners.setdefault(buffer_of(tensor), name)
        if owner != name:
            raise StepError(
                f"the weights {owner} and {name} are two Tensors in one buffer: to tie them, make "
                "both names the same Tensor; if they should differ, draw the network again and "
                "realize all of it in one call: Tensor.realize(*nn.state.get_parameters(model))"
            )
