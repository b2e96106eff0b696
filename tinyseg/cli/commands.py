"""What each command does with its options, until its exit code."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tinyseg.cli.user_code import load_callable, make_model
from tinyseg.common import VERSION
from tinyseg.common.cache_dir import FileCache, cache_folder
from tinyseg.common.files import write_atomic, write_json
from tinyseg.common.progress import Progress
from tinyseg.config import Config
from tinyseg.data import image_files, write_pairs
from tinyseg.data import simulate as simulate_samples
from tinyseg.data.checks.check import check
from tinyseg.data.checks.compare import compare
from tinyseg.data.checks.layout import describe_layouts
from tinyseg.data.checks.stats import open_stats
from tinyseg.data.sources.download import download
from tinyseg.device.choose import backend
from tinyseg.device.compilers import compilers, speed_files
from tinyseg.device.environment import versions
from tinyseg.device.kernel_cache import kernel_files
from tinyseg.doctor import QUICK, STAGES, Project, diagnose
from tinyseg.drawing.plots import draw_stats
from tinyseg.drawing.preview import preview
from tinyseg.errors import ConfigError, RunError
from tinyseg.evaluation.evaluate import evaluate as evaluate_runs
from tinyseg.inference.predict_files import predict as predict_files
from tinyseg.inference.run import Run, load_run, load_runs
from tinyseg.jit.store import StepCache
from tinyseg.kernels import kernels_of
from tinyseg.models import catalog, head_channels
from tinyseg.report import diagnosis_page
from tinyseg.report import report as write_report
from tinyseg.runs import checkpoint
from tinyseg.runs.run import RunFolder, run_folders
from tinyseg.training.cross_validation import cross_validate
from tinyseg.training.overfit import overfit as overfit_images
from tinyseg.training.train import train as train_run
from tinyseg.weights import read_weights, to_torch
from tinyseg.weights import table as weights_table
from tinyseg.weights import to_dict as weights_to_dict

Options = argparse.Namespace


def simulate(options: Options) -> int:
    """Write simulated images and masks into a folder."""
    arguments = {k: getattr(options, k) for k in ("foreground", "contrast", "noise", "empty")}
    samples = simulate_samples(options.kind, options.n, options.size, options.seed, **arguments)
    with Progress("writing") as progress:
        write_pairs(samples, options.out, progress.update)
    print(f"{len(samples)} images and masks in {options.out}")
    return 0


def train(options: Options) -> int:
    """Train one run, or one for each fold."""
    if options.probability and options.folds is None:
        raise RunError("--probability writes out-of-fold predictions: give --folds K with it")
    first = options.out if options.folds is None else options.out / "fold-0"
    resumes = options.resume and (first / "run.json").exists()
    config = _config(options, RunFolder.load(first).config if resumes else None)
    if options.limit_images is not None:
        config = config.override([f"data.max_train_images={options.limit_images}"])
    if options.folds is not None:
        folds = cross_validate(
            options.data,
            options.out,
            config,
            options.folds,
            resume=options.resume,
            probability=options.probability,
            model=partial(make_model, options.model) if options.model else None,
            loss=_own_loss(options),
        )
        print(folds.table())
        print(f"written: {options.out / 'folds.json'}, masks in {options.out / 'out-of-fold'}")
        return 0
    run = train_run(
        options.data, options.out, config=config, resume=options.resume, **_own_parts(options)
    )
    print(f"run folder: {run.folder}   pictures: {run.samples / 'best.png'}")
    return 0


def evaluate(options: Options) -> int:
    """Score a run next to its baselines."""
    result = evaluate_runs(
        _load_runs(options, options.folder),
        options.data,
        options.split,
        picture=options.picture,
        threshold=options.threshold,
        others=_others(options),
        tta=options.tta,
        postprocess=options.postprocess,
        force=options.force,
    )
    _write_json(options, result.to_dict())
    print(result.table())
    return 0


def predict(options: Options) -> int:
    """Write masks; 2 when an image had to be left out."""
    run, *folds = _load_runs(options, options.folder)
    done = predict_files(
        run,
        options.paths,
        options.out,
        threshold=options.threshold,
        others=[*folds, *_others(options)],
        tta=options.tta,
        postprocess=options.postprocess,
        probability=options.probability,
        force=options.force,
    )
    print(f"{len(done.masks)} masks in {options.out}")
    return 2 if done.problems else 0


def report(options: Options) -> int:
    """Write runs side by side into one file."""
    runs = [_load_runs(options, folder) for folder in options.folders]
    table = write_report(
        runs,
        options.out,
        options.data,
        options.split,
        options.images,
        doctor=options.doctor,
        force=options.force,
        channels=options.channels,
    )
    print(table, end="")
    return 0


def overfit(options: Options) -> int:
    """Memorize a few images; 1 where that fails."""
    verdict = overfit_images(
        options.data,
        options.images,
        config=_config(options),
        steps=options.steps,
        **_own_parts(options),
    )
    print(verdict.table())
    return 0 if verdict.passed else 1


def doctor(options: Options) -> int:
    """Find out why training does not work; 1 on errors."""
    parts = _own_parts(options)
    own = options.folder and RunFolder.load(options.folder).facts.custom.get("model")
    run = load_run(options.folder, parts["model"] if own else None) if options.folder else None
    if run and (options.set or options.config):
        raise RunError(f"{options.folder}: a run has its settings; omit --set and --config")
    stages = QUICK if options.quick else tuple(STAGES)
    if options.only:
        stages = tuple(options.only.replace(" ", "").split(","))
    found = diagnose(Project(options.data, _config(options), run, **parts), stages)
    _write_json(options, found.to_json())
    if options.page:
        write_atomic(options.page, diagnosis_page(found))
    print(found.table())
    return 1 if found.level == "error" else 0


def data_download(options: Options) -> int:
    """Fetch a named dataset."""
    download(options.name, options.folder)
    return 0


def data_check(options: Options) -> int:
    """Check a dataset; 1 on errors."""
    with Progress(f"checking {options.data}") as progress:
        found = check(options.data, _config(options), progress.update)
    _write_json(options, found.to_json())
    split = found.folds or found.split
    if options.save_split and split:
        split.save(options.save_split)
    elif options.save_split:
        print(f"{options.save_split} is not written: there is no split of such data")
        options.save_split = None
    print(found.table())
    return 1 if found.level == "error" else 0


def data_layout(options: Options) -> int:
    """Print the layouts of a folder."""
    print(describe_layouts(options.folder))
    return 0


def data_preview(options: Options) -> int:
    """Draw augmented images."""
    preview(options.data, options.out, _config(options), options.images)
    return 0


def data_stats(options: Options) -> int:
    """Print numbers of one dataset, or compare two."""
    config = _config(options).data
    sets = [open_stats(options.data, config)]
    sets += [open_stats(options.other, config, like=sets[0])] if options.other else []
    comparison = compare(*sets) if options.other else None
    print("\n\n".join(stats.table() for stats in sets))
    if comparison:
        print(f"\n{comparison.table(sets[0].channel_names)}")
    compared = {"comparison": comparison.to_dict()} if comparison else {}
    _write_json(options, {"sets": [stats.to_dict() for stats in sets], **compared})
    if options.picture:
        draw_stats(options.picture, sets, comparison)
    return 0


def models(options: Options) -> int:
    """Print what networks and encoders there are."""
    if not (16 <= options.size <= 4096 and 1 <= options.channels <= 64):
        raise ConfigError(
            f"--size {options.size} --channels {options.channels} cannot be used: give 16 to 4096 "
            "pixels and 1 to 64 channels"
        )
    found = catalog(options.size, options.channels, options.names)
    _write_json(options, found.to_dict())
    print(found.table())
    return 0


def weights(options: Options) -> int:
    """Print what is in a file of weights."""
    found = read_weights(options.file)
    _write_json(options, weights_to_dict(found))
    print(weights_table(found))
    return 0


def export(options: Options) -> int:
    """Write a run's weights under PyTorch's names."""
    run = RunFolder.load(options.folder)
    if run.facts.custom.get("model"):
        raise RunError(f"{options.folder} has a network of yours: its checkpoint has its own names")
    arrays, _, path = run.load_checkpoint()
    begin, settings, shape = "model.", run.config.model, (run.facts.channels, run.facts.classes)
    tensors = {n.removeprefix(begin): a for n, a in arrays.items() if n.startswith(begin)}
    out_channels = head_channels(settings, shape[1])
    named, made = to_torch(settings, shape[0], out_channels, tensors)
    checkpoint.save(options.out, named, {"network": made, "run": str(options.folder)})
    print(f"{len(named)} tensors of {path} for\nmodel = {made}")
    return 0


def info(options: Options) -> int:
    """Print device, compiler and versions."""
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


def cache_info(options: Options) -> int:
    """Print what is kept on disk."""
    for what, cache in _caches().items():
        info = cache.info()
        size, limit = info.bytes / 2**20, info.limit / 2**20
        print(f"{info.files} {what}, {size:.1f} MiB of {limit:.0f}, in {info.folder}")
    return 0


def cache_clear(options: Options) -> int:
    """Remove it."""
    for what, cache in _caches().items():
        print(f"{cache.clear()} {what} removed from {cache.folder}")
    return 0


def _caches() -> dict[str, FileCache]:
    return {
        "compiled steps": StepCache(),
        "compiled kernels": kernel_files(),
        "measurements of the fastest compiler": speed_files(),
        "decoded images and training sets": image_files(),
    }


def _config(options: Options, default: Config | None = None) -> Config:
    config = Config.load(options.config) if options.config else default or Config()
    return config.override(options.set)


def _own_parts(options: Options) -> dict[str, Any]:
    """Return the user's own network and loss, None where they are not given."""
    model = make_model(options.model) if options.model else None
    return {"model": model, "loss": _own_loss(options)}


def _own_loss(options: Options) -> Any:
    return load_callable("--loss", options.loss) if options.loss else None


def _load_runs(options: Options, folder: Path) -> list[Run]:
    """Open a run or all folds with --model, which other runs than the first may not need."""
    own = any(RunFolder.load(one).facts.custom.get("model") for one in run_folders(folder))
    needed = own or folder == getattr(options, "folder", None)
    return load_runs(folder, make_model(options.model) if needed and options.model else None)


def _others(options: Options) -> list[Run]:
    return [run for folder in options.others for run in _load_runs(options, folder)]


def _write_json(options: Options, content: dict[str, Any]) -> None:
    if options.json:
        write_json(options.json, {"written_by": f"tinyseg {VERSION}", **content})
