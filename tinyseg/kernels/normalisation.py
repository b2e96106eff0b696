"""Batch normalisation of a training batch, with ReLU when wanted, and its gradient."""

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import plain
from tinyseg.kernels.channels import (
    Channels,
    gradient_kernel,
    gradient_sums_kernel,
    normalise_kernel,
    sums_kernel,
)
from tinyseg.kernels.memory import nchw, nhwc, settled
from tinyseg.kernels.plans import channel_plan, refusal


def batch_norm(
    x_bchw: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised images, the batch's mean and its (biased) variance per channel.

    With `relu` the images are rectified as well. Mean and variance carry no gradient: they are
    for the running statistics. The variance is computed from sums of x - x[0] and its square, so
    that a large common offset does not cost precision.
    """
    channels = int(x_bchw.shape[1])
    if weight.shape != (channels,) or bias.shape != (channels,):
        raise ValueError(
            f"images of {channels} channels need a weight and a bias of {channels} numbers, "
            f"got {weight.shape} and {bias.shape}"
        )
    size = channel_plan(x_bchw.numel() // channels, channels)
    if refusal(x_bchw, weight, bias) or size is None:
        return plain.batch_norm(x_bchw, weight, bias, epsilon, relu)
    x_bhwc = nhwc(x_bchw)
    y_bhwc, mean, variance = _normalise(x_bhwc, weight, bias, size, epsilon, relu)
    return nchw(y_bhwc), mean.detach(), variance.detach()


def _normalise(
    x_bhwc: Tensor, weight: Tensor, bias: Tensor, size: Channels, epsilon: float, relu: bool
) -> tuple[Tensor, ...]:
    device = str(x_bhwc.device)
    kernel = normalise_kernel(size, device, epsilon, relu)

    def empty(*shape: int) -> Tensor:
        return Tensor.empty(*shape, device=device)

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        x, table = Tensor(call.src[5]), Tensor(call.src[2].after(call))
        dy = settled(upstream)
        sums = empty(size.threads, 2, size.channels)
        sums_of = gradient_sums_kernel(size, device, relu)
        sums = sums.custom_kernel(dy, x, table, fxn=sums_of)[0]
        slopes = empty(size.threads, 2, size.channels)
        vectors = empty(size.channels), empty(size.channels)
        apply = gradient_kernel(size, device, relu)
        given = (slopes, *vectors, dy, x, table, sums)
        dx, _, dw, db = empty(*x.shape).custom_kernel(*given, fxn=apply)[:4]
        return None, None, None, None, dx.uop, None, dw.uop, db.uop

    parts = empty(size.threads, 2, size.channels)
    parts = parts.custom_kernel(x_bhwc, fxn=sums_kernel(size, device))[0]
    table = empty(size.threads, 4, size.channels)
    statistics = empty(size.channels), empty(size.channels)
    given = (table, *statistics, x_bhwc, parts, weight, bias)
    made = empty(*x_bhwc.shape).custom_kernel(*given, fxn=kernel, grad_fxn=gradient)
    return made[0], made[2], made[3]
