"""The table of all commands: what each does, its options and an example; no other imports."""

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
        settings = {"type": _path, "metavar": "FILE", **settings}
    return Option(flags, settings, writes)


def switch(flag: str, text: str) -> Option:
    """Describe an option without a value."""
    return Option((flag,), {"action": "store_true", "help": text})


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return Path(text)


DATA = option(
    "data",
    help='a folder with images and masks, a named dataset as "pets:FOLDER", or simulated images '
    'as "sim:cells?n=64&size=128&seed=0"',
)
RUN = option(
    "folder", metavar="RUN", type=_path, help="a run folder, or the folder of `train --folds`"
)
SPLIT = option(
    "--split", default="val", help="train, val, test, or all (new data); default: %(default)s"
)
SETTINGS = (
    option("--config", type=_path, metavar="FILE.toml", help="read settings from a TOML file"),
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
        type=_path,
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


GROUPS = {
    "data": "Download, check, compare and preview datasets.",
    "cache": "Show or clear the cache, which makes later starts faster.",
}
COMMANDS = (
    Command(
        "simulate",
        "Write a simulated dataset: images and their masks as PNG files.",
        "The same seed gives the same images. Use them to try tinyseg without data of your own.",
        (
            option("out", type=_path, help="the folder to write: images/ and masks/"),
            option(
                "--kind",
                default="cells",
                help="cells, ultrasound, membranes or shapes; default: %(default)s",
            ),
            option("--n", type=int, default=64, help="number of images; default: %(default)s"),
            option(
                "--size",
                type=int,
                default=128,
                help="height and width in pixels; default: %(default)s",
            ),
            option("--seed", type=int, default=0, help="random seed; default: %(default)s"),
            option("--foreground", type=float, help="mean fraction of foreground pixels"),
            option(
                "--contrast",
                type=float,
                default=1.0,
                help="contrast of the objects; below 1: fainter; default: 1",
            ),
            option(
                "--noise",
                type=float,
                default=1.0,
                help="strength of the noise; above 1: noisier; default: 1",
            ),
            option("--empty", type=float, help="fraction of images without foreground"),
        ),
        "tinyseg simulate cells --n 40 --size 64",
    ),
    Command(
        "train",
        "Train a network on a dataset and write a run folder.",
        "The run folder holds the settings, the log, the best and the last checkpoint, and "
        "pictures of validation images. After Ctrl-C, run it again with --resume to continue.",
        (
            DATA,
            option("--out", type=_path, required=True, metavar="RUN", help="the run folder"),
            *SETTINGS,
            MODEL,
            LOSS,
            option(
                "--limit-images", type=int, metavar="N", help="train on at most N images (0: all)"
            ),
            switch("--resume", "continue a run that was stopped, or train it for more epochs"),
            option(
                "--folds",
                type=int,
                metavar="K",
                help="K-fold cross-validation: K runs, in RUN/fold-0, RUN/fold-1, ...",
            ),
            switch(
                "--probability",
                "with --folds: also write each image's out-of-fold probability as 16-bit PNG",
            ),
        ),
        "tinyseg train cells --out run --set epochs=8 size=64 base_channels=8",
    ),
    Command(
        "evaluate",
        "Score a run on a dataset and compare it with trivial baselines.",
        "Prints Dice, IoU, precision, recall and surface distances with confidence intervals.",
        (
            RUN,
            DATA,
            SPLIT,
            RUN_MODEL,
            JSON,
            option(
                "--picture", writes=(".png",), help="draw the worst, middle and best images (PNG)"
            ),
            FORCE,
            *PREDICTION,
        ),
        "tinyseg evaluate run cells --split val --json scores.json --picture grid.png",
    ),
    Command(
        "predict",
        "Predict masks of new images, at the images' own sizes.",
        "An image that cannot be read is reported and skipped (exit code 2). If the command is "
        "interrupted, run it again to continue.",
        (
            RUN,
            option("paths", nargs="+", metavar="PATH", help="image files, or folders of images"),
            option(
                "--out",
                type=_path,
                required=True,
                metavar="FOLDER",
                help="the folder for the masks",
            ),
            RUN_MODEL,
            switch("--probability", "also write probabilities, as 16-bit PNG"),
            FORCE,
            *PREDICTION,
        ),
        "tinyseg predict run cells/images --out masks --tta auto",
    ),
    Command(
        "report",
        "Compare runs: scores, curves, settings and every image, in one file.",
        "The extension of --out selects the output: a page for the browser (.html), a table "
        "(.txt, .md, .csv) or curves (.png).",
        (
            option("folders", nargs="+", metavar="RUN", type=_path, help=RUN.settings["help"]),
            option(
                "--out",
                writes=(".html", ".txt", ".md", ".csv", ".png"),
                default=Path("report.html"),
                help="the file to write; default: %(default)s",
            ),
            option("--data", help=f"{DATA.settings['help']}; default: the first run's data"),
            SPLIT,
            option(
                "--images",
                type=int,
                default=50,
                metavar="N",
                help="maximum number of images on a page; default: %(default)s",
            ),
            switch(
                "--doctor",
                "add the findings of `tinyseg doctor` for each run (about a minute each)",
            ),
            RUN_MODEL,
            FORCE,
        ),
        "tinyseg report run --out report.html",
    ),
    Command(
        "overfit",
        "Train on a few images until they are memorized: PASS or FAIL.",
        "If a network cannot memorize four images, more data will not help: find the cause first. "
        "Exit code 1 on FAIL.",
        (
            DATA,
            option(
                "--images",
                type=int,
                default=4,
                metavar="N",
                help="number of images; default: %(default)s",
            ),
            option(
                "--steps",
                type=int,
                default=400,
                metavar="N",
                help="maximum number of training steps; default: %(default)s",
            ),
            MODEL,
            LOSS,
            *SETTINGS,
        ),
        "tinyseg overfit cells --images 4 --set size=64 base_channels=8",
    ),
    Command(
        "doctor",
        "Find out why training does not work: data, labels, loss, network, step, run.",
        "Runs small experiments and reports what is wrong, why it matters and what to change. Exit "
        "code 1 when it finds an error.",
        (
            DATA,
            option("--run", dest="folder", type=_path, metavar="RUN", help="also examine this run"),
            option("--page", writes=(".html",), help="write a page for the browser, with pictures"),
            option("--json", writes=(), help="write all findings to a JSON file"),
            FORCE,
            *SETTINGS,
            MODEL,
            LOSS,
        ),
        "tinyseg doctor cells --run run --page doctor.html",
    ),
    Command(
        "data download",
        "Download a published dataset.",
        "Each file is verified by its SHA-256 digest.",
        (
            option("name", help="pets, busi, isbi2012, camvid or dsb2018"),
            option("folder", type=_path, help="the folder to download it to"),
        ),
        "tinyseg data download isbi2012 data/isbi2012",
    ),
    Command(
        "data check",
        "Check a dataset for problems before training.",
        "Finds unreadable and duplicate files, masks that do not match their images, leaks "
        "between splits and more. Exit code 1 when it finds an error.",
        (
            DATA,
            option("--json", writes=(), help="write all findings to a JSON file"),
            option(
                "--save-split", writes=(), help="write the split (or folds), for data.split_file"
            ),
            FORCE,
            *SETTINGS,
        ),
        "tinyseg data check cells --json check.json --save-split split.json",
    ),
    Command(
        "data stats",
        "Describe a dataset, or compare two.",
        "Prints gray levels, foreground, object counts and sizes; for two datasets, for example "
        "real and simulated, also how much they differ.",
        (
            DATA,
            option("other", nargs="?", help="a second dataset to compare with"),
            option("--picture", writes=(".png",), help="draw the distributions (PNG)"),
            JSON,
            FORCE,
            *SETTINGS,
        ),
        'tinyseg data stats cells "sim:cells?n=16&size=64&seed=9" --json stats.json',
    ),
    Command(
        "data preview",
        "Draw images with every augmentation, alone and combined, as one PNG.",
        "Before training, check that each label still fits its image and that the images look "
        "plausible.",
        (
            DATA,
            option("--out", writes=(".png",), required=True, help="the PNG to write"),
            option(
                "--images",
                nargs="+",
                default=["3"],
                metavar="N|NAME",
                help="number of images, or image names; default: 3",
            ),
            FORCE,
            *SETTINGS,
        ),
        "tinyseg data preview cells --out preview.png --set size=64 augment=light",
    ),
    Command(
        "info",
        "Print the device, the compiler, versions and the cache folder.",
        "The line `because` gives the reason for the choice of device and compiler.",
        (),
        "tinyseg info",
    ),
    Command(
        "cache info",
        "Print the number, size and location of the cached files.",
        "The cache holds compiled training steps and decoded images.",
        (),
        "tinyseg cache info",
    ),
    Command(
        "cache clear",
        "Delete all cached files.",
        "The next start is slower, because it compiles and decodes again. Results do not change.",
        (),
        "tinyseg cache clear",
    ),
    Command(
        "help",
        "Print a page of the documentation.",
        "Without a topic, list all pages. A topic can also be the name of a command.",
        (option("topic", nargs="*", help="the page to print"),),
        "tinyseg help",
    ),
)
