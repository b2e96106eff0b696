"""One process of `step.py`: builds one side, checks it, times it, and prints JSON."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
CHECKED_STEPS = 3


@dataclass(frozen=True)
class Case:
    """A U-Net and the shape of a batch."""

    base: int
    batch: int
    channels: int
    size: int
    depth: int = 4

    def __str__(self) -> str:
        shape = f"{self.batch}x{self.channels}x{self.size}x{self.size}"
        return f"U-Net base {self.base} depth {self.depth}, {shape}"


CASES = {
    "A": Case(16, 4, 1, 128),
    "B": Case(32, 2, 3, 256),
    "C": Case(64, 1, 1, 256),
    "D": Case(64, 16, 3, 512),
}
"""A to C are for CPUs and GPUs, D is for a large GPU."""


def work(task: Row) -> Row:
    """Build one side, check it, time it; the process started at `task["started"]`."""
    if task["side"] == "tinyseg":
        side: Any = Ours(task)
    else:
        from peer import Peer

        side = Peer(task)
    before, case = peak_memory(), CASES[task["case"]]
    batches = [_batch(case, seed) for seed in range(CHECKED_STEPS)]
    side.build(case, Path(task["weights"]), batches)
    run = side.train if task["kind"] == "train" else side.predict
    run(0)
    side.synchronize()
    result: Row = {"start_s": time.time() - task["started"]}
    result["checked"] = _check(side, run, task["kind"])
    result["ms"] = _time(run, side.synchronize, task["warmup"], task["steps"])
    peak = peak_memory()
    return result | {"peak_mib": peak, "growth_mib": peak - before, "facts": side.facts()}


def _check(side: Any, run: Callable[[int], None], kind: str) -> list[float]:
    """The first losses, or some probabilities: numbers on which both sides must agree."""
    if kind == "predict":
        return [float(value) for value in side.read_probability().ravel()[::997]]
    losses = [side.read_loss()]
    for number in range(1, CHECKED_STEPS):
        run(number)
        losses.append(side.read_loss())
    return losses


def _time(
    run: Callable[[int], None], synchronize: Callable[[], None], warmup: int, steps: int
) -> list[float]:
    """Milliseconds of each run after the warm-up, each waited for."""
    seconds = []
    for _ in range(warmup + steps):
        begin = time.perf_counter()
        run(0)
        synchronize()
        seconds.append(time.perf_counter() - begin)
    return [1000 * value for value in seconds[warmup:]]


def _batch(case: Case, seed: int) -> tuple[Any, Any]:
    """A bright disc on noise, and the disc."""
    import numpy as np

    rng = np.random.default_rng(seed)
    shape = (case.batch, case.size, case.size)
    rows, columns = np.indices(shape[1:]) / case.size
    label = np.broadcast_to((rows - 0.5) ** 2 + (columns - 0.4) ** 2 < 0.05, shape)
    image = rng.standard_normal((case.batch, case.channels, case.size, case.size))
    image += label[:, None]
    return image.astype(np.float32), label.astype(np.uint8)


def peak_memory() -> float:
    """The most this process ever held, in MiB; compilers that it called are not in it."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


class Ours:
    """tinyseg's side of a pair."""

    def __init__(self, task: Row):
        from tinyseg.device.choose import backend

        self.device, self.kind = backend().device, task["kind"]
        self.precision = task["precision"]

    def build(self, case: Case, weights: Path, batches: list[tuple[Any, Any]]) -> None:
        """Make the model and its step; the file keeps the first weights."""
        import numpy as np

        from tinyseg.device.tensors import to_device
        from tinyseg.inference.step import PredictStep
        from tinyseg.models.unet import UNet
        from tinyseg.training.step import TrainStep

        model = UNet(
            case.channels, base_channels=case.base, depth=case.depth, precision=self.precision
        )
        if not weights.exists():
            tensors = model.state_dict().items()
            np.savez(weights, **{name: tensor.numpy() for name, tensor in tensors})
        if self.kind == "train":
            self.step: Any = TrainStep(model, loss="bce", optimizer="adam(lr=0.001)")
        else:
            self.step = PredictStep(model)
        self.batches = [(to_device(image), to_device(label)) for image, label in batches]

    def train(self, number: int) -> None:
        """One step on a batch."""
        self.loss = self.step(*self.batches[number])["loss"]

    def predict(self, number: int) -> None:
        """Probabilities of a batch in evaluation mode."""
        self.probability = self.step(self.batches[number][0])

    def read_loss(self) -> float:
        """The last step's loss."""
        return float(self.loss.item())

    def read_probability(self) -> Any:
        """The last prediction."""
        return self.probability.numpy()

    def synchronize(self) -> None:
        """Wait for the device."""
        from tinygrad import Device

        Device[self.device].synchronize()

    def facts(self) -> Row:
        """What the numbers depend on, the kernels of a step, and the GPU's memory."""
        from tinyseg.device.choose import backend
        from tinyseg.device.environment import cpu_model, versions

        return {
            "versions": versions(),
            "device": self.device,
            "reason": backend().reason,
            "cpu": cpu_model(),
            "precision": self.precision,
            "kernels": launches(self.step._guarded.jit.captured.linear),
            "device_memory_mib": 0.0 if self.device == "CPU" else reserved_memory(self.device),
        }


def reserved_memory(device: str) -> float:
    """What tinygrad holds of a device, in use or kept for later; it gives nothing back."""
    from tinygrad import Device
    from tinygrad.helpers import GlobalCounters

    kept = getattr(Device[device].allocator, "cache", {})
    later = sum(size * len(buffers) for (size, _), buffers in kept.items())
    return (GlobalCounters.mem_used_per_device[device] + later) / 2**20


def launches(linear: Any) -> int:
    """Kernels that a captured linear starts, those inside of graphs included."""
    programs = [call.src[0] for call in linear.src]
    return sum(launches(p.src[0]) if p.arg == "graph" else 1 for p in programs)


if __name__ == "__main__":
    print(json.dumps(work(json.loads(sys.argv[1]))))
