"""The training loop: a page that reads from top to bottom."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinyseg import checkpoint
from tinyseg.augment import Augmentation, Pipeline, on_host
from tinyseg.backend import Array, backend, upload
from tinyseg.config import IGNORE, Config, DataConfig
from tinyseg.data import (
    Contract,
    Dataset,
    Door,
    Fitted,
    InputScale,
    Split,
    Squares,
    box_of,
    boxes_of,
    epoch_order,
    fit_squares,
    keep_scale,
    make_split,
    moments_of,
    open_dataset,
)
from tinyseg.errors import DataError, NonFiniteError, RunError
from tinyseg.files import locked, remove_stale
from tinyseg.losses import Loss
from tinyseg.metrics import ImageScores, Summary, evaluate_image, foreground_mean, summarise
from tinyseg.models import head_channels
from tinyseg.nn import parameters, state_dict
from tinyseg.nonfinite import not_finite
from tinyseg.optim import LossScale, Optimizer, Schedule
from tinyseg.phases import Phase, phases_of
from tinyseg.pictures import legend_of, row, save_grid
from tinyseg.postprocess import Postprocess, choose
from tinyseg.predict import to_classes
from tinyseg.progress import Progress, duration
from tinyseg.run import Run, assign, load_run
from tinyseg.step import EpochMeans, Measurements, PredictStep, TrainStep
from tinyseg.thresholds import HALF, Histograms, find, matrix_at, to_facts
from tinyseg.track import Log

Say = Callable[[str], None]
Result = TypeVar("Result")

SHOWN = 6
"""Validation images in the picture of the best epoch."""


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
        dataset = open_dataset(data, config.data, progress=progress.update)
    split = make_split(dataset, config.data)
    _check(config, _squares(config.data, dataset, split.train), dataset.classes)
    _check_images(config.data, dataset, split)
    return config, dataset, split, keep_scale(dataset, split.train, config.data)


def _continue_with(run: Run, config: Config, say: Say) -> None:
    """Gives a run another number of epochs; RunError for any other changed setting."""
    changes = run.config.changes(config)
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
    Log(run.log).write("epochs", step, before=before, after=after)
    run.set_config(config)


def _choose_postprocess(run: Run, dataset: Dataset, say: Say) -> None:
    """Keeps in the run what helps the best checkpoint on the validation images."""
    samples = [dataset.load(dataset.index(name)) for name in run.split.val]

    def pairs() -> Iterator[tuple[Array, Array]]:
        with Progress("post-processing", len(samples)) as progress:
            found = run.predictor(sample.image for sample in samples)
            for count, (p_khw, sample) in enumerate(zip(found, samples, strict=True), start=1):
                assert sample.label is not None
                yield to_classes(p_khw, run.threshold), sample.label
                progress.update(count)

    text, before, after = choose(pairs(), run.facts.classes)
    run.remember(postprocess=text)
    told = f"validation Dice {before:.4f}, with the best {after:.4f}"
    say(f"post-processing: {text or 'none helps'} ({told})")


def _check(config: Config, images: int, classes: int) -> None:
    """What cannot work is said before the run folder is made."""
    epoch_order(images, config.train.batch, config.train.seed, 0)
    channels = head_channels(config.model, classes)
    for phase in phases_of(config.train):
        Loss.parse(phase.loss, channels)
    Augmentation(config.train.augment)
    Door(config.data, None)
    Optimizer(config.train.optimizer, {})
    Schedule(config.train.schedule)
    if config.train.postprocess != "auto":
        Postprocess(config.train.postprocess)


def _squares(config: DataConfig, dataset: Dataset, names: Sequence[str]) -> int:
    """How many training samples these images are: with windows, more than images."""
    if config.fit != "window":
        return len(names)
    sizes = (dataset.size(dataset.index(name)) for name in names)
    return sum(len(boxes_of(*size, config.size, config.fit, 0.0)) for size in sizes)


def _check_images(config: DataConfig, dataset: Dataset, split: Split) -> None:
    """Every image must fit, and the validation must have something to find."""
    found = False
    for name in (*split.train, *split.val):
        index = dataset.index(name)
        try:
            box_of(*dataset.size(index), config.size, config.fit)
        except DataError as error:
            files = dataset.load(index).files
            raise DataError(f"{files[0] if files else name}: {error}") from None
        if not found and name in split.val:
            found = not dataset.class_pixels(index).keys() <= {0, IGNORE}
    if not found:
        raise DataError(
            f"{dataset.source}: none of the {len(split.val)} validation images has foreground, so "
            "no epoch could be called the best; set another data.split_seed or raise data.val"
        )


def _open_again(run: Run, data: str | Path) -> Dataset:
    facts, dataset = run.facts, run.open(data)
    if dataset.fingerprint() != facts.fingerprint:
        raise RunError(
            f"{data} is not the data that {run.folder} was started on ({facts.source}, "
            f"{facts.fingerprint}); restore it, or start a new run with another --out"
        )
    return dataset


@dataclass
class Position:
    """Where a run stands; with the tensors, all that a checkpoint holds."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps completed."""
    dice: float = 0.0
    """Pooled validation Dice of the foreground after the last epoch."""
    best_dice: float = -1.0
    best_epoch: int = 0
    waited: int = 0
    """Epochs since the best."""


