"""The step's share of an epoch's wall time, and how long a start takes; see bench/README.md."""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from record import HELP, ROOT, keep, machine

Row = dict[str, Any]
SETTINGS = ("model.base_channels=16", "model.depth=4", "data.size=128", "train.batch_size=4")
WANTED = 0.95


# 1. A process that trains, with a stop watch on what it calls


class Watch:
    """Seconds within functions, by name; each call is added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def on(self, owner: Any, function: str, name: str) -> None:
        """Measure `owner.function` from here on."""
        original = getattr(owner, function)

        def timed(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                self.calls[name] = self.calls.get(name, 0) + 1
                spent = time.perf_counter() - begin
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        static = isinstance(inspect.getattr_static(owner, function), staticmethod)
        setattr(owner, function, staticmethod(timed) if static else timed)


def work(task: Row) -> Row:
    """Trains on `task["data"]`; seconds of the start and of each epoch after the first."""
    sys.path.insert(0, str(ROOT))
    import tinyseg.training.trainer as loop
    from tinyseg.config import Config
    from tinyseg.training.train import train

    watch, marks = Watch(), {}
    decoded = watch_all(watch, loop)
    epochs: list[Row] = []
    original = loop.Trainer._finish_epoch
    first_batch = loop.Trainer._train_batch

    def batch(self: Any, *arguments: Any) -> Any:
        marks.setdefault("data_s", time.time() - task["started"])
        values = first_batch(self, *arguments)
        marks.setdefault("first_step_s", time.time() - task["started"])
        return values

    def finish(self: Any, *arguments: Any) -> None:
        original(self, *arguments)
        marks["ends"] = [*marks.get("ends", []), time.perf_counter()]
        epochs.append(dict(watch.seconds))
        watch.seconds.clear()

    loop.Trainer._train_batch, loop.Trainer._finish_epoch = batch, finish
    config = Config().override([*task["settings"], f"train.epochs={task['epochs']}"])
    run = train(task["data"], task["out"], config=config, say=lambda text: None)
    walls = [b - a for a, b in zip(marks["ends"], marks["ends"][1:], strict=False)]
    rows = [{"wall": wall, **row} for wall, row in zip(walls, epochs[1:], strict=True)]
    told = {name: marks[name] for name in ("data_s", "first_step_s")}
    return {**told, "epochs": rows, "decoded": decoded(), "facts": facts(run, task)}


def watch_all(watch: Watch, loop: Any) -> Callable[[], int]:
    """Puts the watch on the parts of an epoch; returns the counter of decoded files."""
    from tinyseg.data import InputPipeline
    from tinyseg.data.reading import cases
    from tinyseg.inference.step import PredictStep
    from tinyseg.training import step

    # a step is over when its numbers are there: on a GPU the call itself returns at once
    watch.on(step.TrainStep, "__call__", "step")
    watch.on(step.Measurements, "numbers", "step")
    watch.on(PredictStep, "__call__", "inference")
    watch.on(loop, "to_device", "upload")
    watch.on(InputPipeline, "to_batch", "gather and scale")
    watch.on(loop.MetricsLog, "write", "log")
    watch.on(loop.Progress, "update", "progress")
    watch.on(loop.Trainer, "_validate", "validation")
    watch.on(loop.Trainer, "_check_finite", "check of the state")
    watch.on(loop.Trainer, "_save", "checkpoints")
    for name in ("decode_image", "decode_mask"):
        watch.on(cases, name, name)
    return lambda: sum(watch.calls.get(name, 0) for name in ("decode_image", "decode_mask"))


def facts(run: Any, task: Row) -> Row:
    """What the numbers depend on, once the fitted images are proven."""
    from tinyseg.device.choose import backend
    from tinyseg.device.environment import cpu_model, versions

    check_squares(run, task["data"])
    chosen = backend()
    where = {"device": chosen.device, "threads": chosen.threads, "cpu": cpu_model()}
    return {**where, "versions": versions()}


def check_squares(run: Any, data: str) -> None:
    """The mapped training images are those that decoding and fitting the files gives."""
    import numpy as np

    from tinyseg.data import load_image, prepare_images, prepare_label

    dataset, config, names = run.open(data), run.config.data, run.split.train
    squares = prepare_images(dataset, names, run.input_pipeline)
    for name, square, label in list(zip(names, squares, squares.labels, strict=True))[::10]:
        image, mask = dataset[name].files
        fitted = run.input_pipeline.tile(load_image(image, run.facts.channels))
        assert np.array_equal(square.pixels, fitted.pixels), name
        classes = load_image(mask, 1)[..., 0] // 255
        assert np.array_equal(label, prepare_label(classes, config.size, config.fit)), name


# 2. The parent


def draw(folder: Path, images: int, side: int) -> None:
    """Grey PNGs of about `side` pixels: a bright disc on noise, and the disc."""
    sys.path.insert(0, str(ROOT))
    import numpy as np
    from PIL import Image

    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index in range(images):
        rng = np.random.default_rng(index)
        shape = (side - index % 7, side - 3 * (index % 5))
        rows, columns = np.indices(shape) / side
        row, column, radius = rng.uniform((0.3, 0.3, 0.1), (0.6, 0.6, 0.25))
        disc = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        noisy = rng.normal(90, 25, shape) + 60 * disc
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"images/{index}.png")
        Image.fromarray(disc.astype(np.uint8) * 255).save(folder / f"masks/{index}.png")


def child(options: argparse.Namespace, folder: Path, turn: int) -> Row:
    """A fresh process, all with one cache folder: the first one finds it empty."""
    task = {
        "data": str(folder / "data"),
        "out": str(folder / f"run{turn}"),
        "epochs": options.epochs + 1,
        "settings": options.settings,
        "started": time.time(),
    }
    command = [sys.executable, str(Path(__file__).resolve()), "--task", json.dumps(task)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the trainer failed:\n{done.stderr[-3000:]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def describe(first: Row, others: list[Row]) -> Row:
    """Shares and times: medians over the epochs of all processes, least start times."""
    epochs = [epoch for row in (first, *others) for epoch in row["epochs"]]
    names = sorted({name for epoch in epochs for name in epoch})
    middle = {name: median(epoch.get(name, 0.0) for epoch in epochs) for name in names}
    alone = [epoch["step"] / (epoch["wall"] - epoch["validation"]) for epoch in epochs]
    whole = [epoch["step"] / epoch["wall"] for epoch in epochs]
    network = [(epoch["step"] + epoch["inference"]) / epoch["wall"] for epoch in epochs]
    shares = {"without_validation": alone, "with_validation": whole, "with_inference": network}
    return {
        "share": {name: median(values) for name, values in shares.items()},
        "share_best": {name: max(values) for name, values in shares.items()},
        "seconds": middle,
        "first_start": {name: first[name] for name in ("data_s", "first_step_s")},
        "second_start": {
            name: min(row[name] for row in others) for name in ("data_s", "first_step_s")
        },
        "decoded": {"first": first["decoded"], "second": max(row["decoded"] for row in others)},
    }


def table(found: Row) -> str:
    """The result for people."""
    share, best = found["share"], found["share_best"]
    lines = [
        f"the step's share of an epoch: {share['without_validation']:.1%} (best "
        f"{best['without_validation']:.1%}), with validation {share['with_validation']:.1%}, "
        f"its inference counted too {share['with_inference']:.1%}; wanted {WANTED:.0%}",
        f"{'of an epoch':24}{'ms':>9}",
    ]
    parts = sorted(found["seconds"].items(), key=lambda item: -item[1])
    lines += [f"  {name:22}{1000 * value:9.1f}" for name, value in parts]
    lines.append(f"{'start':24}{'data s':>9}{'first step s':>14}{'files decoded':>15}")
    for name in ("first", "second"):
        start, count = found[f"{name}_start"], found["decoded"][name]
        lines.append(f"  {name:22}{start['data_s']:9.2f}{start['first_step_s']:14.2f}{count:15}")
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200, help="PNG pairs to draw")
    parser.add_argument("--side", type=int, default=500, help="their side in pixels, about")
    parser.add_argument("--epochs", type=int, default=3, help="measured in each process")
    parser.add_argument("--starts", type=int, default=3, help="processes after the first")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="KEY=VALUE")
    parser.add_argument("--json", metavar="NAME", help=HELP)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Draw, train in fresh processes, print."""
    options = parse()
    if options.task:
        print(json.dumps(work(json.loads(options.task))))
        return
    about = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "data", options.images, options.side)
        first, *others = (child(options, folder, turn) for turn in range(options.starts + 1))
    found = describe(first, others)
    if found["decoded"]["second"]:
        raise SystemExit(f"the second start decoded {found['decoded']['second']} files again")
    print(table(found))
    settings = {name: vars(options)[name] for name in ("images", "side", "epochs", "settings")}
    keep({**about, "settings": settings, **found, "facts": first["facts"]}, options.json)


if __name__ == "__main__":
    main()
