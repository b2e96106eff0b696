"""Convolution and transposed convolution with their gradients, logical NCHW over NHWC memory."""

from collections.abc import Callable

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import plain
from tinyseg.kernels.forward import forward_kernel
from tinyseg.kernels.plans import Plan, forward_plan, refusal, weight_plan
from tinyseg.kernels.shapes import Convolution, Tile
from tinyseg.kernels.weight import weight_kernel

Gradient = tuple[UOp | None, ...]


def conv2d(
    x_bchw: Tensor, w_oihw: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0
) -> Tensor:
    """Return the convolution (cross-correlation) of NCHW images with square kernels.

    The result is a view of NHWC memory; a chain of convolutions with elementwise work between
    never leaves that layout. `plan` tells which path a shape takes; the plain path is
    `plain.conv2d`, the same function of the same arguments.
    """
    _check(x_bchw, w_oihw, bias, w_oihw.shape[0], w_oihw.shape[1])
    if w_oihw.shape[2] == 1 and padding == 0 and stride > 1:
        x_bchw, stride = x_bchw[:, :, ::stride, ::stride], 1
    conv = _describe(x_bchw, w_oihw, bias, stride, padding)
    chosen = _plan(conv, x_bchw, w_oihw, bias)
    if chosen.tile is None:
        return plain.conv2d(x_bchw, w_oihw, bias, stride, padding)
    x_bhwc, w_hwio = x_bchw.permute(0, 2, 3, 1), w_oihw.permute(2, 3, 1, 0)
    return _convolve(x_bhwc, w_hwio, bias, conv, chosen).permute(0, 3, 1, 2)


def conv_transpose2d(
    x_bchw: Tensor, w_iohw: Tensor, bias: Tensor | None, stride: int = 2
) -> Tensor:
    """Return the transposed convolution with kernel size = stride; weights (in, out, k, k)."""
    _check(x_bchw, w_iohw, bias, w_iohw.shape[1], w_iohw.shape[0])
    batch, inputs, rows, columns = _sizes(x_bchw)
    kernel, outputs = int(w_iohw.shape[2]), int(w_iohw.shape[1])
    conv = Convolution(
        batch, rows, columns, inputs, outputs * stride**2, 1, 1, 0, bias is not None, stride
    )
    chosen = _plan(conv, x_bchw, w_iohw, bias)
    if chosen.tile is None or kernel != stride:
        return plain.conv_transpose2d(x_bchw, w_iohw, bias, stride)
    w_hwio = w_iohw.permute(0, 2, 3, 1).reshape(1, 1, inputs, outputs * stride**2)
    phases = None if bias is None else bias.repeat(stride**2)
    y_bhwc = _convolve(x_bchw.permute(0, 2, 3, 1), w_hwio, phases, conv, chosen)
    return y_bhwc.permute(0, 3, 1, 2)


def plan(x_bchw: Tensor, w_oihw: Tensor, stride: int = 1, padding: int = 0) -> str:
    """Return in words which path `conv2d` takes for these arguments, and why."""
    return str(_plan(_describe(x_bchw, w_oihw, None, stride, padding), x_bchw, w_oihw, None))


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
        return Plan(None, reason)
    if conv.out_rows < 1 or conv.out_columns < 1 or conv.padding >= conv.kernel:
        return Plan(None, "the kernel does not fit the image or the padding exceeds it")
    return forward_plan(conv)


def pack(w_hwio: Tensor, tile: Tile) -> Tensor:
    """Return weights in the order the kernel reads them: (tile, block, ky, in, kx, out)."""
    kernel, _, inputs, outputs = (int(size) for size in w_hwio.shape)
    tiles, blocks = outputs // tile.width, inputs // tile.block
    split = w_hwio.reshape(kernel, kernel, blocks, tile.block, tiles, tile.width)
    return split.permute(4, 2, 0, 3, 1, 5).contiguous()


def _unpack(packed: Tensor, conv: Convolution) -> Tensor:
    """Return packed weights as a (ky, kx, in, out) view."""
    shape = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
    return packed.permute(2, 4, 1, 3, 0, 5).reshape(shape)


