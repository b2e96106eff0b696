"""Convolution and transposed convolution with their gradients, logical NCHW over NHWC memory."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.channels import totals_kernel
from tinyseg.kernels.cpu.forward import forward_kernel
from tinyseg.kernels.cpu.packing import Layout, pack_kernel, unpack_kernel
from tinyseg.kernels.cpu.weight import weight_kernel
from tinyseg.kernels.gpu import matrix
from tinyseg.kernels.half import HALF, rounded, wide
from tinyseg.kernels.memory import nchw, nhwc, settled
from tinyseg.kernels.plans import (
    Plan,
    channel_plan,
    forward_plan,
    forward_warp,
    refusal,
    tensor_core,
    told,
    weight_plan,
)
from tinyseg.kernels.shapes import Convolution, Tile

Gradient = tuple[UOp | None, ...]


def conv2d(
    x_bchw: Tensor,
    w_oihw: Tensor,
    bias: Tensor | None,
    stride: int = 1,
    padding: int = 0,
    relu: bool = False,
) -> Tensor:
    """Return the convolution (cross-correlation) of NCHW images with square kernels.

    With `relu` the result is rectified before it is written (for inference: fold the
    normalisation into weights and bias, and a layer is one kernel).

    The result is a view of NHWC memory; a chain of convolutions with elementwise work between
    never leaves that layout. The result has the images' type: float16 and bfloat16 images meet
    weights that are rounded to it, sums are float32, and the gradients of float32 weights and
    biases are float32. `plan` tells which path a shape takes; the plain path is
    `plain.conv2d`, the same function of the same arguments.
    """
    _check(x_bchw, w_oihw, bias, w_oihw.shape[0], w_oihw.shape[1])
    conv = replace(_describe(x_bchw, w_oihw, bias, stride, padding), relu=relu)
    if instruction := tensor_core(conv, x_bchw):
        return matrix.conv2d(x_bchw, w_oihw, bias, conv, instruction)
    if x_bchw.dtype in HALF:
        wider = wide(x_bchw), rounded(w_oihw, x_bchw.dtype), bias
        return conv2d(*wider, stride, padding, relu).cast(x_bchw.dtype)
    if w_oihw.shape[2] == 1 and padding == 0 and stride > 1:
        return conv2d(x_bchw[:, :, ::stride, ::stride], w_oihw, bias, 1, 0, relu)
    chosen = _plan(conv, x_bchw, w_oihw, bias)
    if chosen.tile is None:
        return plain.conv2d(x_bchw, w_oihw, bias, stride, padding, relu)
    _, inputs, kernel, _ = _sizes(w_oihw)
    layout = Layout(inputs * kernel**2, kernel**2, kernel, 1)
    return nchw(_convolve(nhwc(x_bchw), w_oihw, layout, bias, conv, chosen))


def conv_transpose2d(
    x_bchw: Tensor, w_iohw: Tensor, bias: Tensor | None, stride: int = 2
) -> Tensor:
    """Return the transposed convolution with kernel size = stride; weights (in, out, k, k).

    Types are as in `conv2d`.
    """
    _check(x_bchw, w_iohw, bias, w_iohw.shape[1], w_iohw.shape[0])
    batch, inputs, rows, columns = _sizes(x_bchw)
    kernel, outputs = int(w_iohw.shape[2]), int(w_iohw.shape[1])
    size = (batch, rows, columns, inputs, outputs * stride**2, 1)
    conv = Convolution(*size, bias=bias is not None, scatter=stride)
    if kernel == stride and (instruction := tensor_core(conv, x_bchw)):
        return matrix.conv_transpose2d(x_bchw, w_iohw, bias, conv, instruction)
    if x_bchw.dtype in HALF:
        wider = wide(x_bchw), rounded(w_iohw, x_bchw.dtype), bias
        return conv_transpose2d(*wider, stride).cast(x_bchw.dtype)
    chosen = _plan(conv, x_bchw, w_iohw, bias)
    if chosen.tile is None or kernel != stride:
        return plain.conv_transpose2d(x_bchw, w_iohw, bias, stride)
    layout = Layout(stride**2, outputs * stride**2, 0, 0, phases=stride**2)
    return nchw(_convolve(nhwc(x_bchw), w_iohw, layout, bias, conv, chosen))


def plan(x_bchw: Tensor, w_oihw: Tensor, stride: int = 1, padding: int = 0) -> str:
    """Return in words which path `conv2d` takes for these arguments, and why."""
    conv = _describe(x_bchw, w_oihw, None, stride, padding)
    if instruction := tensor_core(conv, x_bchw):
        return f"tensor cores: {forward_warp(conv, instruction)}"
    if x_bchw.dtype in HALF:
        return f"in float32, {plan(wide(x_bchw), wide(w_oihw), stride, padding)}"
    return str(_plan(conv, x_bchw, w_oihw, None))


def _check(
    x_bchw: Tensor, weight: Tensor, bias: Tensor | None, outputs: object, inputs: object
) -> None:
    if x_bchw.ndim != 4 or weight.ndim != 4 or weight.shape[2] != weight.shape[3]:
        raise ValueError(
            f"a convolution takes NCHW images and square kernels, got {x_bchw.shape} and "
            f"{weight.shape}"
        )
    if x_bchw.shape[1] != inputs:
        raise ValueError(f"images have {x_bchw.shape[1]} channels, the weights expect {inputs}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"the bias has shape {bias.shape}, expected ({outputs},)")


def _sizes(x_bchw: Tensor) -> tuple[int, int, int, int]:
    batch, channels, rows, columns = (int(size) for size in x_bchw.shape)
    return batch, channels, rows, columns


def _describe(
    x_bchw: Tensor, w_oihw: Tensor, bias: Tensor | None, stride: int, padding: int
) -> Convolution:
    batch, inputs, rows, columns = _sizes(x_bchw)
    outputs, kernel = int(w_oihw.shape[0]), int(w_oihw.shape[2])
    return Convolution(
        batch, rows, columns, inputs, outputs, kernel, stride, padding, bias is not None
    )


def _plan(conv: Convolution, *tensors: Tensor | None) -> Plan:
    if reason := refusal(*tensors):
        return told(conv, Plan(None, reason))
    if conv.out_rows < 1 or conv.out_columns < 1 or conv.padding >= conv.kernel:
        return told(conv, Plan(None, "the kernel does not fit the image or the padding exceeds it"))
    return told(conv, forward_plan(conv))


def pack(weights: Tensor, conv: Convolution, tile: Tile, layout: Layout) -> Tensor:
    """Return weights in the order the kernel reads them: (tile, block, ky, in, kx, out)."""
    device = str(weights.device)
    tiles, blocks = conv.outputs // tile.width, conv.inputs // tile.block
    out = Tensor.empty(
        tiles, blocks, conv.kernel, tile.block, conv.kernel, tile.width, device=device
    )
    return out.custom_kernel(weights, fxn=pack_kernel(conv, tile, layout, device))[0]


def run_forward(
    x_bhwc: Tensor,
    packed: Tensor,
    extra: Sequence[Tensor | None],
    conv: Convolution,
    chosen: Plan,
    gradient: Callable[[UOp, UOp], Gradient] | None = None,
) -> Tensor:
    """Run the forward kernel over NHWC tensors; `extra` are the weights as given, the bias."""
    assert chosen.tile is not None
    device = str(x_bhwc.device)
    scale = conv.scatter
    shape = (conv.batch, conv.out_rows * scale, conv.out_columns * scale)
    out = Tensor.empty(*shape, conv.outputs // scale**2, device=device)
    given = [x_bhwc, packed, *(tensor for tensor in extra if tensor is not None)]
    kernel = forward_kernel(conv, chosen.tile, device, chosen.own_tiles)
    return out.custom_kernel(*given, fxn=kernel, grad_fxn=gradient)[0]


def run_weight(
    x_bhwc: Tensor, y_bhwo: Tensor, conv: Convolution, chosen: Plan, like: Tensor, layout: Layout
) -> Tensor:
    """Run the weight-gradient kernel; returns a gradient for weights like `like`."""
    assert chosen.tile is not None
    device, tile = str(x_bhwc.device), chosen.tile
    parts = 1 if chosen.own_tiles else tile.threads
    sums = Tensor.empty(parts, conv.kernel**2, conv.inputs, conv.outputs, device=device)
    kernel = weight_kernel(conv, tile, device, chosen.own_tiles)
    sums = sums.custom_kernel(x_bhwc, y_bhwo, fxn=kernel)[0]
    unpack = unpack_kernel(conv, parts, tile.lanes, tile.threads, layout, device)
    return Tensor.empty(*like.shape, device=device).custom_kernel(sums, fxn=unpack)[0]


def _convolve(
    x_bhwc: Tensor,
    weights: Tensor,
    layout: Layout,
    bias: Tensor | None,
    conv: Convolution,
    chosen: Plan,
) -> Tensor:
    """Pack, run, and attach the gradients.

    The weights themselves are an argument that the kernel does not read: their gradient arrives
    there without a detour through the packed order.
    """
    assert chosen.tile is not None

    def gradient(upstream: UOp, call: UOp) -> Gradient:
        y_bhwo, x, w = settled(upstream), Tensor(call.src[2]), Tensor(call.src[4])
        if conv.relu:
            y_bhwo = (Tensor(call.src[1].after(call)) > 0).where(y_bhwo, 0).contiguous()
        backward = _transposed_gradients if conv.scatter > 1 else _gradients
        to_x, to_w = backward(x, y_bhwo, w, layout, conv)
        grads = [None, to_x.uop, None, to_w.uop]
        return (*grads, _bias_gradient(y_bhwo).uop) if bias is not None else tuple(grads)

    packed = pack(weights, conv, chosen.tile, layout)
    return run_forward(x_bhwc, packed, [weights, bias], conv, chosen, gradient)


def _gradients(
    x_bhwc: Tensor, y_bhwo: Tensor, w_oihw: Tensor, layout: Layout, conv: Convolution
) -> tuple[Tensor, Tensor]:
    """Return the gradients of images and weights of a convolution."""
    to_x = input_gradient(y_bhwo, w_oihw, layout, conv)
    return to_x, weight_gradient(x_bhwc, y_bhwo, w_oihw, layout, conv)


def input_gradient(y_bhwo: Tensor, w_oihw: Tensor, layout: Layout, conv: Convolution) -> Tensor:
    """Return the gradient of a convolution's images: a convolution with turned weights."""
    spread = _dilate(y_bhwo, conv) if conv.stride > 1 else y_bhwo
    _, rows, columns, _ = (int(size) for size in spread.shape)
    turned = Convolution(
        conv.batch,
        rows,
        columns,
        conv.outputs,
        conv.inputs,
        conv.kernel,
        1,
        conv.kernel - 1 - conv.padding,
    )
    chosen = forward_plan(turned)
    if chosen.tile is not None:
        packed = pack(w_oihw, turned, chosen.tile, layout.turned(conv.kernel))
        return run_forward(spread, packed, [w_oihw], turned, chosen)
    w_turned = w_oihw.flip((2, 3)).permute(1, 0, 2, 3)
    x_bchw = plain.conv2d(spread.permute(0, 3, 1, 2), w_turned, None, 1, turned.padding)
    return x_bchw.permute(0, 2, 3, 1)


