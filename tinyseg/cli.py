"""The command line. Exit codes: 0 success, 1 a check said no, 2 bad input, 130 interrupted."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tinyseg.config import Config
from tinyseg.errors import RunError, TinysegError

if TYPE_CHECKING:
    from tinyseg.cache import FileCache
    from tinyseg.stepcache import StepCache

DATA = (
    'a folder with images and masks, a named dataset "pets:FOLDER", or simulated: '
    '"sim:cells?n=64&size=128&seed=0"'
)
OUT = "a page with every image (.html), a table (.txt, .md, .csv) or curves (.png)"
SET = "settings, e.g. model.base=32 train.epochs=20 loss=dice"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; bad input is one line, never a traceback."""
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
    info.set_defaults(run=_info)
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
    command.set_defaults(run=_simulate)


def _add_train(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a network into a run folder")
    command.add_argument("data", help=DATA)
    command.add_argument("--out", type=Path, required=True, help="the run folder")
    _add_settings(command)
    command.add_argument(
        "--limit-images", type=int, metavar="N", help="train on N images only (0: all)"
    )
    command.add_argument("--resume", action="store_true", help="go on where the run stopped")
    command.add_argument(
        "--folds", type=int, metavar="K", help="cross-validation: K runs in OUT/fold-0 and so on"
    )
    command.add_argument(
        "--probability",
        action="store_true",
        help="with --folds: each image's probability by the run that is new to it, as 16-bit PNG",
    )
    command.set_defaults(run=_train)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="score a run beside trivial baselines")
    command.add_argument("folder", metavar="RUN", type=Path)
    command.add_argument("data", help=DATA)
    command.add_argument("--split", default="val", help="train, val, test, or all (other data)")
    _add_threshold(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    command.add_argument("--picture", type=Path, metavar="PNG", help="worst, middle, best images")
    _add_averages(command)
    command.set_defaults(run=_evaluate)


def _add_predict(commands: Commands) -> None:
    command = commands.add_parser("predict", help="write masks at the images' sizes")
    command.add_argument("folder", metavar="RUN", type=Path)
    command.add_argument("paths", nargs="+", metavar="PATH", help="image files or folders")
    command.add_argument("--out", type=Path, required=True, help="folder for the masks")
    command.add_argument("--probability", action="store_true", help="probabilities as 16-bit PNG")
    _add_threshold(command)
    _add_averages(command)
    command.set_defaults(run=_predict)


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
    command.add_argument("folders", nargs="+", metavar="RUN", type=Path)
    command.add_argument("--out", type=Path, default="report.html", metavar="FILE", help=OUT)
    command.add_argument("--data", help=f"{DATA} (default: the first run's own)")
    command.add_argument("--split", default="val", help="train, val, test, or all (other data)")
    command.add_argument("--images", type=int, default=50, metavar="N", help="shown at most")
    command.add_argument("--doctor", action="store_true", help="with a diagnosis of each run")
    command.set_defaults(run=_report)


def _add_overfit(commands: Commands) -> None:
    command = commands.add_parser("overfit", help="learn a few images by heart: PASS or FAIL")
    command.add_argument("data", help=DATA)
    command.add_argument("--images", type=int, default=4, metavar="N")
    command.add_argument("--steps", type=int, default=400, help="the budget")
    _add_settings(command)
    command.set_defaults(run=_overfit)


def _add_doctor(commands: Commands) -> None:
    command = commands.add_parser("doctor", help="why does it not learn? exit 1 on errors")
    command.add_argument("data", help=DATA)
    command.add_argument("--run", dest="folder", type=Path, metavar="RUN", help="a finished run")
    command.add_argument("--json", type=Path, metavar="FILE", help="write all findings there")
    command.add_argument("--page", type=Path, metavar="FILE.html", help="and as a page, pictured")
    _add_settings(command)
    command.set_defaults(run=_doctor)


def _add_data(commands: Commands) -> None:
    command = commands.add_parser("data", help="datasets: get them, look at them")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    fetch = actions.add_parser("download", help="fetch a published dataset")
    fetch.add_argument("name", help="pets, busi, isbi2012, camvid or dsb2018")
    fetch.add_argument("folder", type=Path, help="where to put it")
    fetch.set_defaults(run=_data_download)
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
    check.set_defaults(run=_data_check)
    stats = actions.add_parser("stats", help="levels, foreground, objects; how two sets differ")
    stats.add_argument("data", help=DATA)
    stats.add_argument("other", nargs="?", help="a second one, e.g. real beside simulated images")
    stats.add_argument("--picture", type=Path, metavar="PNG", help="draw them (needs matplotlib)")
    stats.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    _add_settings(stats)
    stats.set_defaults(run=_data_stats)

    show = actions.add_parser("preview", help="every augmentation, alone and combined, as one PNG")
    show.add_argument("data", help=DATA)
    show.add_argument("--out", type=Path, required=True, metavar="PNG")
    show.add_argument(
        "--images", nargs="+", default=["3"], metavar="N|NAME", help="how many, or which (by name)"
    )
    _add_settings(show)
    show.set_defaults(run=_data_preview)


def _add_cache(commands: Commands) -> None:
    command = commands.add_parser("cache", help="compiled steps and decoded images kept on disk")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    actions.add_parser("info", help="folder, number, size").set_defaults(run=_cache_info)
    actions.add_parser("clear", help="remove all of them").set_defaults(run=_cache_clear)


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, metavar="FILE.toml", help="settings as TOML")
    command.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=SET
    )


