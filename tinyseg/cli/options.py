"""What describes a command, and the options that several commands share; no other imports."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Option:
    """One argument of a command, as argparse takes it."""

    flags: tuple[str, ...]
    settings: dict[str, Any]
    writes: tuple[str, ...] | None = None
    """Of a file that the command writes: how its name may end; () for any name."""


def option(*flags: str, writes: tuple[str, ...] | None = None, **settings: Any) -> Option:
    """Describe an argument; one of a file that is written is protected from being overwritten."""
    if writes is not None:
        settings = {"type": path, "metavar": "FILE", **settings}
    return Option(flags, settings, writes)


def switch(flag: str, text: str) -> Option:
    """Describe an option without a value."""
    return Option((flag,), {"action": "store_true", "help": text})


def numbers(text: str) -> tuple[int, ...]:
    """Read whole numbers with commas between them; ValueError for others."""
    return tuple(map(int, text.split(",")))


def path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


DATA = option(
    "data",
    help='a folder with images and masks, a named dataset as "pets:FOLDER", or simulated images '
    'as "sim:cells?n=64&size=128&seed=0"',
)
RUN = option(
    "folder", metavar="RUN", type=path, help="a run folder, or the folder of `train --folds`"
)
SPLIT = option(
    "--split", default="val", help="train, val, test, or all (new data); default: %(default)s"
)
SETTINGS = (
    option("--config", type=path, metavar="FILE.toml", help="read settings from a TOML file"),
    option(
        *("--set",),
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change settings, e.g. epochs=20 size=256 loss=dice",
    ),
)
MODEL = option(
    "--model",
    metavar="FILE.py:CLASS",
    help="your own network: a class, or a function that returns one; called without arguments",
)
LOSS = option(
    "--loss", metavar="FILE.py:FUNCTION", help="your own loss: a function of logits and label"
)
RUN_MODEL = option(
    "--model", metavar="FILE.py:CLASS", help="the network's class, if the run trained your own"
)
JSON = option("--json", writes=(), help="write all numbers to a JSON file")
FORCE = switch("--force", "replace existing files that this command did not write")
PREDICTION = (
    option(
        *("--threshold",),
        type=float,
        metavar="P",
        help="a pixel is foreground if its probability is at least P; default: the run's threshold",
    ),
    option(
        *("--with",),
        dest="others",
        nargs="+",
        action="extend",
        default=[],
        metavar="RUN",
        type=path,
        help="average the probabilities of RUN and these other runs",
    ),
    option(
        *("--postprocess",),
        metavar="STEPS",
        help="post-processing of the masks, e.g. largest, none or fill_holes+min_size(pixels=64); "
        "default: the run's",
    ),
    option(
        *("--tta",),
        default="",
        metavar="VIEWS",
        help="test-time augmentation: average over the views hflip, vflip, rot90 or scales "
        "(join several with +; flips = hflip+vflip); auto: those that training showed",
    ),
)


@dataclass(frozen=True)
class Command:
    """A command: what it does in one line, then in more, its arguments and an example."""

    name: str
    summary: str
    details: str
    options: tuple[Option, ...]
    example: str
