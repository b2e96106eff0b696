"""Images and labels sampled at other places: one geometry for both."""

from tinygrad import Tensor

from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu.smooth import Smooth, smooth_kernel
from tinyseg.kernels.cpu.warp import Warp, warp_kernel
from tinyseg.kernels.memory import settled
from tinyseg.kernels.plans import machine, refusal, shared_threads


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

    `matrix` (B, 6) takes output pixels to input pixels: with p = (row, column) from the centre of
    the output, plus `shift` (B, 2, rows, columns) when given, row = m0 p0 + m1 p1 + m2 and
    column = m3 p0 + m4 p1 + m5. What lies over half a pixel outside is filled with `fill` (B, C),
    the label with `ignore`; without `fill` both are reflected at the edges of the outer pixels.
    There is no gradient.
    """
    batch, channels, rows, columns = (int(n) for n in image_bchw.shape)
    out_rows, out_columns = size or (rows, columns)
    _check(image_bchw, label_bhw, matrix, shift, fill, (out_rows, out_columns))
    if refusal(image_bchw, matrix, shift, fill):
        given = (image_bchw, label_bhw, matrix, shift, fill)
        return plain.warp(*given, (out_rows, out_columns), ignore)
    device, threads = str(image_bchw.device), shared_threads(batch * out_rows, out_columns)
    sizes = (batch, channels, rows, columns, out_rows, out_columns)
    plan = Warp(*sizes, shift is not None, fill is not None, ignore, threads)
    image = Tensor.empty(batch, channels, out_rows, out_columns, device=device)
    label = Tensor.empty(batch, out_rows, out_columns, dtype=label_bhw.dtype, device=device)
    given = (image_bchw, label_bhw, matrix, shift, fill)
    read = [settled(tensor.uop) for tensor in given if tensor is not None]
    made = image.custom_kernel(label, *read, fxn=warp_kernel(plan, device))
    return made[0], made[1]


def smooth(image_bchw: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return images filtered along the rows and then along the columns.

    `down` (B, taps, H) and `right` (B, taps, W), taps odd, hold the weights of the neighbours of
    each place, the middle one its own; those of neighbours outside must be 0. There is no gradient.
    """
    batch, channels, rows, columns = (int(n) for n in image_bchw.shape)
    taps = int(down.shape[1])
    if taps % 2 == 0 or down.shape != (batch, taps, rows) or right.shape != (batch, taps, columns):
        raise ValueError(f"weights {down.shape}, {right.shape} do not fit {image_bchw.shape}")
    if refusal(image_bchw, down, right):
        return plain.smooth(image_bchw, down, right)
    device, threads = str(image_bchw.device), shared_threads(batch * channels * rows, columns)
    size = Smooth(batch, channels, rows, columns, taps, machine().lanes, threads)
    scratch = Tensor.empty(threads, size.line, device=device)
    read = [settled(tensor.uop) for tensor in (image_bchw, down, right)]
    out = Tensor.empty(batch, channels, rows, columns, device=device)
    return out.custom_kernel(scratch, *read, fxn=smooth_kernel(size, device))[0]


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
