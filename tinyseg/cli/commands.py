"""What each command does with its options, until its exit code; imports are made where used."""

import argparse
from typing import TYPE_CHECKING, Any

from tinyseg.config import Config
from tinyseg.errors import RunError

if TYPE_CHECKING:
    from tinyseg.common.cache_dir import FileCache
    from tinyseg.jit.store import StepCache


def _config(options: argparse.Namespace, default: Config | None = None) -> Config:
    config = Config.load(options.config) if options.config else default or Config()
    return config.override(options.set)


def simulate(options: argparse.Namespace) -> int:
    """Draws images and masks into a folder."""
    from tinyseg.common.progress import Progress
    from tinyseg.data import simulate, write_pairs

    knobs = {k: getattr(options, k) for k in ("foreground", "contrast", "noise", "empty")}
    samples = simulate(options.kind, options.n, options.size, options.seed, **knobs)
    with Progress("writing") as progress:
        write_pairs(samples, options.out, progress.update)
    print(f"{len(samples)} images and masks in {options.out}")
    return 0


def train(options: argparse.Namespace) -> int:
    """Trains, or cross-validates."""
    from tinyseg.inference.run import load_run
    from tinyseg.training.cross_validation import cross_validate
    from tinyseg.training.train import train

    if options.probability and options.folds is None:
        raise RunError("--probability is of out-of-fold predictions: give --folds K with it")
    begun = options.out / "fold-0" if options.folds is not None else options.out
    resuming = options.resume and (begun / "run.json").exists()
    limit = (
        [] if options.limit_images is None else [f"data.max_train_images={options.limit_images}"]
    )
    default = load_run(begun).config if resuming else None
    config = _config(options, default).override(limit)
    if options.folds is not None:
        more = {"resume": options.resume, "probability": options.probability}
        print(cross_validate(options.data, options.out, config, options.folds, **more).table())
        print(f"written: {options.out / 'folds.json'}, masks in {options.out / 'out-of-fold'}")
        return 0
    run = train(options.data, options.out, config=config, resume=options.resume)
    print(f"run folder: {run.folder}   pictures: {run.samples / 'best.png'}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Scores a run beside its baselines."""
    from tinyseg.common.files import write_json
    from tinyseg.evaluation.evaluate import evaluate
    from tinyseg.inference.run import load_runs

    more = {"threshold": options.threshold, **_averages(options)}
    found = evaluate(
        load_runs(options.folder), options.data, options.split, picture=options.picture, **more
    )
    if options.json:
        write_json(options.json, found.to_dict())
    print(found.table())
    for path in filter(None, (options.json, options.picture)):
        print(f"written: {path}")
    return 0


def predict(options: argparse.Namespace) -> int:
    """Writes masks."""
    from tinyseg.inference.predict_files import predict
    from tinyseg.inference.run import load_runs

    (run, *folds), given = load_runs(options.folder), (options.paths, options.out)
    more = {"threshold": options.threshold, **_averages(options)}
    more |= {"others": [*folds, *more["others"]], "probability": options.probability}
    done = predict(run, *given, **more, force=options.force)
    print(f"{len(done.masks)} masks in {options.out}")
    return 2 if done.problems else 0


def report(options: argparse.Namespace) -> int:
    """Writes runs side by side into one file."""
    from tinyseg.inference.run import load_runs
    from tinyseg.report import report

    runs = [load_runs(folder) for folder in options.folders]
    chosen = (options.out, options.data, options.split, options.images)
    table = report(runs, *chosen, doctor=options.doctor)
    print(f"{table}written: {options.out}")
    return 0


def _averages(options: argparse.Namespace) -> dict[str, Any]:
    from tinyseg.inference.run import load_runs

    others = [run for folder in options.others for run in load_runs(folder)]
    return {"others": others, "tta": options.tta, "postprocess": options.postprocess}


def overfit(options: argparse.Namespace) -> int:
    """Learns a few images by heart; 1 where that fails."""
    from tinyseg.training.overfit import overfit

    verdict = overfit(options.data, options.images, _config(options), options.steps)
    print(verdict.table())
    return 0 if verdict.passed else 1


def doctor(options: argparse.Namespace) -> int:
    """Tells why it does not learn; 1 on errors."""
    from tinyseg.common.files import write_atomic, write_json
    from tinyseg.doctor import Project, diagnose
    from tinyseg.inference.run import load_run
    from tinyseg.report import diagnosis_page

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


def data_download(options: argparse.Namespace) -> int:
    """Fetches a named dataset."""
    from tinyseg.data.sources.download import download

    download(options.name, options.folder)
    return 0


def data_check(options: argparse.Namespace) -> int:
    """Lists what could spoil a run; 1 on errors."""
    from tinyseg.common.files import write_json
    from tinyseg.common.progress import Progress
    from tinyseg.data.checks.check import check

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


def data_preview(options: argparse.Namespace) -> int:
    """Draws augmented images."""
    from tinyseg.drawing.preview import preview

    preview(options.data, options.out, _config(options), options.images)
    print(f"written: {options.out}")
    return 0


def data_stats(options: argparse.Namespace) -> int:
    """Prints numbers of one dataset, or compares two."""
    from tinyseg.common.files import write_json
    from tinyseg.data.checks.compare import compare
    from tinyseg.data.checks.stats import open_stats
    from tinyseg.drawing.plots import draw_stats, require_matplotlib

    if options.picture:
        require_matplotlib()
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


def info(options: argparse.Namespace) -> int:
    """Prints device, compiler and versions."""
    from tinyseg.common.cache_dir import cache_folder
    from tinyseg.device.choose import backend
    from tinyseg.device.compilers import compilers
    from tinyseg.device.environment import versions
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


def cache_info(options: argparse.Namespace) -> int:
    """Prints what is kept on disk."""
    for what, cache in _caches().items():
        found = cache.info()
        size, limit = found.bytes / 2**20, found.limit / 2**20
        print(f"{found.files} {what}, {size:.1f} MiB of {limit:.0f}, in {found.folder}")
    return 0


def cache_clear(options: argparse.Namespace) -> int:
    """Removes it."""
    from tinyseg.device.choose import forget_compilers

    for what, cache in _caches().items():
        folder = cache.info().folder
        print(f"{cache.clear()} {what} removed from {folder}")
    if forget_compilers():
        print("the compilers' speeds removed: the next start measures which is the fastest")
    return 0


def _caches() -> "dict[str, StepCache | FileCache]":
    from tinyseg.data import image_files
    from tinyseg.device.kernel_cache import kernel_files
    from tinyseg.jit.store import StepCache

    return {
        "compiled steps": StepCache(),
        "compiled kernels": kernel_files(),
        "decoded images and training sets": image_files(),
    }
