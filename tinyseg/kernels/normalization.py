"""Batch normalisation of a training batch, with ReLU when wanted, and its gradient."""

from dataclasses import dataclass

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.channels import (
    Channels,
    gradient_kernel,
    gradient_sums_kernel,
    normalise_kernel,
    sums_kernel,
)
from tinyseg.kernels.half import HALF, wide
from tinyseg.kernels.memory import nchw, nhwc, settled
from tinyseg.kernels.plans import channel_plan, refusal


def batch_norm(
    x_bchw: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised images, the batch's mean and its (biased) variance per channel.

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
        y_bchw, mean, variance = batch_norm(wide(x_bchw), weight, bias, epsilon, relu)
        return y_bchw.cast(x_bchw.dtype), mean, variance
    size = channel_plan(x_bchw.numel() // channels, channels)
    if refusal(x_bchw, weight, bias) or size is None:
        return plain.batch_norm(x_bchw, weight, bias, epsilon, relu)
    device = str(x_bchw.device)
    given = _Given(size, device, epsilon, relu)
    made = _normalise(nhwc(x_bchw), [weight, bias], given)
    return nchw(made[0]), made[2].detach(), made[3].detach()


@dataclass(frozen=True)
class _Given:
    """What is compiled into the kernels."""

    size: Channels
    device: str
    epsilon: float
    relu: bool

    def empty(self, *shape: int) -> Tensor:
        """Return memory for a kernel to write."""
        return Tensor.empty(*shape, device=self.device)


def _normalise(x_bhwc: Tensor, vectors: list[Tensor], given: _Given) -> list[Tensor]:
    """Run both forward kernels, attach the gradient, return the arguments after the last."""
    size, device = given.size, given.device
    parts = given.empty(size.threads, 2, size.channels)
    parts = parts.custom_kernel(x_bhwc, fxn=sums_kernel(size, device))[0]
    table = given.empty(size.threads, 4, size.channels)
    statistics = given.empty(size.channels), given.empty(size.channels)
    kernel = normalise_kernel(size, device, given.epsilon, given.relu)

    def gradient(upstream: UOp, call: UOp) -> tuple[UOp | None, ...]:
        x, table = Tensor(call.src[5]), Tensor(call.src[2].after(call))
        dx, dw, db = _gradients(settled(upstream), x, table, given)
        return None, None, None, None, dx.uop, None, dw.uop, db.uop

    arguments = (table, *statistics, x_bhwc, parts, *vectors)
    out = given.empty(*x_bhwc.shape)
    return list(out.custom_kernel(*arguments, fxn=kernel, grad_fxn=gradient))


def _gradients(
    dy_bhwc: Tensor, x_bhwc: Tensor, table: Tensor, given: _Given
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of images, weight and bias."""
    size, device = given.size, given.device
    kernel = gradient_sums_kernel(size, device, given.relu)
    sums = given.empty(size.threads, 2, size.channels)
    sums = sums.custom_kernel(dy_bhwc, x_bhwc, table, fxn=kernel)[0]
    slopes = given.empty(size.threads, 2, size.channels)
    vectors = given.empty(size.channels), given.empty(size.channels)
    arguments = (slopes, *vectors, dy_bhwc, x_bhwc, table, sums)
    out, kernel = given.empty(*x_bhwc.shape), gradient_kernel(size, device, given.relu)
    dx, _, dw, db, *_ = out.custom_kernel(*arguments, fxn=kernel)
    return dx, dw, db
