"""Batch normalization of a training batch, with ReLU when wanted, and its gradient."""

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.channels import (
    Channels,
    gradient_kernel,
    gradient_sums_kernel,
    normalize_kernel,
    sums_kernel,
)
from tinyseg.kernels.memory import HALF, empty, in_memory, nchw, nhwc, wide
from tinyseg.kernels.plans import channel_plan, fallback_reason


def batch_norm(
    x_bchw: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalized images, the batch's mean and its (biased) variance per channel.

    With `relu` the images are rectified as well. Mean and variance carry no gradient: they are
    for the running statistics. Images may be of a half type, all else is float32. The variance
    comes from sums of x - x[0] and its square, so that a large common offset does not cost
    precision.
    """
    channels = int(x_bchw.shape[1])
    if weight.shape != (channels,) or bias.shape != (channels,):
        raise ValueError(
            f"images of {channels} channels need a weight and a bias of {channels} numbers, "
            f"got {weight.shape} and {bias.shape}"
        )
    if x_bchw.dtype in HALF:
        y_bchw, mean, variance = batch_norm(wide(x_bchw), weight, bias, eps, relu)
        return y_bchw.cast(x_bchw.dtype), mean, variance
    size = channel_plan(x_bchw.numel() // channels, channels)
    if fallback_reason(x_bchw, weight, bias) or size is None:
        return plain.batch_norm(x_bchw, weight, bias, eps, relu)
    y_bhwc, mean, variance = _normalize(nhwc(x_bchw), weight, bias, size, eps, relu)
    return nchw(y_bhwc), mean.detach(), variance.detach()


def _normalize(
    x_bhwc: Tensor, weight: Tensor, bias: Tensor, size: Channels, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run both forward kernels and attach the gradient."""

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        x, table = Tensor(call.src[5]), Tensor(call.src[2].after(call))
        dx, dw, db = _gradients(in_memory(upstream), x, table, size, relu)
        return None, None, None, None, dx.uop, None, dw.uop, db.uop

    parts = empty(size.threads, 2, size.channels).custom_kernel(x_bhwc, fxn=sums_kernel(size))[0]
    table = empty(size.threads, 4, size.channels)
    statistics = empty(size.channels), empty(size.channels)
    inputs = (table, *statistics, x_bhwc, parts, weight, bias)
    kernel = normalize_kernel(size, eps, relu)
    outputs = empty(*x_bhwc.shape).custom_kernel(*inputs, fxn=kernel, grad_fxn=gradient)
    return outputs[0], outputs[2], outputs[3]


def _gradients(
    dy_bhwc: Tensor, x_bhwc: Tensor, table: Tensor, size: Channels, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, weight and bias."""
    sums, slopes = empty(size.threads, 2, size.channels), empty(size.threads, 2, size.channels)
    kernel = gradient_sums_kernel(size, relu)
    sums = sums.custom_kernel(dy_bhwc, x_bhwc, table, fxn=kernel)[0]
    inputs = (slopes, empty(size.channels), empty(size.channels), dy_bhwc, x_bhwc, table, sums)
    outputs = empty(*x_bhwc.shape).custom_kernel(*inputs, fxn=gradient_kernel(size, relu))
    return outputs[0], outputs[2], outputs[3]
