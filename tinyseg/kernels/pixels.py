"""Maximum pooling and the joining of channels, logical NCHW over NHWC memory."""

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.spatial import join_kernel, part_kernel, pool_gradient_kernel, pool_kernel
from tinyseg.kernels.memory import HALF, empty, in_memory, nchw, nhwc, wide
from tinyseg.kernels.plans import fallback_reason, join_plan, pool_plan


def max_pool(x_bchw: Tensor, kernel: int = 2) -> Tensor:
    """Return the maximum of each 2 x 2 square; an odd last row or column is left out.

    With `kernel` 3: of each 3 x 3 square around every second pixel, the first one included.

    Where several pixels are the largest, the first one has the gradient (as in PyTorch;
    `plain.max_pool` shares it).
    """
    if x_bchw.dtype in HALF:  # tinygrad's own gradient would be float32
        return max_pool(wide(x_bchw), kernel).cast(x_bchw.dtype)
    batch, channels, rows, columns = (int(size) for size in x_bchw.shape)
    size = pool_plan(batch, rows, columns, channels)
    if fallback_reason(x_bchw) or size is None or kernel == 3:
        return plain.max_pool(x_bchw, kernel)

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        inputs = in_memory(upstream), Tensor(call.src[2])
        out = empty(*call.src[2].shape)
        return None, out.custom_kernel(*inputs, fxn=pool_gradient_kernel(size))[0].uop

    out = empty(batch, rows // 2, columns // 2, channels)
    return nchw(out.custom_kernel(nhwc(x_bchw), fxn=pool_kernel(size), grad_fxn=gradient)[0])


def join(left_bchw: Tensor, right_bchw: Tensor) -> Tensor:
    """Return the channels of both images, those of `left_bchw` first."""
    (batch, left, rows, columns), right = left_bchw.shape, right_bchw.shape[1]
    if right_bchw.shape != (batch, right, rows, columns):
        raise ValueError(f"cannot join images of {left_bchw.shape} and {right_bchw.shape}")
    size = join_plan(int(batch * rows * columns), int(left), int(right))
    if fallback_reason(left_bchw, right_bchw) or size is None:
        return plain.join(left_bchw, right_bchw)

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        sides = [empty(*call.src[slot].shape) for slot in (2, 3)]
        sides = sides[0].custom_kernel(sides[1], in_memory(upstream), fxn=part_kernel(size))
        return None, sides[0].uop, sides[1].uop

    out, sides = empty(batch, rows, columns, left + right), (nhwc(left_bchw), nhwc(right_bchw))
    return nchw(out.custom_kernel(*sides, fxn=join_kernel(size), grad_fxn=gradient)[0])
