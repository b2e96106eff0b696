"""Maximum pooling and the joining of channels, logical NCHW over NHWC memory."""

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.spatial import join_kernel, part_kernel, pool_gradient_kernel, pool_kernel
from tinyseg.kernels.half import HALF, wide
from tinyseg.kernels.memory import nchw, nhwc, settled
from tinyseg.kernels.plans import join_plan, refusal, square_plan


def max_pool(x_bchw: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 square; an odd last row or column is left out.

    Where several pixels are the largest, the first one has the gradient (as in PyTorch;
    `plain.max_pool` shares it).
    """
    if x_bchw.dtype in HALF:  # tinygrad's own gradient would be float32
        return max_pool(wide(x_bchw)).cast(x_bchw.dtype)
    batch, channels, rows, columns = (int(size) for size in x_bchw.shape)
    size = square_plan(batch, rows, columns, channels)
    if refusal(x_bchw) or size is None:
        return plain.max_pool(x_bchw)
    device = str(x_bchw.device)

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        x, out = Tensor(call.src[2]), Tensor.empty(*call.src[2].shape, device=device)
        kernel = pool_gradient_kernel(size, device)
        return None, out.custom_kernel(settled(upstream), x, fxn=kernel)[0].uop

    out = Tensor.empty(batch, rows // 2, columns // 2, channels, device=device)
    y_bhwc = out.custom_kernel(nhwc(x_bchw), fxn=pool_kernel(size, device), grad_fxn=gradient)[0]
    return nchw(y_bhwc)


def join(left_bchw: Tensor, right_bchw: Tensor) -> Tensor:
    """Return the channels of both images, those of `left_bchw` first."""
    (batch, left, rows, columns), right = left_bchw.shape, right_bchw.shape[1]
    if right_bchw.shape != (batch, right, rows, columns):
        raise ValueError(f"cannot join images of {left_bchw.shape} and {right_bchw.shape}")
    size = join_plan(int(batch * rows * columns), int(left), int(right))
    if refusal(left_bchw, right_bchw) or size is None:
        return plain.join(left_bchw, right_bchw)
    device = str(left_bchw.device)

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        sides = [Tensor.empty(*call.src[slot].shape, device=device) for slot in (2, 3)]
        made = sides[0].custom_kernel(sides[1], settled(upstream), fxn=part_kernel(size, device))
        return None, made[0].uop, made[1].uop

    out = Tensor.empty(batch, rows, columns, left + right, device=device)
    given = nhwc(left_bchw), nhwc(right_bchw)
    y_bhwc = out.custom_kernel(*given, fxn=join_kernel(size, device), grad_fxn=gradient)[0]
    return nchw(y_bhwc)
