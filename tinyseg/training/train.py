"""Train: from a folder of images to a finished run."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
from tinyseg.inference.run import Run
from tinyseg.losses import Loss
from tinyseg.metrics.baselines import constant_dice
from tinyseg.models import head_channels
from tinyseg.runs.metrics_log import MetricsLog
from tinyseg.training.optimizer import Optimizer
from tinyseg.training.own_parts import OwnParts, separate
from tinyseg.training.phases import phases_of
from tinyseg.training.schedule import Schedule
from tinyseg.training.state import AnyAugment, AnyLoss, AnyOptimizer
from tinyseg.training.trainer import Callback, Say, Trainer
from tinyseg.weights import check_weights

Data = str | Path | Dataset | tuple[Any, Any]
"""A folder, a text such as "sim:cells?n=64", a `Dataset`, or (images, masks) arrays."""


def train(
    data: Data,
    out: str | Path,
    *,
    config: Config | None = None,
    model: Any = None,
    loss: AnyLoss | None = None,
    optimizer: AnyOptimizer = None,
    augment: AnyAugment | None = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    say: Say = print,
    pipeline: Pipeline | None = None,
    **settings: Any,
) -> Run:
    """Train a network on images and masks, and return the run, with `.scores` and `.predict()`.

        run = tinyseg.train("cells/", "runs/first", epochs=20, size=256, augment="medium")

    Args:
        data: A folder of images and masks, a text such as "sim:cells?n=64", a `Dataset`, or
            (images, masks): arrays or lists of arrays, see `Dataset.from_arrays`.
        out: The run folder; it must be new, or empty.
        config: The settings; without, a Dataset's own for the data and the defaults.
        model: Your own network, called as `model(x)` or `model(x, training)`: images
            (B, C, H, W) to logits (B, K, H, W), K = 1 (sigmoid) or the number of classes (softmax).
        loss: A text such as "0.5*bce+0.5*dice", a function (logits, label) -> scalar Tensor, or a
            list of weights and these: `[(0.5, "bce"), (0.5, function)]`.
        optimizer: A text such as "adam(lr=0.001)", one of tinygrad.nn.optim made with the
            parameters of `model`, or a function of the list of parameters that returns one.
        augment: A text such as "flip+rotate" or "medium", or a function
            (image, label) -> (image, label) of a batch of Tensors.
        callbacks: Functions of a dict, called after each epoch with "epoch", "step", "train" and
            "val"; one that returns True stops the run, which can be resumed.
        resume: Go on from the last checkpoint in `out`, bit for bit as if the run had never
            stopped. Only `epochs` may be another. Your own parts must be passed again.
        say: Gets each line that is printed.
        pipeline: A function (image, label) -> (image, label) of NumPy arrays (H, W, C) and (H, W)
            that augments each training image before it goes to the device.
        settings: Settings by name, as in config.toml: `epochs=20`, `batch_size=8`.

    Raises:
        TinysegError: Something cannot be used, or another process trains in `out`.
    """
    out = Path(out)
    parts, texts = separate(
        model=model, loss=loss, optimizer=optimizer, augment=augment, pipeline=pipeline
    )
    settings |= texts
    with contextlib.ExitStack() as stack:
        if resume and (out / "run.json").exists():
            stack.enter_context(locked(out))
            run, dataset = _open_again(data, out, parts)
            config = (config or run.config).with_settings(**settings)
            _continue_with(run, parts.configure(config, dataset), say)
        else:
            if resume:
                say(f"{out} contains no run yet: starting one")
            if config is None and isinstance(data, Dataset):
                config = Config(data=data.config)
            start = _prepare(data, (config or Config()).with_settings(**settings), parts)
            stack.enter_context(locked(out))
            run, dataset = Run.create(out, *start, custom=parts.names), start[1]
            run.model = parts.model
        _run(run, dataset, parts, callbacks, say)
    return run


def _run(
    run: Run, dataset: Dataset, parts: OwnParts, callbacks: Sequence[Callback], say: Say
) -> None:
    if dataset.layout:
        say(f"data: {dataset.layout}")
    for warning in dataset.warnings:
        say(f"warning: {warning}")
    trainer = Trainer(run, dataset, say, parts, callbacks)
    for remark in dataset.store.warnings():
        if remark not in dataset.warnings:  # the disk was full only when images were prepared
            say(f"warning: {remark}")
    trainer.run_all()
    best, trivial = trainer.at.best_dice, constant_dice(trainer.held_out.labels, dataset.classes)
    if 0 <= best <= trivial:
        say(
            f"validation Dice {best:.3f} is not better than one class everywhere ({trivial:.3f}): "
            f"`tinyseg doctor {dataset.source} --run {run.folder}` finds out why"
        )
    if run.config.train.postprocess == "auto":
        _choose_postprocess(run, dataset, say)


def _prepare(
    data: Data, config: Config, parts: OwnParts
) -> tuple[Config, Dataset, Split, InputScale | None]:
    """Return all that a new run folder holds; what cannot work is an error now."""
    if isinstance(data, Dataset) and data.config == config.data:
        dataset = data
    else:
        with Progress("reading the images") as progress:
            dataset = Dataset(data, config.data, progress=progress.update)
    config = parts.configure(config, dataset)
    split = make_split(dataset, config.data)
    _check(config, _count_tiles(config.data, dataset, split.train), dataset.classes)
    check_weights(parts.model, config.model, dataset.channels, dataset.classes)
    _check_images(config.data, dataset, split)
    return config, dataset, split, cached_scale(dataset, split.train, config.data)


def _continue_with(run: Run, config: Config, say: Say) -> None:
    """Give a run another number of epochs; RunError for any other changed setting."""
    changes = run.config.differences(config)
    before, after = changes.pop("train.epochs", (0, 0))
    if changes:
        named = ", ".join(f"{key}={new!r} (was {old!r})" for key, (old, new) in changes.items())
        raise RunError(
            f"{run.folder}: a resumed run keeps all settings except train.epochs; {named}: omit "
            "that, or start a new run with another --out"
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
    """Keep in the run what helps the best checkpoint on the validation images."""
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
    gain = f"validation Dice {before:.4f}, with the best {after:.4f}"
    say(f"post-processing: {text or 'none helps'} ({gain})")


def _check(config: Config, images: int, classes: int) -> None:
    """Raise an error for settings that cannot work, before the run folder is made."""
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


def _count_tiles(config: DataConfig, dataset: Dataset, names: Sequence[str]) -> int:
    """Return how many training samples these images are: tiles may be more than images."""
    if config.fit != "tile":
        return len(names)
    sizes = (dataset.size(dataset.index(name)) for name in names)
    return sum(len(place_tiles(*size, config.size, config.fit, 0.0)) for size in sizes)


def _check_images(config: DataConfig, dataset: Dataset, split: Split) -> None:
    """Raise DataError for an image that does not fit, or a validation part without foreground."""
    foreground = False
    for name in (*split.train, *split.val):
        index = dataset.index(name)
        try:
            place_image(*dataset.size(index), config.size, config.fit)
        except DataError as error:
            files = dataset[index].files
            raise DataError(f"{files[0] if files else name}: {error}") from None
        if not foreground and name in split.val:
            foreground = not dataset.class_pixels(index).keys() <= {0, IGNORE}
    if not foreground:
        raise DataError(
            f"{dataset.source}: none of the {len(split.val)} validation images has foreground, so "
            "no epoch could be called the best; set another data.split_seed or a larger "
            "data.val_fraction"
        )


def _open_again(data: Data, out: Path, parts: OwnParts) -> tuple[Run, Dataset]:
    """Return a run and its data; RunError when it was started with other data or parts."""
    run = Run.load(out)
    parts.check_resumed(run)
    run.model = parts.model
    facts, dataset = run.facts, run.open(data)
    if dataset.fingerprint() != facts.fingerprint:
        raise RunError(
            f"{dataset.source} is not the data that {run.folder} was started on ({facts.source}, "
            f"{facts.fingerprint}); restore it, or start a new run with another --out"
        )
    return run, dataset
