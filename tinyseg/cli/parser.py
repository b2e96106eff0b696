"""The command line. Exit codes: 0 success, 1 a check said no, 2 bad input, 130 interrupted."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from tinyseg.cli import commands as do
from tinyseg.errors import TinysegError

DATA = (
    'a folder with images and masks, a named dataset "pets:FOLDER", or simulated: '
    '"sim:cells?n=64&size=128&seed=0"'
)
OUT = "a page with every image (.html), a table (.txt, .md, .csv) or curves (.png)"
RUN = "a run folder, or that of all folds which `train --folds` made"
SET = "settings, e.g. model.base_channels=32 train.epochs=20 loss=dice"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; bad input is one line, never a traceback."""
    warnings.filterwarnings("ignore", module="PIL")  # we name damaged files ourselves
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # no line of code
    options = parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()  # a closed pipe is met here, not when Python ends
        return code
    except TinysegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `tinyseg info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser("tinyseg", description="Trains image segmentation on tinygrad.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_report(commands)
    _add_overfit(commands)
    _add_doctor(commands)
    info = commands.add_parser("info", help="device, compiler, threads, versions, cache folder")
    info.set_defaults(run=do.info)
    _add_data(commands)
    _add_cache(commands)
    return top


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_simulate(commands: Commands) -> None:
    command = commands.add_parser("simulate", help="write a simulated dataset as PNG pairs")
    command.add_argument("out", type=Path, help="folder to make")
    command.add_argument("--kind", default="cells", help="cells, ultrasound, membranes or shapes")
    command.add_argument("--n", type=int, default=64, help="number of images")
    command.add_argument("--size", type=int, default=128, help="side in pixels")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--foreground", type=float, help="mean share of foreground pixels")
    command.add_argument("--contrast", type=float, default=1.0)
    command.add_argument("--noise", type=float, default=1.0)
    command.add_argument("--empty", type=float, help="share of images without foreground")
    command.set_defaults(run=do.simulate)


def _add_train(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a network into a run folder")
    command.add_argument("data", help=DATA)
    command.add_argument("--out", type=Path, required=True, help="the run folder")
    _add_settings(command)
    command.add_argument(
        "--limit-images", type=int, metavar="N", help="train on N images only (0: all)"
    )
    command.add_argument(
        "--resume",
        action="store_true",
        help="go on where the run stopped; longer with --set train.epochs=60",
    )
    command.add_argument(
        "--folds", type=int, metavar="K", help="cross-validation: K runs in OUT/fold-0 and so on"
    )
    command.add_argument(
        "--probability",
        action="store_true",
        help="with --folds: each image's probability by the run that is new to it, as 16-bit PNG",
    )
    command.set_defaults(run=do.train)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="score a run beside trivial baselines")
    command.add_argument("folder", metavar="RUN", type=Path, help=RUN)
    command.add_argument("data", help=DATA)
    command.add_argument("--split", default="val", help="train, val, test, or all (other data)")
    _add_threshold(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    command.add_argument("--picture", type=Path, metavar="PNG", help="worst, middle, best images")
    _add_averages(command)
    command.set_defaults(run=do.evaluate)


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser("predict", help="write masks at the images' sizes")
    command.add_argument("folder", metavar="RUN", type=Path, help=RUN)
    command.add_argument("paths", nargs="+", metavar="PATH", help="image files or folders")
    command.add_argument("--out", type=Path, required=True, help="folder for the masks")
    command.add_argument("--probability", action="store_true", help="probabilities as 16-bit PNG")
    command.add_argument(
        "--force", action="store_true", help="replace files that predict has not written"
    )
    _add_threshold(command)
    _add_averages(command)
    command.set_defaults(run=do.predict)


def _add_threshold(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability from which a pixel is foreground, instead of the run's",
    )


def _add_averages(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--with",
        dest="others",
        nargs="+",
        action="extend",
        default=[],
        metavar="RUN",
        type=Path,
        help="average the probabilities with those of more runs",
    )
    command.add_argument(
        "--postprocess",
        metavar="STEPS",
        help="of class maps, instead of the run's: fill_holes+min_size(pixels=64), largest, none",
    )
    command.add_argument(
        "--tta", default="", help='average over views: flips, rotations, scales, with "+"'
    )


def _add_report(commands: Commands) -> None:
    command = commands.add_parser("report", help="runs side by side: a page, a table, curves")
    command.add_argument("folders", nargs="+", metavar="RUN", type=Path, help=RUN)
    command.add_argument("--out", type=Path, default="report.html", metavar="FILE", help=OUT)
    command.add_argument("--data", help=f"{DATA} (default: the first run's own)")
    command.add_argument("--split", default="val", help="train, val, test, or all (other data)")
    command.add_argument("--images", type=int, default=50, metavar="N", help="shown at most")
    command.add_argument("--doctor", action="store_true", help="with a diagnosis of each run")
    command.set_defaults(run=do.report)


def _add_overfit(commands: Commands) -> None:
    command = commands.add_parser("overfit", help="learn a few images by heart: PASS or FAIL")
    command.add_argument("data", help=DATA)
    command.add_argument("--images", type=int, default=4, metavar="N")
    command.add_argument("--steps", type=int, default=400, help="the budget")
    _add_settings(command)
    command.set_defaults(run=do.overfit)


def _add_doctor(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="why does it not learn? exit 1 on errors")
    command.add_argument("data", help=DATA)
    command.add_argument("--run", dest="folder", type=Path, metavar="RUN", help="a finished run")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all findings there")
    command.add_argument("--page", type=Path, metavar="FILE.html", help="and as a page, pictured")
    _add_settings(command)
    command.set_defaults(run=do.doctor)


def _add_data(commands: Commands) -> None:
    command = commands.add_parser("data", help="datasets: get them, look at them")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("download", help="fetch a published dataset")
    fetch.add_argument("name", help="pets, busi, isbi2012, camvid or dsb2018")
    fetch.add_argument("folder", type=Path, help="where to put it")
    fetch.set_defaults(run=do.data_download)
    check = actions.add_parser("check", help="all that could spoil a run; exit 1 when it would")
    check.add_argument("data", help=DATA)
    check.add_argument("--json", type=Path, metavar="FILE", help="write all findings there")
    check.add_argument(
        "--save-split",
        type=Path,
        metavar="FILE",
        help="write the split or folds, for data.split_file",
    )
    _add_settings(check)
    check.set_defaults(run=do.data_check)
    stats = actions.add_parser("stats", help="levels, foreground, objects; how two sets differ")
    stats.add_argument("data", help=DATA)
    stats.add_argument("other", nargs="?", help="a second one, e.g. real beside simulated images")
    stats.add_argument("--picture", type=Path, metavar="PNG", help="draw them (needs matplotlib)")
    stats.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    _add_settings(stats)
    stats.set_defaults(run=do.data_stats)

    show = actions.add_parser("preview", help="every augmentation, alone and combined, as one PNG")
    show.add_argument("data", help=DATA)
    show.add_argument("--out", type=Path, required=True, metavar="PNG")
    show.add_argument(
        "--images", nargs="+", default=["3"], metavar="N|NAME", help="how many, or which (by name)"
    )
    _add_settings(show)
    show.set_defaults(run=do.data_preview)


def _add_cache(commands: Commands) -> None:
    command = commands.add_parser("cache", help="compiled steps and decoded images kept on disk")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("info", help="folder, number, size").set_defaults(run=do.cache_info)
    actions.add_parser("clear", help="remove all of them").set_defaults(run=do.cache_clear)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE.toml", help="settings as TOML")
    command.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=SET
    )


if __name__ == "__main__":
    sys.exit(main())