def run_forward(
    x_bhwc: Tensor,
    packed: Tensor,
    bias: Tensor | None,
    conv: Convolution,
    chosen: Plan,
    gradient: Callable[[UOp, UOp], Gradient] | None = None,
) -> Tensor:
    """Run the forward kernel over NHWC tensors."""
    assert chosen.tile is not None
    device = str(x_bhwc.device)
    scale = conv.scatter
    shape = (conv.batch, conv.out_rows * scale, conv.out_columns * scale)
    out = Tensor.empty(*shape, conv.outputs // scale**2, device=device)
    given = [x_bhwc, packed] + ([bias] if bias is not None else [])
    kernel = forward_kernel(conv, chosen.tile, device, chosen.own_tiles)
    return out.custom_kernel(*given, fxn=kernel, grad_fxn=gradient)[0]


def run_weight(x_bhwc: Tensor, gradient_bhwo: Tensor, conv: Convolution, chosen: Plan) -> Tensor:
    """Run the weight-gradient kernel; returns (ky, kx, in, out)."""
    assert chosen.tile is not None
    device = str(x_bhwc.device)
    parts = 1 if chosen.own_tiles else chosen.tile.threads
    shape = (parts, conv.kernel, conv.kernel, conv.inputs, conv.outputs)
    kernel = weight_kernel(conv, chosen.tile, device, chosen.own_tiles)
    out = Tensor.empty(*shape, device=device)
    sums = out.custom_kernel(x_bhwc, gradient_bhwo, fxn=kernel)[0]
    return sums.sum(0) if parts > 1 else sums.reshape(shape[1:])


def _convolve(
    x_bhwc: Tensor, w_hwio: Tensor, bias: Tensor | None, conv: Convolution, chosen: Plan
) -> Tensor:
    """Pack, run, and attach the gradients."""
    assert chosen.tile is not None
    tile = chosen.tile

    def gradient(upstream: UOp, call: UOp) -> Gradient:
        y_bhwo, x, packed = Tensor(upstream), Tensor(call.src[2]), Tensor(call.src[3])
        w = _unpack(packed, conv)
        if conv.scatter > 1:
            to_x, to_w = _transposed_gradients(x, y_bhwo, w, conv)
        else:
            to_x = input_gradient(y_bhwo, w, conv)
            to_w = weight_gradient(x, y_bhwo, conv)
        grads: list[UOp | None] = [None, to_x.uop, pack(to_w, tile).uop]
        if bias is not None:
            grads.append(_bias_gradient(y_bhwo, conv).uop)
        return tuple(grads)

    return run_forward(x_bhwc, pack(w_hwio, tile), bias, conv, chosen, gradient)


def input_gradient(y_bhwo: Tensor, w_hwio: Tensor, conv: Convolution) -> Tensor:
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
    w_turned = w_hwio.flip((0, 1)).permute(0, 1, 3, 2)
    chosen = forward_plan(turned)
    if chosen.tile is not None:
        return run_forward(spread, pack(w_turned, chosen.tile), None, turned, chosen)
    w_oihw = w_turned.permute(3, 2, 0, 1)
    padding = turned.padding
    x = plain.conv2d(spread.permute(0, 3, 1, 2), w_oihw, None, 1, padding)
    return x.permute(0, 2, 3, 1)


def weight_gradient(x_bhwc: Tensor, y_bhwo: Tensor, conv: Convolution) -> Tensor:
    """Return the gradient of a convolution's weights as (ky, kx, in, out)."""
    chosen = weight_plan(conv)
    if chosen.tile is not None:
        return run_weight(x_bhwc, y_bhwo, conv, chosen)
    if conv.kernel == 1 and conv.stride == 1:  # a 1x1 kernel lets image and gradient swap
        swapped = Convolution(
            conv.batch, conv.rows, conv.columns, conv.outputs, conv.inputs, 1, 1, 0
        )
        chosen = weight_plan(swapped)
        if chosen.tile is not None:
            return run_weight(y_bhwo, x_bhwc, swapped, chosen).permute(0, 1, 3, 2)
    return plain.weight_gradient(x_bhwc, y_bhwo, conv.kernel, conv.stride, conv.padding)


def _transposed_gradients(
    x_bhwi: Tensor, y_bhwo: Tensor, w_hwio: Tensor, conv: Convolution
) -> tuple[Tensor, Tensor]:
    """Return both gradients of a transposed convolution: those of a strided one, swapped."""
    scale, outputs = conv.scatter, conv.outputs // conv.scatter**2
    strided = Convolution(
        conv.batch,
        conv.rows * scale,
        conv.columns * scale,
        outputs,
        conv.inputs,
        scale,
        scale,
        0,
    )
    w_strided = w_hwio.reshape(conv.inputs, scale, scale, outputs).permute(1, 2, 3, 0)
    chosen = forward_plan(strided)
    if chosen.tile is not None:
        to_x = run_forward(y_bhwo, pack(w_strided, chosen.tile), None, strided, chosen)
    else:
        w_oihw = w_strided.permute(3, 2, 0, 1)
        plain_x = plain.conv2d(y_bhwo.permute(0, 3, 1, 2), w_oihw, None, scale)
        to_x = plain_x.permute(0, 2, 3, 1)
    to_strided = weight_gradient(y_bhwo, x_bhwi, strided)
    to_w = to_strided.permute(3, 0, 1, 2).reshape(1, 1, conv.inputs, conv.outputs)
    return to_x, to_w


def _bias_gradient(y_bhwo: Tensor, conv: Convolution) -> Tensor:
    """Return the gradient per channel and, for a transposed convolution, per phase."""
    batch, rows, columns, outputs = (int(size) for size in y_bhwo.shape)
    scale = conv.scatter
    split = y_bhwo.reshape(batch * rows // scale, scale, columns // scale, scale, outputs)
    return split.sum((0, 2)).flatten()


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