def score_image(
    p_khw: Array, label: Array, counts: Array, classes: int, threshold: float
) -> ImageScores:
    """Scores at one threshold, read from the image's histograms where they tell: nothing twice."""
    matrix = matrix_at(counts[0], threshold) if len(p_khw) == 1 else None
    if matrix is not None:
        return ImageScores(matrix, {})
    return evaluate_image(to_classes(p_khw, threshold), label, classes)


@dataclass(frozen=True)
class Validation:
    """What one pass over the validation images gives."""

    summary: Summary
    histograms: Histograms
    pictures: list[list[Array]]
    """Of the first few images, a row each."""


class Trainer:
    """Runs the phases of a run over its training images, validates, logs and saves."""

    def __init__(
        self, run: Run, dataset: Dataset, say: Say = print, pipeline: Pipeline | None = None
    ):
        self.run, self.dataset, self.say, self.pipeline = run, dataset, say, pipeline
        self.config, self.log, self.at = run.config.train, Log(run.log), Position()
        self._saved = False
        """Whether the last checkpoint is by this process."""
        self.phases = phases_of(self.config)
        self.epochs = sum(phase.epochs for phase in self.phases)
        self.model = run.build()
        weights = state_dict(self.model)
        self.optimizer = Optimizer(self.config.optimizer, parameters(weights))
        self.schedule = Schedule(self.config.schedule)
        self.augment = Augmentation(self.config.augment, self.config.seed)
        self.loss_scale = LossScale(self.config.precision, self.config.loss_scale)
        self.state = {
            **{f"model.{name}": tensor for name, tensor in weights.items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.state.items()},
            **self.augment.state,
            **self.loss_scale.state,
        }
        self.door = run.door
        self.images = self._fit(run.split.train, 0.0, "fitting images")
        self.labels, self.numbers = self.images.labels, self.images.image
        self.steps = -(-len(self.images) // self.config.batch)
        if run.facts.contract is None:
            run.remember(contract=self._contract())
        self.predictor = run.make_predictor(self.model)
        overlap = run.config.data.overlap
        self.held_out = self._fit(run.split.val, overlap, "fitting validation images")
        self.shown = [self.dataset.index(name) for name in run.split.val[:SHOWN]]

    # 1. The loop

    def run_all(self) -> None:
        """Trains until the last epoch or an early stop; Ctrl-C leaves a run to resume."""
        self._resume()
        if self.config.precision != "float32" and backend().device == "CPU":
            self.say(
                f"train.precision={self.config.precision} is for GPUs: on this CPU a step takes "
                "longer than in float32"
            )
        first = 0
        try:
            for phase in self.phases:
                if self.at.epoch < first + phase.epochs:
                    self._run_phase(phase, first)
                first += phase.epochs
        except KeyboardInterrupt:
            self.say(f"\nstopped after epoch {self.at.epoch}; go on with --resume")
            raise
        self.say(f"best validation Dice {self.at.best_dice:.4f} at epoch {self.at.best_epoch}")
        if not self.config.threshold and self.model.out_channels == 1:
            self.say(f"threshold of predict and evaluate: {self.run.threshold:.3f} (validation's)")

    def _run_phase(self, phase: Phase, first: int) -> None:
        step = self._enter(phase, first)
        for epoch in range(self.at.epoch, first + phase.epochs):
            if self.config.patience and self.at.waited >= self.config.patience:
                self.say(f"stopped early: no better Dice for {self.at.waited} epochs")
                break
            start = time.perf_counter()
            means = self._train_epoch(step, epoch, (epoch - first) * self.steps, phase)
            seconds = time.perf_counter() - start
            self._check_finite(epoch + 1)
            self._finish_epoch(epoch + 1, means, self._validate(), seconds)
        self.at.epoch = first + phase.epochs

    def _enter(self, phase: Phase, first: int) -> TrainStep:
        """The step of a phase; a later phase has a fresh schedule and may start from the best."""
        if first and self.at.epoch == first:
            if phase.from_best:
                best = self.run.checkpoints / "best.safetensors"
                assign(self.state, checkpoint.load(best)[0], "", str(best))
            self.schedule, self.at.waited = Schedule(self.config.schedule), 0
            origin = f" from the best (epoch {self.at.best_epoch})" if phase.from_best else ""
            self.say(f"epoch {first}: the loss is now {phase.loss}{origin}")
            # counted with the first step of the phase, which a resumed run may write again
            told = {"loss": phase.loss, "from_best": phase.from_best}
            state = "from the best" if phase.from_best else "kept"
            self.log.write("phase", self.at.step + 1, **told, optimizer_state=state)
        loss = Loss.parse(phase.loss, self.model.out_channels)
        return TrainStep(
            self.model,
            loss,
            self.optimizer,
            self.config.clip,
            augment=self.augment,
            loss_scale=self.loss_scale,
        )

    def _train_epoch(
        self, step: TrainStep, epoch: int, done: int, phase: Phase
    ) -> dict[str, float]:
        """One pass over the images; the mean of every measurement."""
        order = epoch_order(len(self.images), self.config.batch, self.config.seed, epoch)
        measured = EpochMeans()
        title, before = f"epoch {epoch + 1}/{self.epochs}", epoch * self.steps
        with Progress(title, self.epochs * self.steps, before) as progress:
            for count, indices in enumerate(order):
                factor = self.schedule.factor(done + count, phase.epochs * self.steps)
                step.learning_rate = self.optimizer.learning_rate * factor
                loss = measured.add(self._train_batch(step, indices, progress))["loss"]
                note = f"loss {loss:.4f} dice {self.at.dice:.3f}"
                progress.update(before + count + 1, note=note)
        return measured.means()

    def _train_batch(self, step: TrainStep, indices: Array, outer: Progress) -> Measurements:
        fitted, labels = [self.images[index] for index in indices], self.labels[indices]
        if self.pipeline is not None:
            fitted, labels = self._on_host(self.pipeline, fitted, labels)
        image, label = upload(self.door.enter(fitted)), upload(labels)
        if step.compiled:
            measured = step(image, label)
        else:
            measured = self._compiling("training", step, lambda: step(image, label))
            outer.restart()
        values = measured.numbers()
        if fault := step.fault(values):
            names = [self.run.split.train[self.numbers[index]] for index in indices]
            raise not_finite(self.run.folder, step, self.at.step + 1, fault, image, label, names)
        self.at.step += 1
        self.log.write("step", self.at.step, learning_rate=step.learning_rate, **values)
        return measured

    def _on_host(
        self, pipeline: Pipeline, fitted: list[Fitted], labels: Array
    ) -> tuple[list[Fitted], Array]:
        seeds = np.random.SeedSequence([self.config.seed, self.at.step]).generate_state(len(fitted))
        classes, made = self.run.facts.classes, []
        for one, label, seed in zip(fitted, labels, seeds, strict=True):
            pixels, moved = on_host(pipeline, one.pixels, label, classes, int(seed))
            made.append((replace(one, pixels=pixels), moved))
        return [one for one, _ in made], np.stack([moved for _, moved in made])

    def _check_finite(self, epoch: int) -> None:
        """An update may overflow although the loss was finite: such weights are never saved."""
        for name, tensor in self.state.items():
            array = tensor.numpy()
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise NonFiniteError(
                    f"epoch {epoch}: {name} is not finite after an update; the checkpoint of the "
                    "epoch before is whole; start a new run with a lower learning rate, or "
                    "train.clip=1"
                )

    # 2. Validation: whole images, by the same path as `predict`

    def _validate(self) -> Validation:
        """Scores over the validation images at one threshold and at all, in one pass."""
        indices = [self.dataset.index(name) for name in self.run.split.val]
        classes, threshold = self.run.facts.classes, self.config.threshold or HALF
        probabilities = self.predictor.of_fitted(self.held_out.images())
        scores, pictures, histograms = [], [], Histograms()
        with Progress("validation", len(indices)) as progress:
            for count, index in enumerate(indices, start=1):
                p_khw = self._first_prediction(probabilities)
                sample = self.dataset.load(index)
                assert sample.label is not None
                counts = histograms.add(p_khw, sample.label)
                scores.append(score_image(p_khw, sample.label, counts, classes, threshold))
                if index in self.shown:
                    prediction = to_classes(p_khw, threshold)
                    pictures.append(row(sample.image, sample.label, p_khw, prediction, classes))
                progress.update(count)
        return Validation(summarise(scores), histograms, pictures)

    def _first_prediction(self, probabilities: Iterator[Array]) -> Array:
        if self.predictor.step.compiled:
            return next(probabilities)
        return self._compiling("validation", self.predictor.step, lambda: next(probabilities))

    def _compiling(
        self, what: str, step: TrainStep | PredictStep, call: Callable[[], Result]
    ) -> Result:
        with Progress(f"compiling the {what} step") as progress:
            result = call()
            seconds = progress.seconds
        self.say(f"compiled the {what} step in {duration(seconds)}")
        told = {"origin": step.origin, "plain": step.plain}
        self.log.write("compile", self.at.step, what=what, seconds=round(seconds, 3), **told)
        return result

    # 3. After an epoch

    def _finish_epoch(
        self, epoch: int, means: dict[str, float], found: Validation, seconds: float
    ) -> None:
        dice, iou = (foreground_mean(found.summary.pooled[name]) for name in ("dice", "iou"))
        self.at.epoch, self.at.dice = epoch, 0.0 if np.isnan(dice) else dice
        improved = self.at.dice > self.at.best_dice
        self.at.waited = 0 if improved else self.at.waited + 1
        if improved:
            self.at.best_dice, self.at.best_epoch = self.at.dice, epoch
        if self.schedule.observe(self.at.dice):
            self.say(f"plateau: the learning rate is now x {self.schedule.scale:g}")
        train = {**means, "seconds": round(seconds, 3)}
        thresholds = find(found.histograms, resample=improved)
        val = found.summary.to_dict() | {"thresholds": [one.to_dict() for one in thresholds]}
        self.log.write("epoch", self.at.step, epoch=epoch, train=train, val=val)
        self.say(
            f"epoch {epoch:3}/{self.epochs}  loss {means['loss']:.4f}  "
            f"train Dice {means['train_dice']:.3f}  val Dice {dice:.4f} IoU {iou:.4f}"
            f"{'  best' if improved else ''}  {seconds:.1f} s"
        )
        self._save(improved, to_facts(found.histograms, thresholds), found.pictures)

    def _save(
        self, improved: bool, thresholds: dict[str, Any], pictures: list[list[Array]]
    ) -> None:
        folder = self.run.checkpoints
        arrays = {name: tensor.numpy() for name, tensor in self.state.items()}
        facts = {
            "position": asdict(self.at),
            "schedule": asdict(self.schedule),
            "thresholds": thresholds,
        }
        last = folder / "last.safetensors"
        checkpoint.rotate(folder, whole=self._saved)
        checkpoint.save(last, arrays, facts)
        self._saved = True
        # after the last one: killed here, a resumed run makes the best again from it
        if improved:
            checkpoint.share(last, folder / "best.safetensors")
            names = [self.dataset.names[index] for index in self.shown]
            legend = legend_of(self.dataset.class_names)
            save_grid(self.run.samples / "best.png", pictures, names, legend=legend)

    def _resume(self) -> None:
        """Goes to the last whole checkpoint, if there is one; clears what a kill left half."""
        remove_stale(self.run.folder)
        if not checkpoint.any_in(self.run.checkpoints):
            self.log.cut_after(0)
            return
        arrays, facts, path = checkpoint.load_latest(self.run.checkpoints)
        try:
            self.at, self.schedule = Position(**facts["position"]), Schedule(**facts["schedule"])
        except (KeyError, TypeError) as error:
            raise RunError(f"{path}: not a checkpoint of a training run ({error!r})") from None
        assign(self.state, arrays, "", str(path))
        if self.at.best_epoch == self.at.epoch:
            checkpoint.share(path, self.run.checkpoints / "best.safetensors")
        self.log.cut_after(self.at.step)
        self.say(f"resumed after epoch {self.at.epoch} from {path}")

    def _fit(self, names: Sequence[str], overlap: float, title: str) -> Squares:
        """Images and labels at the network's size."""
        with Progress(title, len(names)) as progress:
            return fit_squares(self.dataset, names, self.door, overlap, progress.update)

    def _contract(self) -> Contract:
        """What the training images are like at the network's door."""
        return Contract.of(np.concatenate([moments_of(self.door.enter([i])) for i in self.images]))
