"""What learning the threshold adds to a validation; see bench/README.md."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from record import HELP, ROOT, keep, machine

CASES = ((128, 128), (256, 256), (512, 512), (512, 128))
"""Sides of the images and of the network's square."""
IMAGES = 20
EPOCHS = ("every", "best")
WANTED = 0.02
Row = dict[str, Any]


class Clock:
    """Adds up the time within functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def clocks_on_counting() -> tuple[Any, Clock]:
    """The training loop's module, with a clock on all that counts pixels."""
    import tinyseg.evaluation.score as scoring
    import tinyseg.training.trainer as loop

    clock = Clock()
    loop.Histograms.add = clock.around(loop.Histograms.add)  # type: ignore[attr-defined]
    scoring.to_classes = clock.around(scoring.to_classes)  # type: ignore[attr-defined]
    scoring.evaluate_image = clock.around(scoring.evaluate_image)  # type: ignore[attr-defined]
    return loop, clock


def measure(side: int, square: int, rounds: int, folder: Path, loop: Any, clock: Clock) -> Row:
    """Validations without and with thresholds, in turns; each the least of `rounds`."""
    trainer = make_trainer(side, square, folder)
    taken: dict[str, list[float]] = {"rest": [], "plain": [], "every": [], "best": []}
    add = loop.Histograms.add
    clocked(trainer, clock)  # compiles
    for _ in range(rounds):
        loop.Histograms.add = lambda *_: None
        at_half, rest, plain = clocked(trainer, clock)
        loop.Histograms.add = add
        found, _, counted = clocked(trainer, clock)
        check(at_half, found)
        taken["rest"].append(rest)
        taken["plain"].append(plain)
        for which in EPOCHS:
            begin = time.perf_counter()
            reports = loop.find_thresholds(found.histograms, resample=which == "best")
            loop.to_facts(found.histograms, reports)
            taken[which].append(counted + time.perf_counter() - begin)
    least = {f"{which}_ms": 1000 * min(seconds) for which, seconds in taken.items()}
    without = least["rest_ms"] + least["plain_ms"]
    shares = {w: (least[f"{w}_ms"] - least["plain_ms"]) / without for w in EPOCHS}
    return {"side": side, "square": square, **least, **shares}


def clocked(trainer: Any, clock: Clock) -> tuple[Any, float, float]:
    """A validation, and its seconds without and within the counting of pixels."""
    clock.seconds, begin = 0.0, time.perf_counter()
    found = trainer._validate()
    return found, time.perf_counter() - begin - clock.seconds, clock.seconds


def make_trainer(side: int, square: int, folder: Path) -> Any:
    """An untrained network of case A on simulated images, half of which validate."""
    from tinyseg.config import Config
    from tinyseg.data import Dataset, cached_scale, make_split
    from tinyseg.inference.run import Run
    from tinyseg.training.trainer import Trainer

    settings = [
        f"data.size={square}",
        "data.val_fraction=0.5",
        "model.base_channels=16",
        "model.depth=4",
    ]
    config = Config().override(settings)
    dataset = Dataset(f"sim:cells?n={2 * IMAGES}&size={side}", config.data)
    split = make_split(dataset, config.data)
    scale = cached_scale(dataset, split.train, config.data)
    run = Run.create(folder / f"{side}-{square}", config, dataset, split, scale)
    return Trainer(run, dataset, lambda text: None)


def check(at_half: Any, found: Any) -> None:
    """The histograms give the Dice that counting the pixels at 0.5 gives."""
    from tinyseg.metrics.best_threshold import find_thresholds

    counted, (told,) = (
        at_half.summary.pooled["dice"][1],
        find_thresholds(found.histograms, resample=False),
    )
    if abs(told.dice_at_half - counted) > 1e-12:
        raise SystemExit(f"Dice at 0.5: {told.dice_at_half}, counted {counted}")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", metavar="NAME", help=HELP)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        told = (options.rounds, Path(folder), *clocks_on_counting())
        rows = [measure(*case, *told) for case in CASES]
    print(f"{IMAGES} images: what thresholds add to a validation, wanted {WANTED:.0%} or less")
    titles = ("rest ms", "at 0.5 alone", "thresholds", "share", "a best epoch", "share")
    print(f"{'':16}" + "".join(f"{title:>14}" for title in titles))
    for row in rows:
        rest, plain, every, best = (row[f"{which}_ms"] for which in ("rest", "plain", *EPOCHS))
        cells = (f"{rest:.1f}", f"{plain:.2f}", f"{every:.2f}", f"{row['every']:.2%}")
        cells += (f"{best:.2f}", f"{row['best']:.2%}")
        sides = f"{row['side']} px in {row['square']}"
        print(f"{sides:16}" + "".join(f"{cell:>14}" for cell in cells))
    keep({**about, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