def weight_gradient(
    x_bhwc: Tensor, y_bhwo: Tensor, like: Tensor, layout: Layout, conv: Convolution
) -> Tensor:
    """Return the gradient of a convolution's weights, for weights like `like` in `layout`."""
    chosen = weight_plan(conv)
    if chosen.tile is not None:
        return run_weight(x_bhwc, y_bhwo, conv, chosen, like, layout)
    if conv.kernel == 1 and conv.stride == 1:  # a 1x1 kernel lets image and gradient swap
        size = (conv.batch, conv.rows, conv.columns)
        swapped = Convolution(*size, conv.outputs, conv.inputs, 1)
        chosen = weight_plan(swapped)
        if chosen.tile is not None:
            return run_weight(y_bhwo, x_bhwc, swapped, chosen, like, layout.turned(1))
    to_hwio = plain.weight_gradient(x_bhwc, y_bhwo, conv.kernel, conv.stride, conv.padding)
    return to_hwio.permute(3, 2, 0, 1)


def _transposed_gradients(
    x_bhwi: Tensor, y_bhwo: Tensor, w_iohw: Tensor, layout: Layout, conv: Convolution
) -> tuple[Tensor, Tensor]:
    """Return both gradients of a transposed convolution: those of a strided one, swapped."""
    scale, outputs = conv.scatter, conv.outputs // conv.scatter**2
    size = (conv.batch, conv.rows * scale, conv.columns * scale)
    strided = Convolution(*size, outputs, conv.inputs, scale, scale)
    strided_layout = Layout(layout.inputs, layout.outputs, scale, 1)
    chosen = forward_plan(strided)
    if chosen.tile is not None:
        packed = pack(w_iohw, strided, chosen.tile, strided_layout)
        to_x = run_forward(y_bhwo, packed, [w_iohw], strided, chosen)
    else:
        plain_x = plain.conv2d(y_bhwo.permute(0, 3, 1, 2), w_iohw, None, scale)
        to_x = plain_x.permute(0, 2, 3, 1)
    return to_x, weight_gradient(y_bhwo, x_bhwi, w_iohw, strided_layout, strided)


