"""Convolution and transposed convolution with their gradients, logical NCHW over NHWC memory."""

from tinygrad import Tensor

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu import convolution as cpu
from tinyseg.kernels.cpu.packing import Layout
from tinyseg.kernels.gpu import convolution as gpu
from tinyseg.kernels.memory import HALF, nchw, nhwc, rounded, wide
from tinyseg.kernels.plans import (
    Plan,
    count,
    fallback_reason,
    forward_plan,
    forward_warp,
    report,
    tensor_core,
)
from tinyseg.kernels.shapes import Convolution


def conv2d(
    x_bchw: Tensor,
    w_oihw: Tensor,
    bias: Tensor | None,
    stride: int = 1,
    padding: int = 0,
    relu: bool = False,
    groups: int = 1,
    dilation: int = 1,
) -> Tensor:
    """Return the convolution (cross-correlation) of NCHW images with square kernels.

    With `relu` the result is rectified before it is written (for inference: with the
    normalization folded into weights and bias a layer is one kernel).

    The result is a view of NHWC memory; a chain of convolutions with elementwise work between
    never leaves that layout. The result has the images' type: float16 and bfloat16 images meet
    weights that are rounded to it, sums are float32, and the gradients of float32 weights and
    biases are float32. `plan` says which path a shape takes; the plain one is `plain.conv2d`,
    which groups of channels and dilated kernels always take.
    """
    _check(x_bchw, w_oihw, bias, w_oihw.shape[0], w_oihw.shape[1] * groups)
    if groups > 1 or dilation > 1:
        return _grouped(x_bchw, w_oihw, bias, stride, padding, relu, groups, dilation)
    conv = _describe(x_bchw, w_oihw, bias, stride, padding, relu)
    if instruction := tensor_core(conv, x_bchw):
        w_ohwi = w_oihw.cast(x_bchw.dtype).permute(0, 2, 3, 1)
        return nchw(gpu.convolve(nhwc(x_bchw), w_ohwi, bias, conv, instruction))
    if x_bchw.dtype in HALF:
        wider = wide(x_bchw), rounded(w_oihw, x_bchw.dtype), bias
        return conv2d(*wider, stride, padding, relu).cast(x_bchw.dtype)
    if w_oihw.shape[2] == 1 and padding == 0 and stride > 1:
        return conv2d(x_bchw[:, :, ::stride, ::stride], w_oihw, bias, 1, 0, relu)
    chosen = _plan(conv, x_bchw, w_oihw, bias)
    if chosen.tile is None:
        return plain.conv2d(x_bchw, w_oihw, bias, stride, padding, relu)
    taps = conv.kernel**2
    layout = Layout(conv.inputs * taps, taps, conv.kernel, 1)
    return nchw(cpu.convolve(nhwc(x_bchw), w_oihw, layout, bias, conv, chosen))


def _grouped(
    x_bchw: Tensor,
    w_oihw: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    relu: bool,
    groups: int,
    dilation: int,
) -> Tensor:
    x, weight = wide(x_bchw), w_oihw
    if x_bchw.dtype in HALF:
        weight = rounded(w_oihw, x_bchw.dtype)
    y_bchw = plain.conv2d(x, weight, bias, stride, padding, relu, groups, dilation)
    count(2 * int(y_bchw.numel() * weight[0].numel()))
    return y_bchw.cast(x_bchw.dtype)


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
        w_hwoi = w_iohw.cast(x_bchw.dtype).permute(2, 3, 1, 0)
        w_ohwi = w_hwoi.reshape(conv.outputs, 1, 1, conv.inputs)
        return nchw(gpu.convolve(nhwc(x_bchw), w_ohwi, bias, conv, instruction))
    if x_bchw.dtype in HALF:
        wider = wide(x_bchw), rounded(w_iohw, x_bchw.dtype), bias
        return conv_transpose2d(*wider, stride).cast(x_bchw.dtype)
    chosen = _plan(conv, x_bchw, w_iohw, bias)
    if chosen.tile is None or kernel != stride:
        return plain.conv_transpose2d(x_bchw, w_iohw, bias, stride)
    layout = Layout(stride**2, outputs * stride**2, 0, 0, phases=stride**2)
    return nchw(cpu.convolve(nhwc(x_bchw), w_iohw, layout, bias, conv, chosen))


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
    x_bchw: Tensor,
    w_oihw: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    relu: bool = False,
) -> Convolution:
    batch, inputs, rows, columns = _sizes(x_bchw)
    outputs, kernel = int(w_oihw.shape[0]), int(w_oihw.shape[2])
    size = (batch, rows, columns, inputs, outputs, kernel, stride, padding)
    return Convolution(*size, bias=bias is not None, relu=relu)


def _plan(conv: Convolution, *tensors: Tensor | None) -> Plan:
    count(conv.operations)
    if reason := fallback_reason(*tensors):
        return report(conv, Plan(None, reason))
    if conv.out_rows < 1 or conv.out_columns < 1 or conv.padding >= conv.kernel:
        reason = "the kernel does not fit the image or the padding exceeds it"
        return report(conv, Plan(None, reason))
    return report(conv, forward_plan(conv))
