"""Train: from a folder of images to a finished run."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinyseg.augment import Augmentation, Pipeline
from tinyseg.common.arrays import Array
from tinyseg.common.files import locked
from tinyseg.common.progress import Progress
from tinyseg.config import IGNORE, Config, DataConfig
from tinyseg.data import (
    Dataset,
    InputPipeline,
    InputScale,
    Split,
    cached_scale,
    epoch_order,
    make_split,
    place_image,
    place_tiles,
)
from tinyseg.errors import DataError, RunError
from tinyseg.evaluation.score import load_samples, score
from tinyseg.inference.postprocess import Postprocess, choose
from tinyseg.inference.run import Run, load_run
from tinyseg.losses import Loss
from tinyseg.models import head_channels
from tinyseg.runs.metrics_log import MetricsLog
from tinyseg.training.optimizer import Optimizer
from tinyseg.training.phases import phases_of
from tinyseg.training.schedule import Schedule
from tinyseg.training.trainer import Say, Trainer


def train(
    data: str | Path,
    out: str | Path,
    config: Config | None = None,
    resume: bool = False,
    say: Say = print,
    pipeline: Pipeline | None = None,
) -> Run:
    """Trains on `data` (a folder or "sim:...") into the run folder `out` and returns the run.

    With `resume` the run in `out` goes on from its last checkpoint, bit for bit as if it had never
    stopped; of a `config` that is given with it only train.epochs may differ from the run's, which
    trains longer then. `pipeline` augments each training image on the host, (H, W, C) as fitted,
    with its label (H, W): it is no part of the run, so give it again to resume. Raises a
    TinysegError for anything that cannot be used, and when another process trains in `out`.
    """
    out = Path(out)
    with contextlib.ExitStack() as stack:
        if resume and (out / "run.json").exists():
            stack.enter_context(locked(out))
            run = load_run(out)
            dataset = _open_again(run, data)
            _continue_with(run, config or run.config, say)
        else:
            if resume:
                say(f"{out} holds no run yet: starting one")
            found = _prepare(data, config or Config())
            stack.enter_context(locked(out))
            run, dataset = Run.create(out, *found), found[1]
        for warning in dataset.warnings:
            say(f"warning: {warning}")
        trainer = Trainer(run, dataset, say, pipeline)
        for remark in dataset.store.remarks():
            if remark not in dataset.warnings:  # the disk was full only when images were fitted
                say(f"warning: {remark}")
        trainer.run_all()
        if run.config.train.postprocess == "auto":
            _choose_postprocess(run, dataset, say)
    return run


def _prepare(data: str | Path, config: Config) -> tuple[Config, Dataset, Split, InputScale | None]:
    """All that a new run folder holds."""
    with Progress(f"reading {data}") as progress:
        dataset = Dataset(data, config.data, progress=progress.update)
    split = make_split(dataset, config.data)
    _check(config, _squares(config.data, dataset, split.train), dataset.classes)
    _check_images(config.data, dataset, split)
    return config, dataset, split, cached_scale(dataset, split.train, config.data)


def _continue_with(run: Run, config: Config, say: Say) -> None:
    """Gives a run another number of epochs; RunError for any other changed setting."""
    changes = run.config.differences(config)
    before, after = changes.pop("train.epochs", (0, 0))
    if changes:
        named = ", ".join(f"{key}={new!r} (was {old!r})" for key, (old, new) in changes.items())
        raise RunError(
            f"{run.folder}: a resumed run keeps its settings but train.epochs; {named}: leave "
            "that away, or start a new run with another --out"
        )
    if not after:
        return
    if run.config.train.phases:
        raise RunError(f"{run.folder}: train.epochs={after} has no effect with train.phases")
    done, step = run.position()
    if after < done:
        raise RunError(f"{run.folder}: train.epochs={after}, but {done} epochs are trained already")
    schedule = Schedule(config.train.schedule)
    then, now = (schedule.factor(1000 * done, 1000 * epochs) for epochs in (before, after))
    say(
        f"train.epochs is now {after} (was {before}): after epoch {done} the schedule "
        f"{schedule.text} goes on at {now:.3f} of the learning rate (was {then:.3f}), so it is not "
        f"the same as {after} epochs in one go"
    )
    MetricsLog(run.log).write("epochs", step, before=before, after=after)
    run.set_config(config)


def _choose_postprocess(run: Run, dataset: Dataset, say: Say) -> None:
    """Keeps in the run what helps the best checkpoint on the validation images."""
    names, classes = run.split.val, run.facts.classes

    def pairs() -> Iterator[tuple[Array, Array]]:
        with Progress("post-processing", len(names)) as progress:
            samples = load_samples(dataset, names)
            scored = score(run.predictor, samples, classes, run.threshold)
            for count, one in enumerate(scored, start=1):
                yield one.mask, one.label
                progress.update(count)

    text, before, after = choose(pairs(), classes)
    run.update_facts(postprocess=text)
    told = f"validation Dice {before:.4f}, with the best {after:.4f}"
    say(f"post-processing: {text or 'none helps'} ({told})")


def _check(config: Config, images: int, classes: int) -> None:
    """What cannot work is said before the run folder is made."""
    epoch_order(images, config.train.batch_size, config.train.seed, 0)
    channels = head_channels(config.model, classes)
    for phase in phases_of(config.train):
        Loss.parse(phase.loss, channels)
    Augmentation(config.train.augment)
    InputPipeline(config.data, None)
    Optimizer(config.train.optimizer, {})
    Schedule(config.train.schedule)
    if config.train.postprocess != "auto":
        Postprocess(config.train.postprocess)


def _squares(config: DataConfig, dataset: Dataset, names: Sequence[str]) -> int:
    """How many training samples these images are: with windows, more than images."""
    if config.fit != "tile":
        return len(names)
    sizes = (dataset.size(dataset.index(name)) for name in names)
    return sum(len(place_tiles(*size, config.size, config.fit, 0.0)) for size in sizes)


def _check_images(config: DataConfig, dataset: Dataset, split: Split) -> None:
    """Every image must fit, and the validation must have something to find."""
    found = False
    for name in (*split.train, *split.val):
        index = dataset.index(name)
        try:
            place_image(*dataset.size(index), config.size, config.fit)
        except DataError as error:
            files = dataset[index].files
            raise DataError(f"{files[0] if files else name}: {error}") from None
        if not found and name in split.val:
            found = not dataset.class_pixels(index).keys() <= {0, IGNORE}
    if not found:
        raise DataError(
            f"{dataset.source}: none of the {len(split.val)} validation images has foreground, so "
            "no epoch could be called the best; set another data.split_seed or a larger "
            "data.val_fraction"
        )


def _open_again(run: Run, data: str | Path) -> Dataset:
    facts, dataset = run.facts, run.open(data)
    if dataset.fingerprint() != facts.fingerprint:
        raise RunError(
            f"{data} is not the data that {run.folder} was started on ({facts.source}, "
            f"{facts.fingerprint}); restore it, or start a new run with another --out"
        )
    return dataset