def _bias_gradient(y_bhwo: Tensor) -> Tensor:
    """Return the sum of each channel."""
    channels = int(y_bhwo.shape[3])
    size = channel_plan(y_bhwo.numel() // channels, channels)
    if size is None:
        return y_bhwo.sum((0, 1, 2))
    parts = Tensor.empty(size.threads, channels, device=y_bhwo.device)
    return parts.custom_kernel(y_bhwo, fxn=totals_kernel(size, str(y_bhwo.device)))[0].sum(0)


def _dilate(y_bhwo: Tensor, conv: Convolution) -> Tensor:
    """Put stride - 1 zeros between the pixels, and as many behind as the image needs."""
    batch, rows, columns, outputs = (int(size) for size in y_bhwo.shape)
    gap, reach = conv.stride - 1, 2 * conv.padding - conv.kernel + 1
    spread = y_bhwo.reshape(batch, rows, 1, columns, 1, outputs)
    spread = spread.pad((None, None, (0, gap), None, (0, gap), None))
    spread = spread.reshape(batch, rows * conv.stride, columns * conv.stride, outputs)
    tall, wide = conv.rows + reach, conv.columns + reach
    spread = spread.pad(
        (
            None,
            (0, max(0, tall - rows * conv.stride)),
            (0, max(0, wide - columns * conv.stride)),
            None,
        )
    )
    return spread[:, :tall, :wide].contiguous()
