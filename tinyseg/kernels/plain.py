"""The same mathematics in plain Tensor operations: oracle of the tests and fallback path."""

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


def weight_gradient(
    x_bhwc: Tensor, y_bhwo: Tensor, kernel: int, stride: int, padding: int
) -> Tensor:
    """Return dW (ky, kx, in, out): the convolution of the images with the output gradient."""
    images, gradient = x_bhwc.permute(3, 0, 1, 2), y_bhwo.permute(3, 0, 1, 2)
    sums = images.conv2d(gradient, None, dilation=stride, padding=padding)
    return sums[:, :, :kernel, :kernel].permute(2, 3, 0, 1)
