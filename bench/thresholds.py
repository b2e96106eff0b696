"""What learning the threshold adds to a validation; see bench/README.md."""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CASES = ((128, 128), (256, 256), (512, 512), (512, 128))
"""Sides of the images and of the network's square."""
IMAGES = 20
IDLE_LOAD = 0.5
WANTED = 0.02
Row = dict[str, Any]


class Clock:
    """Adds up the time within functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def clock_on_thresholds() -> tuple[Any, Clock]:
    """The training loop's module, with a clock on all that it does for thresholds."""
    import tinyseg.train  # noqa: F401

    loop, clock = sys.modules["tinyseg.train"], Clock()
    loop.Histograms.add = clock.around(loop.Histograms.add)  # type: ignore[attr-defined]
    return loop, clock


def measure(side: int, square: int, rounds: int, folder: Path, loop: Any, clock: Clock) -> Row:
    """What thresholds add to the rest of a validation, each the least of `rounds`."""
    trainer = make_trainer(side, square, folder)
    check(trainer._validate())
    rest: list[float] = []
    added: dict[str, list[float]] = {"every": [], "best": []}
    for _ in range(rounds):
        clock.seconds, begin = 0.0, time.perf_counter()
        histograms = trainer._validate().histograms
        rest.append(time.perf_counter() - begin - clock.seconds)
        for which, seconds in added.items():
            begin = time.perf_counter()
            loop.to_facts(histograms, loop.find(histograms, resample=which == "best"))
            seconds.append(clock.seconds + time.perf_counter() - begin)
    row: Row = {"side": side, "square": square, "rest_ms": 1000 * min(rest)}
    row |= {f"{which}_ms": 1000 * min(seconds) for which, seconds in added.items()}
    return row | {which: min(seconds) / min(rest) for which, seconds in added.items()}


def make_trainer(side: int, square: int, folder: Path) -> Any:
    """An untrained network of case A on simulated images, half of which validate."""
    from tinyseg.config import Config
    from tinyseg.data import keep_scale, make_split, open_dataset
    from tinyseg.run import Run
    from tinyseg.train import Trainer

    settings = [f"data.size={square}", "data.val=0.5", "model.base=16", "model.depth=4"]
    config = Config().override(settings)
    dataset = open_dataset(f"sim:cells?n={2 * IMAGES}&size={side}", config.data)
    split = make_split(dataset, config.data)
    scale = keep_scale(dataset, split.train, config.data)
    run = Run.create(folder / f"{side}-{square}", config, dataset, split, scale)
    return Trainer(run, dataset, lambda text: None)


def check(found: Any) -> None:
    """The histograms give the Dice that counting the pixels at 0.5 gives."""
    from tinyseg.thresholds import find

    counted, (told,) = found.summary.pooled["dice"][1], find(found.histograms)
    if abs(told.dice_at_half - counted) > 1e-12:
        raise SystemExit(f"Dice at 0.5: {told.dice_at_half}, counted {counted}")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="NAME", help="keep as bench/results/NAME.json")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        told = (options.rounds, Path(folder), *clock_on_thresholds())
        rows = [measure(*case, *told) for case in CASES]
    print(f"{IMAGES} images: what thresholds add to a validation, wanted {WANTED:.0%} or less")
    print(f"{'':18}{'rest ms':>9}{'added ms':>10}{'share':>8}{'a best epoch: ms':>18}{'share':>8}")
    for row in rows:
        sides, (rest, every, best) = f"{row['side']} px in {row['square']}", list(row.values())[2:5]
        print(
            f"  {sides:16}{rest:9.1f}{every:10.2f}{row['every']:8.2%}{best:18.2f}{row['best']:8.2%}"
        )
    made = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "load": load}
    result = {**made, "idle": load < IDLE_LOAD, "platform": platform.platform(), "rows": rows}
    if options.json:
        path = ROOT / "bench" / "results" / f"{options.json}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
