"""Tensors into NHWC memory, without a copy where they are there already."""

from tinygrad import Tensor
from tinygrad.uop.ops import Ops, UOp


def nhwc(x_bchw: Tensor) -> Tensor:
    """Return images with channels last, as memory that a kernel can read."""
    return settled(x_bchw.permute(0, 2, 3, 1).uop)


def nchw(x_bhwc: Tensor) -> Tensor:
    """Return the logical NCHW view of a kernel's result."""
    return x_bhwc.permute(0, 3, 1, 2)


def settled(uop: UOp) -> Tensor:
    """Return a tensor in memory: as it is when a kernel wrote it, otherwise made contiguous.

    Two permutations that undo each other are taken off: tinygrad would copy, 60 times a step.
    """
    while uop.op is Ops.PERMUTE and uop.src[0].op is Ops.PERMUTE:
        inner = uop.src[0]
        if [inner.arg[axis] for axis in uop.arg] != list(range(len(uop.arg))):
            break
        uop = inner.src[0]
    return Tensor(uop) if uop.op is Ops.AFTER else Tensor(uop).contiguous()
