"""The same mathematics in plain Tensor operations: the oracle of the tests and the fallback path."""

from tinygrad import Tensor


def conv2d(
    x_bchw: Tensor, w_oihw: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0
) -> Tensor:
    """Return the convolution (cross-correlation) of NCHW images, as tinygrad lowers it itself."""
    return x_bchw.conv2d(w_oihw, bias, stride=stride, padding=padding)


def conv_transpose2d(
    x_bchw: Tensor, w_iohw: Tensor, bias: Tensor | None, stride: int = 2
) -> Tensor:
    """Return the transposed convolution; `w_iohw` is laid out (in, out, rows, columns)."""
    return x_bchw.conv_transpose2d(w_iohw, bias, stride=stride)
