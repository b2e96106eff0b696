"""Images and labels sampled at other places: one geometry for both."""

from tinygrad import Tensor

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.smooth import Smooth, smooth_kernel
from tinyseg.kernels.cpu.warp import Warp, warp_kernel
from tinyseg.kernels.memory import empty, in_memory
from tinyseg.kernels.plans import fallback_reason, machine, shared_threads


def warp(
    image_bchw: Tensor,
    label_bhw: Tensor,
    matrix: Tensor,
    shift: Tensor | None = None,
    fill: Tensor | None = None,
    size: tuple[int, int] | None = None,
    ignore: int = 255,
) -> tuple[Tensor, Tensor]:
    """Return images sampled bilinearly and labels sampled at the nearest pixel, of `size`.

    `matrix` (B, 6) takes output pixels to input pixels: with p = (row, column) from the center of
    the output, plus `shift` (B, 2, rows, columns) if there is one, row = m0 p0 + m1 p1 + m2 and
    column = m3 p0 + m4 p1 + m5. What is over half a pixel outside is filled with `fill` (B, C),
    the label with `ignore`; without `fill` both are reflected at the edges of the outer pixels.
    There is no gradient.
    """
    batch, channels, rows, columns = (int(n) for n in image_bchw.shape)
    out_rows, out_columns = size or (rows, columns)
    _check(image_bchw, label_bhw, matrix, shift, fill, (out_rows, out_columns))
    inputs = (image_bchw, label_bhw, matrix, shift, fill)
    if fallback_reason(image_bchw, matrix, shift, fill):
        return plain.warp(*inputs, (out_rows, out_columns), ignore)
    threads = shared_threads(batch * out_rows, out_columns)
    sizes = (batch, channels, rows, columns, out_rows, out_columns)
    plan = Warp(*sizes, shift is not None, fill is not None, ignore, threads)
    image = empty(batch, channels, out_rows, out_columns)
    label = empty(batch, out_rows, out_columns, dtype=label_bhw.dtype)
    read = [in_memory(tensor.uop) for tensor in inputs if tensor is not None]
    image, label, *_ = image.custom_kernel(label, *read, fxn=warp_kernel(plan))
    return image, label


def smooth(image_bchw: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return images filtered along the rows and then along the columns.

    `down` (B, taps, H) and `right` (B, taps, W), taps odd, hold the weights of the neighbors of
    each place, the middle one its own; those of neighbors outside must be 0. There is no gradient.
    """
    batch, channels, rows, columns = (int(n) for n in image_bchw.shape)
    taps = int(down.shape[1])
    if taps % 2 == 0 or down.shape != (batch, taps, rows) or right.shape != (batch, taps, columns):
        raise ValueError(f"weights {down.shape}, {right.shape} do not fit {image_bchw.shape}")
    if fallback_reason(image_bchw, down, right):
        return plain.smooth(image_bchw, down, right)
    threads = shared_threads(batch * channels * rows, columns)
    size = Smooth(batch, channels, rows, columns, taps, machine().lanes, threads)
    read = [in_memory(tensor.uop) for tensor in (image_bchw, down, right)]
    out, scratch = empty(batch, channels, rows, columns), empty(threads, size.line)
    return out.custom_kernel(scratch, *read, fxn=smooth_kernel(size))[0]


def _check(
    image: Tensor,
    label: Tensor,
    matrix: Tensor,
    shift: Tensor | None,
    fill: Tensor | None,
    size: tuple[int, int],
) -> None:
    batch, channels, rows, columns = image.shape
    wanted = [(label, (batch, rows, columns)), (matrix, (batch, 6))]
    for tensor, shape in (*wanted, (shift, (batch, 2, *size)), (fill, (batch, channels))):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"images {image.shape} need {shape}, got {tensor.shape}")
