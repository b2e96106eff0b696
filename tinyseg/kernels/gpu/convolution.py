"""The GPU's path: convolutions and their gradients by tensor cores, over NHWC memory."""

from tinygrad import Tensor, dtypes
from tinygrad.uop.ops import UOp

from tinyseg.kernels.gpu.tensorcores import forward_kernel, weight_kernel
from tinyseg.kernels.memory import in_memory
from tinyseg.kernels.plans import forward_warp, weight_warp
from tinyseg.kernels.shapes import Convolution, Instruction

Gradient = tuple[UOp | None, ...]


def convolve(
    x_bhwc: Tensor,
    w_ohwi: Tensor,
    bias: Tensor | None,
    conv: Convolution,
    instruction: Instruction,
) -> Tensor:
    """Return the convolution of images in their type, by sums in float32, gradients attached.

    The weights were cast to that type from float32, and their gradient is float32: the cast's own
    gradient has nothing left to do.
    """

    def gradient(upstream: UOp, call: UOp) -> Gradient:
        y_bhwo, x, w = in_memory(upstream), Tensor(call.src[2]), Tensor(call.src[3])
        if conv.relu:
            y_bhwo = (Tensor(call.src[1].after(call)) > 0).where(y_bhwo, 0).contiguous()
        backward = _transposed_gradients if conv.scatter > 1 else _gradients
        to_x, to_w = backward(x, y_bhwo, w, conv, instruction)
        if bias is None:
            return None, to_x.uop, to_w.uop
        to_bias = y_bhwo.sum((0, 1, 2), dtype=dtypes.float).cast(bias.dtype)
        return None, to_x.uop, to_w.uop, to_bias.uop

    scale = conv.scatter
    shape = (conv.batch, conv.out_rows * scale, conv.out_columns * scale)
    out = _empty(x_bhwc, *shape, conv.outputs // scale**2)
    inputs = [x_bhwc, w_ohwi, *([] if bias is None else [bias])]
    kernel = forward_kernel(conv, forward_warp(conv, instruction))
    return out.custom_kernel(*inputs, fxn=kernel, grad_fxn=gradient)[0]


def _gradients(
    x_bhwc: Tensor, y_bhwo: Tensor, w_ohwi: Tensor, conv: Convolution, instruction: Instruction
) -> tuple[Tensor, Tensor]:
    """Return the gradients of images and weights of a convolution."""
    reach = 2 * conv.padding - conv.kernel + 1
    turned = Convolution(  # over the gradient, with zeros between its pixels when strided
        conv.batch,
        conv.rows + reach,
        conv.columns + reach,
        conv.outputs,
        conv.inputs,
        conv.kernel,
        padding=conv.kernel - 1 - conv.padding,
    )
    w_turned = w_ohwi.flip((1, 2)).permute(3, 1, 2, 0)
    kernel = forward_kernel(turned, forward_warp(turned, instruction), spread=conv.stride)
    to_x = _empty(x_bhwc, *x_bhwc.shape).custom_kernel(y_bhwo, w_turned, fxn=kernel)[0]
    return to_x, _weight_gradient(x_bhwc, y_bhwo, conv, instruction)


def _transposed_gradients(
    x_bhwi: Tensor, y_bhwo: Tensor, w_ohwi: Tensor, conv: Convolution, instruction: Instruction
) -> tuple[Tensor, Tensor]:
    """Return both gradients of a transposed convolution: those of a strided one, swapped."""
    scale, outputs = conv.scatter, conv.outputs // conv.scatter**2
    size = (conv.batch, conv.rows * scale, conv.columns * scale)
    strided = Convolution(*size, outputs, conv.inputs, scale, scale)
    w_ihwo = w_ohwi.reshape(scale, scale, outputs, conv.inputs).permute(3, 0, 1, 2)
    kernel = forward_kernel(strided, forward_warp(strided, instruction))
    to_x = _empty(x_bhwi, *x_bhwi.shape).custom_kernel(y_bhwo, w_ihwo, fxn=kernel)[0]
    to_w = _weight_gradient(y_bhwo, x_bhwi, strided, instruction)  # (inputs, sy, sx, outputs)
    return to_x, to_w.permute(1, 2, 3, 0).reshape(w_ohwi.shape)


def _weight_gradient(
    x_bhwc: Tensor, y_bhwo: Tensor, conv: Convolution, instruction: Instruction
) -> Tensor:
    """Return the gradient of weights (o, ky, kx, i) in float32."""
    warp = weight_warp(conv, instruction)
    shape = (warp.parts, conv.kernel**2 * conv.inputs, conv.outputs)
    sums = Tensor.empty(*shape, dtype=dtypes.float, device=x_bhwc.device)
    sums = sums.custom_kernel(x_bhwc, y_bhwo, fxn=weight_kernel(conv, warp))[0]
    total = sums.sum(0).reshape(conv.kernel, conv.kernel, conv.inputs, conv.outputs)
    return total.permute(3, 0, 1, 2)


def _empty(like: Tensor, *shape: int) -> Tensor:
    return Tensor.empty(*shape, dtype=like.dtype, device=like.device)
