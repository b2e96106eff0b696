"""What follows the gradients: their norm, Adam and running statistics, each in one kernel."""

from collections.abc import Sequence

from tinygrad import Tensor
from tinygrad.uop.ops import Ops

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.updates import Average, adam_kernel, averages_kernel, squares_kernel
from tinyseg.kernels.memory import empty
from tinyseg.kernels.plans import fallback_reason, machine
from tinyseg.kernels.shapes import AdamSettings


def joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients as one vector; not finite where any number is not."""
    if fallback_reason(*gradients):
        return plain.joint_norm(gradients)
    host = machine()
    sizes = tuple(int(gradient.numel()) for gradient in gradients)
    kernel = squares_kernel(sizes, host.lanes, host.threads)
    parts = empty(host.threads * (host.lanes + 1))
    parts = parts.custom_kernel(*map(_whole, gradients), fxn=kernel)[0]
    return parts.sum().sqrt().contiguous()


def _whole(gradient: Tensor) -> Tensor:
    """Return a kernel's output as it is, which is read without a copy; all else flat."""
    return gradient if gradient.uop.op is Ops.AFTER else gradient.flatten()


def adam(
    parameters: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    gradients: Sequence[Tensor],
    numbers: Tensor,
    settings: AdamSettings,
) -> None:
    """Update parameters, means and squares in place (unrealized), in one kernel.

    `numbers` holds what changes per step: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), lr x
    decoupled decay, and 1 to accept the step or 0 to leave everything as it is. All tensors but
    the gradients must be whole realized buffers.
    """
    if numbers.shape != (4,):
        raise ValueError(f"the numbers of a step have shape (4,), got {numbers.shape}")
    olds = (parameters, means, squares)
    if fallback_reason(numbers, *gradients, *(tensor for old in olds for tensor in old)):
        plain.adam(*olds, gradients, numbers, settings)
        return
    host = machine()
    sizes = tuple(int(parameter.numel()) for parameter in parameters)
    kernel = adam_kernel(sizes, settings, host.lanes, host.threads)
    # flat: of a shaped tensor that another kernel of the step reads, tinygrad 0.13 passes a copy,
    # and the update is lost
    inputs: list[Tensor] = []
    for *state, gradient in zip(*olds, gradients, strict=True):
        inputs += [*(tensor.flatten() for tensor in state), _whole(gradient)]
    outputs = inputs[0].custom_kernel(*inputs[1:], numbers, fxn=kernel)
    for index, updated in enumerate(zip(*olds, strict=True)):
        for offset, tensor in enumerate(updated):
            tensor.replace(outputs[4 * index + offset].reshape(tensor.shape))


def moving_averages(
    running: Sequence[Tensor],
    news: Sequence[Tensor],
    momenta: Sequence[float],
    factors: Sequence[float],
) -> None:
    """Move each running vector in place (unrealized) by its momentum towards new x factor.

    Values that are not finite are left out. The running vectors must be whole realized buffers.
    """
    if fallback_reason(*running, *news):
        plain.moving_averages(running, news, momenta, factors)
        return
    sizes = (int(vector.numel()) for vector in running)
    averages = tuple(Average(*each) for each in zip(sizes, momenta, factors, strict=True))
    inputs = [tensor for pair in zip(running, news, strict=True) for tensor in pair]
    outputs = inputs[0].custom_kernel(*inputs[1:], fxn=averages_kernel(averages, machine().lanes))
    for vector, output in zip(running, outputs[::2], strict=True):
        vector.replace(output)
