"""Layout and type of Tensors: NHWC memory without needless copies; half types as float32.

Half types are float16 and bfloat16: images are kept in them, all is computed in float32. A kernel
without a path of its own for them gets `wide` images and `rounded` weights, and its result is cast
back, which rounds once. (Products of half Tensors would be rounded one by one.)
"""

from tinygrad import Tensor, dtypes
from tinygrad.dtype import DType
from tinygrad.uop.ops import Ops, UOp

HALF = (dtypes.float16, dtypes.bfloat16)


def wide(x: Tensor) -> Tensor:
    """Return half types as float32, others as they are."""
    return x.float() if x.dtype in HALF else x


def rounded(weights: Tensor, dtype: DType) -> Tensor:
    """Return float32 weights with the values they have in `dtype`; their gradient is not rounded.

    Weights of a half type are only made wide.
    """
    if weights.dtype in HALF:
        return wide(weights)
    # a cast to half and back would round the gradient as well; both differences here are exact
    return weights + (weights.cast(dtype).float() - weights).detach()


def empty(*shape: int, dtype: DType = dtypes.float32) -> Tensor:
    """Return memory of the CPU that a kernel will write."""
    return Tensor.empty(*shape, dtype=dtype, device="CPU")


def nhwc(x_bchw: Tensor) -> Tensor:
    """Return images with channels last, as memory that a kernel can read."""
    return in_memory(x_bchw.permute(0, 2, 3, 1).uop)


def nchw(x_bhwc: Tensor) -> Tensor:
    """Return the logical NCHW view of a kernel's result."""
    return x_bhwc.permute(0, 3, 1, 2)


def in_memory(uop: UOp) -> Tensor:
    """Return a Tensor in memory: as it is when a kernel wrote it, otherwise made contiguous.

    Two permutations that undo each other are taken off: tinygrad would copy, 60 times a step.
    """
    while uop.op is Ops.PERMUTE and uop.src[0].op is Ops.PERMUTE:
        inner = uop.src[0]
        if [inner.arg[axis] for axis in uop.arg] != list(range(len(uop.arg))):
            break
        uop = inner.src[0]
    return Tensor(uop) if uop.op is Ops.AFTER else Tensor(uop).contiguous()