def _config(options: argparse.Namespace) -> Config:
    config = Config.load(options.config) if options.config else Config()
    return config.override(options.set)


def _simulate(options: argparse.Namespace) -> int:
    from tinyseg.data import simulate, write_pairs
    from tinyseg.progress import Progress

    knobs = {k: getattr(options, k) for k in ("foreground", "contrast", "noise", "empty")}
    samples = simulate(options.kind, options.n, options.size, options.seed, **knobs)
    with Progress("writing") as progress:
        write_pairs(samples, options.out, progress.update)
    print(f"{len(samples)} images and masks in {options.out}")
    return 0


def _train(options: argparse.Namespace) -> int:
    from tinyseg.folds import cross_validate
    from tinyseg.train import train

    if options.probability and options.folds is None:
        raise RunError("--probability is of out-of-fold predictions: give --folds K with it")
    begun = options.out / "fold-0" if options.folds is not None else options.out
    resuming = options.resume and (begun / "run.json").exists()
    if resuming and (options.set or options.config or options.limit_images is not None):
        raise RunError(
            f"{options.out}: a resumed run keeps its settings (config.toml there); "
            "leave --set, --config and --limit-images away, or start a new run"
        )
    limit = [] if options.limit_images is None else [f"data.limit={options.limit_images}"]
    config = _config(options).override(limit)
    if options.folds is not None:
        more = {"resume": options.resume, "probability": options.probability}
        print(cross_validate(options.data, options.out, config, options.folds, **more).table())
        print(f"written: {options.out / 'folds.json'}, masks in {options.out / 'out-of-fold'}")
        return 0
    run = train(options.data, options.out, config, resume=options.resume)
    print(f"run folder: {run.folder}   pictures: {run.samples / 'best.png'}")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from tinyseg.evaluate import evaluate
    from tinyseg.files import write_json
    from tinyseg.run import load_run

    run = load_run(options.folder)
    more = {"threshold": options.threshold, **_averages(options)}
    found = evaluate(run, options.data, options.split, picture=options.picture, **more)
    if options.json:
        write_json(options.json, found.to_dict())
    print(found.table())
    for path in filter(None, (options.json, options.picture)):
        print(f"written: {path}")
    return 0


def _predict(options: argparse.Namespace) -> int:
    from tinyseg.masks import predict
    from tinyseg.run import load_runs

    (run, *folds), given = load_runs(options.folder), (options.paths, options.out)
    more = {"threshold": options.threshold, **_averages(options)}
    more |= {"others": [*folds, *more["others"]], "probability": options.probability}
    done = predict(run, *given, **more)
    print(f"{len(done.masks)} masks in {options.out}")
    return 2 if done.problems else 0


def _report(options: argparse.Namespace) -> int:
    from tinyseg.report import report
    from tinyseg.run import load_run

    runs = [load_run(folder) for folder in options.folders]
    chosen = (options.out, options.data, options.split, options.images)
    table = report(runs, *chosen, doctor=options.doctor)
    print(f"{table}written: {options.out}")
    return 0


