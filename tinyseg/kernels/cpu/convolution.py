"""The CPU's path: convolutions and their gradients by kernels over NHWC memory."""

from collections.abc import Callable, Sequence

from tinygrad import Tensor
from tinygrad.uop.ops import UOp

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.channels import totals_kernel
from tinyseg.kernels.cpu.forward import forward_kernel
from tinyseg.kernels.cpu.packing import Layout, pack_kernel, unpack_kernel
from tinyseg.kernels.cpu.weight import weight_kernel
from tinyseg.kernels.memory import empty, in_memory
from tinyseg.kernels.plans import Plan, channel_plan, forward_plan, weight_plan
from tinyseg.kernels.shapes import Convolution, Tile

Gradient = tuple[UOp | None, ...]


def convolve(
    x_bhwc: Tensor,
    weights: Tensor,
    layout: Layout,
    bias: Tensor | None,
    conv: Convolution,
    chosen: Plan,
) -> Tensor:
    """Return the convolution of images, with its gradients attached.

    The weights themselves are an argument that the kernel does not read: their gradient arrives
    there without a detour through the packed order.
    """
    assert chosen.tile is not None

    def gradient(upstream: UOp, call: UOp) -> Gradient:
        y_bhwo, x, w = in_memory(upstream), Tensor(call.src[2]), Tensor(call.src[4])
        if conv.relu:
            y_bhwo = (Tensor(call.src[1].after(call)) > 0).where(y_bhwo, 0).contiguous()
        backward = _transposed_gradients if conv.scatter > 1 else _gradients
        to_x, to_w = backward(x, y_bhwo, w, layout, conv)
        grads = [None, to_x.uop, None, to_w.uop]
        return (*grads, _bias_gradient(y_bhwo).uop) if bias is not None else tuple(grads)

    packed = pack(weights, conv, chosen.tile, layout)
    return run_forward(x_bhwc, packed, [weights, bias], conv, chosen, gradient)


def pack(weights: Tensor, conv: Convolution, tile: Tile, layout: Layout) -> Tensor:
    """Return weights in the order the kernel reads them: (tile, block, ky, in, kx, out)."""
    tiles, blocks = conv.outputs // tile.width, conv.inputs // tile.block
    out = empty(tiles, blocks, conv.kernel, tile.block, conv.kernel, tile.width)
    return out.custom_kernel(weights, fxn=pack_kernel(conv, tile, layout))[0]


def run_forward(
    x_bhwc: Tensor,
    packed: Tensor,
    extra: Sequence[Tensor | None],
    conv: Convolution,
    chosen: Plan,
    gradient: Callable[[UOp, UOp], Gradient] | None = None,
) -> Tensor:
    """Run the forward kernel over NHWC tensors; `extra` are the weights themselves and the bias."""
    assert chosen.tile is not None
    scale = conv.scatter
    shape = (conv.batch, conv.out_rows * scale, conv.out_columns * scale)
    out = empty(*shape, conv.outputs // scale**2)
    inputs = [x_bhwc, packed, *(tensor for tensor in extra if tensor is not None)]
    kernel = forward_kernel(conv, chosen.tile, chosen.own_tiles)
    return out.custom_kernel(*inputs, fxn=kernel, grad_fxn=gradient)[0]


def run_weight(
    x_bhwc: Tensor, y_bhwo: Tensor, conv: Convolution, chosen: Plan, like: Tensor, layout: Layout
) -> Tensor:
    """Run the weight-gradient kernel; returns a gradient for weights like `like`."""
    assert chosen.tile is not None
    tile = chosen.tile
    parts = 1 if chosen.own_tiles else tile.threads
    sums = empty(parts, conv.kernel**2, conv.inputs, conv.outputs)
    kernel = weight_kernel(conv, tile, chosen.own_tiles)
    sums = sums.custom_kernel(x_bhwc, y_bhwo, fxn=kernel)[0]
    unpack = unpack_kernel(conv, parts, tile.lanes, tile.threads, layout)
    return empty(*like.shape).custom_kernel(sums, fxn=unpack)[0]


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
    size = (conv.batch, rows, columns, conv.outputs, conv.inputs, conv.kernel)
    turned = Convolution(*size, padding=conv.kernel - 1 - conv.padding)
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
    parts = empty(size.threads, channels)
    return parts.custom_kernel(y_bhwo, fxn=totals_kernel(size))[0].sum(0)


def _dilate(y_bhwo: Tensor, conv: Convolution) -> Tensor:
    """Put stride - 1 zeros between the pixels, and as many behind as the image needs."""
    batch, rows, columns, outputs = (int(size) for size in y_bhwo.shape)
    gap, reach = conv.stride - 1, 2 * conv.padding - conv.kernel + 1
    spread = y_bhwo.reshape(batch, rows, 1, columns, 1, outputs)
    spread = spread.pad((None, None, (0, gap), None, (0, gap), None))
    spread = spread.reshape(batch, rows * conv.stride, columns * conv.stride, outputs)
    tall, wide = conv.rows + reach, conv.columns + reach
    below, right = max(0, tall - rows * conv.stride), max(0, wide - columns * conv.stride)
    return spread.pad((None, (0, below), (0, right), None))[:, :tall, :wide].contiguous()
