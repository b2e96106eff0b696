"""The rate of every convolution of U-Nets A, B and C against the machine's peak and PyTorch.

Run: python bench/conv.py [A B C]. Every kernel is verified first, on sampled outputs in
float64. Prints a table for people and one JSON object as its last line.
"""

import argparse
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from peak import peak_gflops
from record import keep, machine
from tinygrad import Device, Tensor, TinyJit

from tinyseg.device.choose import backend
from tinyseg.device.environment import cpu_model
from tinyseg.kernels import plans
from tinyseg.kernels import reference as plain
from tinyseg.kernels.cpu import convolution
from tinyseg.kernels.cpu.packing import Layout
from tinyseg.kernels.shapes import Convolution

CASES = {"A": (16, 4, 1, 128), "B": (32, 2, 3, 256), "C": (64, 1, 1, 256)}
"""Base width, batch, image channels, rows and columns; the depth is 4."""


def shapes_of(case: str) -> list[Convolution]:
    """Return the distinct convolutions of a U-Net."""
    base, batch, channels, side = CASES[case]
    found: dict[Convolution, None] = {}

    def add(level: int, inputs: int, outputs: int, kernel: int, scatter: int = 1) -> None:
        size = side // 2**level
        conv = Convolution(batch, size, size, inputs, outputs * scatter**2, kernel, 1, kernel // 2)
        found[Convolution(**{**conv.__dict__, "scatter": scatter})] = None

    for level in range(5):
        width = base * 2**level
        add(level, width // 2 if level else channels, width, 3)
        add(level, width, width, 3)
        if level < 4:
            add(level, 2 * width, width, 3)
            add(level + 1, 2 * width, width, 1, 2)
    add(0, base, 1, 1)
    return list(found)


@dataclass
class Work:
    """One direction of one convolution: what runs, on what, and how PyTorch does the same."""

    plan: plans.Plan
    run: Callable[..., Tensor]
    given: list[np.ndarray]
    check: Callable[[np.ndarray], float]
    peer: Callable[[], Any] | None


def sampled_error(found: np.ndarray, places: list[tuple[int, ...]], expected: list[float]) -> float:
    """Return the largest error at some places, relative to the largest value there."""
    got = np.array([found[place] for place in places], np.float64)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def forward_work(conv: Convolution, rng: np.random.Generator, peer: Any) -> Work:
    """Return the forward pass of a convolution or a transposed one."""
    scale, kernel = conv.scatter, conv.kernel
    x = rng.standard_normal((conv.batch, conv.rows, conv.columns, conv.inputs), np.float32)
    w = rng.standard_normal((kernel, kernel, conv.inputs, conv.outputs), np.float32)
    plan = plans.forward_plan(conv)

    def run(x: Tensor, w: Tensor) -> Tensor:
        if plan.tile is None:
            y = plain.conv2d(x.permute(0, 3, 1, 2), w.permute(3, 2, 0, 1), None, 1, conv.padding)
            return y.permute(0, 2, 3, 1).contiguous()
        return convolution.run_forward(x, w, [w], conv, plan)

    def check(found: np.ndarray) -> float:
        padded = np.pad(x, ((0, 0), (conv.padding,) * 2, (conv.padding,) * 2, (0, 0)))
        places, expected = [], []
        for _ in range(40):
            b, r, c = (int(rng.integers(n)) for n in (conv.batch, conv.out_rows, conv.out_columns))
            o = int(rng.integers(conv.outputs))
            top, left = r * conv.stride, c * conv.stride
            patch = padded[b, top : top + kernel, left : left + kernel]
            expected.append(float((patch.astype(np.float64) * w[..., o]).sum()))
            channels = conv.outputs // scale**2
            down, right = divmod(o // channels, scale)
            places.append((b, r * scale + down, c * scale + right, o % channels))
        return sampled_error(found, places, expected)

    area = conv.inputs * conv.outputs
    layout = Layout(1, conv.outputs, conv.kernel * area, area)
    packed = convolution.pack(Tensor(w), conv, plan.tile, layout).numpy() if plan.tile else w
    return Work(plan, run, [x, packed], check, peer and peer.forward(conv, x, w))


def weight_work(conv: Convolution, rng: np.random.Generator, peer: Any) -> Work:
    """Return the weight gradient of a convolution."""
    x = rng.standard_normal((conv.batch, conv.rows, conv.columns, conv.inputs), np.float32)
    shape = (conv.batch, conv.out_rows, conv.out_columns, conv.outputs)
    dy = rng.standard_normal(shape, np.float32)
    like = Tensor.empty(conv.outputs, conv.inputs, conv.kernel, conv.kernel)
    squares = conv.kernel**2
    layout = Layout(conv.inputs * squares, squares, conv.kernel, 1)

    def run(x: Tensor, dy: Tensor) -> Tensor:
        return convolution.weight_gradient(x, dy, like, layout, conv).contiguous()

    def check(found: np.ndarray) -> float:
        padded = np.pad(x, ((0, 0), (conv.padding,) * 2, (conv.padding,) * 2, (0, 0)))
        places, expected = [], []
        for _ in range(12):
            sizes = (conv.kernel, conv.kernel, conv.inputs, conv.outputs)
            down, right, i, o = (int(rng.integers(n)) for n in sizes)
            rows = slice(down, down + (conv.out_rows - 1) * conv.stride + 1, conv.stride)
            columns = slice(right, right + (conv.out_columns - 1) * conv.stride + 1, conv.stride)
            seen = padded[:, rows, columns, i].astype(np.float64)
            expected.append(float((seen * dy[..., o]).sum()))
            places.append((o, i, down, right))
        return sampled_error(found, places, expected)

    return Work(plans.weight_plan(conv), run, [x, dy], check, peer and peer.weight(conv, x, dy))


def directions(conv: Convolution, rng: np.random.Generator, peer: Any) -> dict[str, Work]:
    """Return forward, input gradient and weight gradient as the kernels run them."""
    works = {"forward": forward_work(conv, rng, peer)}
    if conv.scatter > 1:
        outputs, scale = conv.outputs // conv.scatter**2, conv.scatter
        big = (conv.batch, conv.rows * scale, conv.columns * scale)
        backward = Convolution(*big, outputs, conv.inputs, scale, scale)
        works["input"] = forward_work(backward, rng, peer)
        works["weight"] = weight_work(backward, rng, peer)
    else:
        if conv.inputs >= 4:
            size = (conv.batch, conv.out_rows, conv.out_columns, conv.outputs, conv.inputs)
            turned = Convolution(*size, conv.kernel, 1, conv.kernel - 1 - conv.padding)
            works["input"] = forward_work(turned, rng, peer)
        works["weight"] = weight_work(conv, rng, peer)
    return works


class PyTorch:
    """The same work by PyTorch, channels_last."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.torch = torch

    def _images(self, x_bhwc: np.ndarray) -> Any:
        return self.torch.from_numpy(x_bhwc).permute(0, 3, 1, 2)

    def forward(self, conv: Convolution, x: np.ndarray, w: np.ndarray) -> Callable[[], Any]:
        """Return a call of the convolution."""
        torch, images = self.torch, self._images(x)
        if conv.scatter > 1:
            shape = (conv.inputs, conv.scatter, conv.scatter, conv.outputs // conv.scatter**2)
            weight = torch.from_numpy(w.reshape(shape)).permute(0, 3, 1, 2).contiguous()
            return lambda: torch.conv_transpose2d(images, weight, None, conv.scatter)
        weight = torch.from_numpy(w).permute(3, 2, 0, 1)
        weight = weight.contiguous(memory_format=torch.channels_last)
        return lambda: torch.conv2d(images, weight, None, conv.stride, conv.padding)

    def weight(self, conv: Convolution, x: np.ndarray, dy: np.ndarray) -> Callable[[], Any]:
        """Return a call of the weight gradient alone."""
        torch, images, gradient = self.torch, self._images(x), self._images(dy)
        shape = (conv.outputs, conv.inputs, conv.kernel, conv.kernel)
        weight = torch.empty(shape).contiguous(memory_format=torch.channels_last)
        sizes = [conv.stride] * 2, [conv.padding] * 2, [1, 1], False, [0, 0], 1
        mask = [False, True, False]
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(gradient, images, weight, None, *sizes, mask)


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Return seconds of each call, after one to warm up."""
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds


def measure(conv: Convolution, work: Work, repeats: int, peak: float) -> dict[str, Any]:
    """Verify and time one direction; the kernel runs four times a call to hide the launch."""
    copies = 4
    given = [Tensor(array).realize() for array in work.given]

    def several(*tensors: Tensor) -> Tensor:
        made = [work.run(*tensors) for _ in range(copies)]
        Tensor.realize(*made)
        return made[0]

    began = time.perf_counter()
    jitted = TinyJit(several)
    jitted.cnt = 1
    error = work.check(jitted(*given).numpy())
    compiled = time.perf_counter() - began
    if error > 1e-4:
        raise SystemExit(f"{conv.label}: wrong by {error:.1e}, nothing is timed")

    def call() -> None:
        jitted(*given)
        Device["CPU"].synchronize()

    ours = [second / copies for second in timed(call, repeats)]
    peers = timed(work.peer, repeats) if work.peer else []
    operations = conv.operations / 1e9
    row = {
        "tile": str(work.plan.tile),
        "gflops_best": operations / min(ours),
        "gflops": operations / statistics.median(ours),
        "share_of_peak": operations / min(ours) / peak,
        "error": error,
        "first_call_seconds": compiled,
    }
    if peers:
        row["pytorch_gflops_best"] = operations / min(peers)
        row["ratio_to_pytorch"] = min(peers) / min(ours)
    return row


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--no-pytorch", action="store_true")
    chosen = parser.parse_args()
    told, rng = backend(), np.random.default_rng(0)
    try:
        peer = None if chosen.no_pytorch else PyTorch(told.threads)
    except ImportError:
        peer = None
    rows: list[dict[str, Any]] = []
    print(
        f"{told.reason}\n{'convolution':40s} {'direction':9s} {'tile':27s} GFLOP/s  peak  PyTorch"
    )
    for case in chosen.cases or list(CASES):
        peak = peak_gflops()
        print(f"case {case}: peak {peak:.0f} GFLOP/s on {told.threads} threads")
        for conv in shapes_of(case):
            peak = max(peak, peak_gflops(repeats=3))  # a neighbour may have had the first one
            for name, work in directions(conv, rng, peer).items():
                row = measure(conv, work, chosen.repeats, peak)
                told_row = {"case": case, "shape": conv.label, "direction": name, "peak": peak}
                rows.append({**told_row, **row})
                ratio = f"{row['ratio_to_pytorch']:6.2f}x" if "ratio_to_pytorch" in row else ""
                print(
                    f"{conv.label:40s} {name:9s} {row['tile']:27s} {row['gflops_best']:7.0f} "
                    f"{row['share_of_peak']:5.0%} {ratio}",
                    flush=True,
                )
    best = max(row["peak"] for row in rows)
    for row in rows:
        row.update(peak=best, share_of_peak=row["gflops_best"] / best)
    versions = {name: importlib.metadata.version(name) for name in ("tinygrad", "numpy")}
    versions |= {"compiler": str(told.compiler), "pytorch": peer.torch.__version__ if peer else ""}
    about = {"script": "bench/conv.py", **machine(), "cpu": cpu_model(), "threads": told.threads}
    keep({**about, **versions, "rows": rows}, None)


if __name__ == "__main__":
    main()