def _averages(options: argparse.Namespace) -> dict[str, Any]:
    from tinyseg.run import load_run

    others = [load_run(folder) for folder in options.others]
    return {"others": others, "tta": options.tta, "postprocess": options.postprocess}


def _overfit(options: argparse.Namespace) -> int:
    from tinyseg.overfit import overfit

    verdict = overfit(options.data, options.images, _config(options), options.steps)
    print(verdict.table())
    return 0 if verdict.passed else 1


def _doctor(options: argparse.Namespace) -> int:
    from tinyseg.doctor import Project, diagnose
    from tinyseg.files import write_atomic, write_json
    from tinyseg.report import diagnosis_page
    from tinyseg.run import load_run

    run = load_run(options.folder) if options.folder else None
    if run and (options.set or options.config):
        raise RunError(f"{options.folder}: a run has settings; leave --set and --config away")
    found = diagnose(Project(options.data, _config(options), run))
    if options.json:
        write_json(options.json, found.to_json())
    if options.page:
        write_atomic(options.page, diagnosis_page(found))
    print(found.table())
    for path in filter(None, (options.json, options.page)):
        print(f"written: {path}")
    return 1 if found.level == "error" else 0


def _data_download(options: argparse.Namespace) -> int:
    from tinyseg.data.download import download

    download(options.name, options.folder)
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from tinyseg.data.check import check
    from tinyseg.files import write_json
    from tinyseg.progress import Progress

    with Progress(f"checking {options.data}") as progress:
        found = check(options.data, _config(options), progress.update)
    drawn = found.folds or found.split
    if options.json:
        write_json(options.json, found.to_json())
    if options.save_split and drawn:
        drawn.save(options.save_split)
    print(found.table())
    for path in filter(None, (options.json, drawn and options.save_split)):
        print(f"written: {path}")
    return 1 if found.level == "error" else 0


def _data_preview(options: argparse.Namespace) -> int:
    from tinyseg.preview import preview

    preview(options.data, options.out, _config(options), options.images)
    print(f"written: {options.out}")
    return 0


def _data_stats(options: argparse.Namespace) -> int:
    from tinyseg.data.compare import compare
    from tinyseg.data.stats import open_stats
    from tinyseg.files import write_json
    from tinyseg.plots import draw_stats

    config = _config(options).data
    sets = [open_stats(options.data, config)]
    sets += [open_stats(options.other, config, like=sets[0])] if options.other else []
    comparison = compare(*sets) if options.other else None
    print("\n\n".join(stats.table() for stats in sets))
    if comparison:
        print(f"\n{comparison.table(sets[0].channel_names)}")
    if options.json:
        found = {"comparison": comparison.to_dict()} if comparison else {}
        write_json(options.json, {"sets": [stats.to_dict() for stats in sets], **found})
    if options.picture:
        draw_stats(options.picture, sets, comparison)
    for path in filter(None, (options.json, options.picture)):
        print(f"written: {path}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from tinyseg.backend import backend, compilers, versions
    from tinyseg.cache import cache_folder
    from tinyseg.kernels import kernels_of

    chosen = backend()
    print(f"device    {chosen.device} ({chosen.threads} CPU threads)")
    if chosen.compiler:
        known = ", ".join(f"{c.name} {c.version}" for c in compilers())
        print(f"compiler  {chosen.compiler.name} {chosen.compiler.version} (found: {known})")
    print(f"because   {chosen.reason}")
    print(f"kernels   {kernels_of(chosen.device)}")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in versions().items())}")
    print(f"cache     {cache_folder()}")
    return 0


def _cache_info(options: argparse.Namespace) -> int:
    for what, cache in _caches().items():
        found = cache.info()
        size, limit = found.bytes / 2**20, found.limit / 2**20
        print(f"{found.files} {what}, {size:.1f} MiB of {limit:.0f}, in {found.folder}")
    return 0


def _cache_clear(options: argparse.Namespace) -> int:
    for what, cache in _caches().items():
        folder = cache.info().folder
        print(f"{cache.clear()} {what} removed from {folder}")
    return 0


def _caches() -> "dict[str, StepCache | FileCache]":
    from tinyseg.data import image_files
    from tinyseg.stepcache import StepCache

    return {"compiled steps": StepCache(), "decoded images and training sets": image_files()}


if __name__ == "__main__":
    sys.exit(main())
