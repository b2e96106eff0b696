"""The same mathematics in plain Tensor operations: oracle of the tests and fallback path."""

from collections.abc import Sequence
from typing import NamedTuple

from tinygrad import Tensor

from tinyseg.kernels.memory import wide
from tinyseg.kernels.shapes import AdamSettings

_SMALLEST = 2.0**-126
"""The smallest normal float32."""


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
    """Return the convolution (cross-correlation) of NCHW images, as tinygrad lowers it itself."""
    y_bchw = x_bchw.conv2d(w_oihw, bias, groups, stride, dilation, padding)
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
    x_bchw: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, relu: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalized images, the batch's mean and its biased variance, per channel."""
    mean = x_bchw.mean(axis=(0, 2, 3))
    variance = (x_bchw - mean.reshape(1, -1, 1, 1)).square().mean(axis=(0, 2, 3))
    scale = weight * (variance + eps).rsqrt()
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


def joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of all gradients as one vector."""
    total = Tensor.stack(*(gradient.square().sum() for gradient in gradients)).sum()
    return total.sqrt().contiguous()


def relu(x: Tensor) -> Tensor:
    """Return max(x, 0), NaN passed on: Tensor.relu makes it 0, and a broken input goes unseen."""
    return (wide(x) < _SMALLEST).where(0, x)


_relu = relu  # where an argument has the name


def max_pool(x_bchw: Tensor, kernel: int = 2) -> Tensor:
    """Return the maximum of each square of 2 or 3 pixels a side, at every second pixel."""
    return x_bchw.max_pool2d(kernel, 2, padding=kernel // 2 if kernel == 3 else 0)


def join(left_bchw: Tensor, right_bchw: Tensor) -> Tensor:
    """Return the channels of both images."""
    return left_bchw.cat(right_bchw, dim=1)


def warp(
    image_bchw: Tensor,
    label_bhw: Tensor,
    matrix: Tensor,
    shift: Tensor | None,
    fill: Tensor | None,
    size: tuple[int, int],
    ignore: int,
) -> tuple[Tensor, Tensor]:
    """Return images sampled bilinearly and labels sampled at the nearest pixel."""
    batch, channels, rows, columns = (int(n) for n in image_bchw.shape)
    down = (Tensor.arange(size[0]) - (size[0] - 1) / 2).reshape(1, -1, 1)
    right = (Tensor.arange(size[1]) - (size[1] - 1) / 2).reshape(1, 1, -1)
    if shift is not None:
        down, right = down + shift[:, 0], right + shift[:, 1]
    m = [matrix[:, k].reshape(-1, 1, 1) for k in range(6)]
    # kept in memory: otherwise every channel computes them anew
    y = _axis((m[0] * down + m[1] * right + m[2]).contiguous(), rows, fill is None)
    x = _axis((m[3] * down + m[4] * right + m[5]).contiguous(), columns, fill is None)
    sample = Tensor.arange(batch).reshape(-1, 1, 1)
    label = label_bhw.flatten()[(sample * rows + y.nearest) * columns + x.nearest]
    plane = Tensor.arange(batch * channels).reshape(batch, channels, 1, 1)
    (a, b), (c, d) = (
        [
            image_bchw.flatten()[(plane * rows + i.unsqueeze(1)) * columns + j.unsqueeze(1)]
            for j in x.ends
        ]
        for i in y.ends
    )
    down, right = y.fraction.unsqueeze(1), x.fraction.unsqueeze(1)
    above, below = a + (b - a) * right, c + (d - c) * right
    image = above + (below - above) * down
    if fill is not None:
        outside = y.outside | x.outside
        image = outside.unsqueeze(1).where(fill.reshape(batch, channels, 1, 1), image)
        label = outside.where(ignore, label)
    return image.contiguous(), label.cast(label_bhw.dtype).contiguous()


def smooth(image_bchw: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return images filtered along the rows and then along the columns."""
    taps, (rows, columns) = int(down.shape[1]), image_bchw.shape[2:]
    reach = taps // 2
    padded = image_bchw.pad((0, 0, reach, reach))
    lines = [padded[:, :, k : k + rows] * down[:, k].reshape(-1, 1, rows, 1) for k in range(taps)]
    padded = sum(lines[1:], lines[0]).contiguous().pad((reach, reach, 0, 0))
    parts = [
        padded[:, :, :, k : k + columns] * right[:, k].reshape(-1, 1, 1, columns)
        for k in range(taps)
    ]
    return sum(parts[1:], parts[0]).contiguous()


class _Axis(NamedTuple):
    """Where coordinates fall on one axis of an image: neighbors, how far between, nearest."""

    ends: tuple[Tensor, Tensor]
    fraction: Tensor
    nearest: Tensor
    outside: Tensor


def _axis(place: Tensor, size: int, reflect: bool) -> _Axis:
    if reflect:
        place = (place + 0.5) - ((place + 0.5) / (2 * size)).floor() * (2 * size)
        place = place.minimum(2 * size - place) - 0.5
    outside = (place < -0.5) | (place > size - 0.5)
    place = place.clip(-0.5, size - 0.5)
    before = (place + 1).int() - 1
    nearest = (place + 0.5).int().minimum(size - 1)
    ends = before.maximum(0), (before + 1).minimum(size - 1)
    return _Axis(ends, place - before, nearest, outside)


def adam(
    parameters: Sequence[Tensor],
    means: Sequence[Tensor],
    squares: Sequence[Tensor],
    gradients: Sequence[Tensor],
    numbers: Tensor,
    settings: AdamSettings,
) -> None:
    """Assign (unrealized) one step of Adam (Kingma & Ba 2015), or AdamW by `numbers[2]`."""
    s = settings
    rate, rescale, shrink, accept = (numbers[index : index + 1] for index in range(4))
    for parameter, mean, square, gradient in zip(
        parameters, means, squares, gradients, strict=True
    ):
        pull = gradient + parameter * s.weight_decay if s.weight_decay else gradient
        new_mean = mean * s.beta1 + pull * (1 - s.beta1)
        new_square = square * s.beta2 + pull.square() * (1 - s.beta2)
        change = rate * new_mean / (new_square.sqrt() * rescale + s.eps) + shrink * parameter
        news = (parameter - change, new_mean, new_square)
        for old, new in zip((parameter, mean, square), news, strict=True):
            old.assign((accept > 0.5).where(new, old))
