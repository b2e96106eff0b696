"""The same mathematics in plain Tensor operations: oracle of the tests and fallback path."""

from collections.abc import Sequence

from tinygrad import Tensor

_SMALLEST = 2.0**-126
"""The smallest normal float32."""


def conv2d(
    x_bchw: Tensor,
    w_oihw: Tensor,
    bias: Tensor | None,
    stride: int = 1,
    padding: int = 0,
    relu: bool = False,
) -> Tensor:
    """Return the convolution (cross-correlation) of NCHW images, as tinygrad lowers it itself."""
    y_bchw = x_bchw.conv2d(w_oihw, bias, stride=stride, padding=padding)
    return _relu(y_bchw) if relu else y_bchw


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


def batch_norm(
    x_bchw: Tensor, weight: Tensor, bias: Tensor, epsilon: float = 1e-5, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised images, the batch's mean and its biased variance, per channel."""
    mean = x_bchw.mean(axis=(0, 2, 3))
    variance = (x_bchw - mean.reshape(1, -1, 1, 1)).square().mean(axis=(0, 2, 3))
    scale = weight * (variance + epsilon).rsqrt()
    shift = bias - mean * scale
    y_bchw = x_bchw * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)
    return (_relu(y_bchw) if relu else y_bchw), mean.detach(), variance.detach()


def moving_averages(
    running: Sequence[Tensor],
    news: Sequence[Tensor],
    momenta: Sequence[float],
    factors: Sequence[float],
) -> None:
    """Assign (unrealized) running vectors moved by their momentum towards new x factor."""
    for old, new, momentum, factor in zip(running, news, momenta, factors, strict=True):
        moved = old * (1 - momentum) + new * (momentum * factor)
        old.assign(new.isfinite().where(moved, old))


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), NaN passed on: Tensor.relu makes it 0, and a broken input goes unseen."""
    return (x < _SMALLEST).where(0, x)


_relu = relu  # where an argument has the name


def max_pool(x_bchw: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 square."""
    return x_bchw.max_pool2d()


def join(left_bchw: Tensor, right_bchw: Tensor) -> Tensor:
    """Return the channels of both images."""
    return left_bchw.cat(right_bchw, dim=1)


def adam(
    parameters: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    gradients: Sequence[Tensor],
    numbers: Tensor,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    decay: float = 0.0,
) -> None:
    """Assign (unrealized) one step of Adam (Kingma & Ba 2015), or AdamW by `numbers[2]`."""
    rate, rescale, shrink, accept = (numbers[index : index + 1] for index in range(4))
    for parameter, mean, square, gradient in zip(
        parameters, means, squares, gradients, strict=True
    ):
        pull = gradient + parameter * decay if decay else gradient
        new_mean = mean * beta1 + pull * (1 - beta1)
        new_square = square * beta2 + pull.square() * (1 - beta2)
        change = rate * new_mean / (new_square.sqrt() * rescale + epsilon) + shrink * parameter
        news = (parameter - change, new_mean, new_square)
        for old, new in zip((parameter, mean, square), news, strict=True):
            old.assign((accept > 0.5).where(new, old))
