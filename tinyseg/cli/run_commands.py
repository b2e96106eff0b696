"""The commands that make and use runs."""

from tinyseg.cli.options import (
    DATA,
    FORCE,
    JSON,
    LOSS,
    MODEL,
    PREDICTION,
    RUN,
    RUN_MODEL,
    SETTINGS,
    SPLIT,
    Command,
    numbers,
    option,
    path,
    switch,
)

RUN_COMMANDS = (
    Command(
        "simulate",
        "Write a simulated dataset: images and their masks as PNG files.",
        "The same seed gives the same images. Use them to try tinyseg without data of your own.",
        (
            option("out", type=path, help="the folder to write: images/ and masks/"),
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
        "The run folder contains the settings, the log, the best and the last checkpoint, and "
        "pictures of validation images. After Ctrl-C, run it again with --resume to continue.",
        (
            DATA,
            option("--out", type=path, required=True, metavar="RUN", help="the run folder"),
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
                type=path,
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
            option("folders", nargs="+", metavar="RUN", type=path, help=RUN.settings["help"]),
            option(
                "--out",
                writes=(".html", ".txt", ".md", ".csv", ".png"),
                default=path("report.html"),
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
            option(
                "--channels",
                type=numbers,
                default=(),
                metavar="4,2,1",
                help="channels of an image shown as red, green and blue; default: the first three",
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
            option("--run", dest="folder", type=path, metavar="RUN", help="also examine this run"),
            switch("--quick", "skip training: only data, labels, pipeline, loss and network"),
            option("--only", metavar="STAGES", help="only these stages, e.g. loss,update"),
            option("--page", writes=(".html",), help="write a page for the browser, with pictures"),
            option("--json", writes=(), help="write all findings to a JSON file"),
            FORCE,
            *SETTINGS,
            MODEL,
            LOSS,
        ),
        "tinyseg doctor cells --run run --page doctor.html",
    ),
)
