"""What augmentation adds to a training step: steps with and without, in turns, in one process."""

import argparse
import statistics
import time
from typing import Any

from record import HELP, keep
from step import surroundings
from worker import CASES, _batch, launches

Row = dict[str, Any]
EVERYTHING = "everything"


def main(arguments: list[str] | None = None) -> None:
    """Verify, time, print a table and one JSON object."""
    options = parse(arguments)
    report = surroundings(options) | {"script": "bench/augment.py", "case": options.case}
    case = CASES[options.case]
    texts = {name: _text(name) for name in options.augment}
    verify(texts)
    image, label = _uploaded(case)
    steps = {name: _step(case, text) for name, text in {"none": "none", **texts}.items()}
    first = {name: _timed(step, image, label) for name, step in steps.items()}
    found = measure(steps, image, label, options.rounds)
    own = {name: alone(text, image, label, options.rounds) for name, text in texts.items()}
    facts = {
        name: {"text": texts.get(name, "none"), "first_s": first[name] / 1000, "ms": found[name]}
        | {
            "alone_ms": own.get(name, [0.0]),
            "kernels": launches(step._guarded.jit.captured.linear),
            "origin": step.origin,
        }
        for name, step in steps.items()
    }
    report["rows"] = {name: row | added(row["ms"], found["none"]) for name, row in facts.items()}
    print(f"{case}; times in ms: median (least) of {options.rounds} rounds, each waited for")
    print(f"{'augment':12} {'kernels':>7} {'first s':>8} {'step':>16} ", end="")
    print(f"{'added':>14} {'share':>7} {'alone':>13}")
    for name, row in report["rows"].items():
        step = f"{statistics.median(row['ms']):.1f} ({min(row['ms']):.1f})"
        more = f"{row['added_median_ms']:.1f} ({row['added_least_ms']:.1f})"
        told = f"{name:12} {row['kernels']:7} {row['first_s']:8.1f} {step:>16} {more:>14}"
        own_ms = f"{statistics.median(row['alone_ms']):.2f} ({min(row['alone_ms']):.2f})"
        print(f"{told} {row['share_least']:7.1%} {own_ms:>13}")
    keep(report, options.json)


def verify(texts: dict[str, str]) -> None:
    """Every augmentation keeps image and label together, or nothing is timed."""
    from tinyseg.augment import Augmentation, alignment

    for name, text in texts.items():
        found = alignment(Augmentation(text).pipeline, rounds=6, levels=(-1.0, 1.0))
        if not found.passed:
            raise SystemExit(f"{name}: {found}")


def measure(steps: Row, image: Any, label: Any, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each step; all take turns, so that a slow moment strikes all of them."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(_timed(step, image, label))
    return found


def alone(text: str, image: Any, label: Any, rounds: int) -> list[float]:
    """Milliseconds of the augmentation compiled by itself: what a busy machine blurs least."""
    from tinygrad import Device, Tensor

    from tinyseg.augment import Augmentation
    from tinyseg.device.capture import JitFunction

    augmentation, found = Augmentation(text), []
    run = JitFunction(lambda state, *batch: Tensor.realize(*augmentation(*batch), *state))
    for _ in range(rounds + 3):
        begin = time.perf_counter()
        run(list(augmentation.state.values()), image, label)
        Device[image.device].synchronize()
        found.append(1000 * (time.perf_counter() - begin))
    return found[3:]


def added(ms: list[float], without: list[float]) -> Row:
    """What the augmentation costs: by pairs of neighbouring steps, and by the least of all."""
    pairs = [one - other for one, other in zip(ms, without, strict=True)]
    least = min(ms) - min(without)
    return {
        "added_median_ms": statistics.median(pairs),
        "added_least_ms": least,
        "share_median": statistics.median(pairs) / statistics.median(without),
        "share_least": least / min(without),
    }


def _timed(step: Any, image: Any, label: Any) -> float:
    begin = time.perf_counter()
    step(image, label).numbers()  # a download waits for the device
    return 1000 * (time.perf_counter() - begin)


def _uploaded(case: Any) -> tuple[Any, Any]:
    from tinyseg.device.tensors import to_device

    image, label = _batch(case, 0)
    return to_device(image), to_device(label)


def _step(case: Any, text: str) -> Any:
    from tinyseg.models.unet import UNet
    from tinyseg.training.step import TrainStep

    model = UNet(case.channels, base_channels=case.base, depth=case.depth)
    return TrainStep(model, loss="bce", optimizer="adam(lr=0.001)", augment=text)


def _text(name: str) -> str:
    """A text as it is; `everything` is every transform on every image."""
    from tinyseg.augment import TRANSFORMS

    return "+".join(t for t in TRANSFORMS if t != "reflect") if name == EVERYTHING else name


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--case", choices=list(CASES), default="A", help="the U-Net and the batch of step.py")
    add("--augment", nargs="+", default=["flip", "medium", "strong", "trivial", EVERYTHING])
    add("--rounds", type=int, default=40, help="timed steps of each (default 40)")
    add("--json", metavar="FILE", help=HELP)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
