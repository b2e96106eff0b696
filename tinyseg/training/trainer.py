"""The training loop: phases, epochs, steps, validation, checkpoints, from top to bottom."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinyseg.augment import Pipeline, on_host
from tinyseg.common.arrays import Array
from tinyseg.common.files import remove_stale
from tinyseg.common.progress import Progress, duration
from tinyseg.data import (
    Dataset,
    InputStatistics,
    PreparedImages,
    Tile,
    epoch_order,
    image_moments,
    prepare_images,
)
from tinyseg.device.choose import backend
from tinyseg.device.tensors import to_device
from tinyseg.drawing.pictures import legend_of, row, save_grid
from tinyseg.errors import NonFiniteError
from tinyseg.evaluation.score import load_samples, score
from tinyseg.inference.run import Run
from tinyseg.inference.step import PredictStep
from tinyseg.metrics.best_threshold import find_thresholds, to_facts
from tinyseg.metrics.summary import Summary, foreground_mean, summarize
from tinyseg.metrics.threshold_curves import HALF, Histograms
from tinyseg.runs import checkpoint
from tinyseg.runs.metrics_log import MetricsLog
from tinyseg.training import position
from tinyseg.training.nan_report import nan_report
from tinyseg.training.own_parts import OwnParts
from tinyseg.training.phases import Phase, phases_of
from tinyseg.training.position import Position
from tinyseg.training.schedule import Schedule
from tinyseg.training.state import TrainState
from tinyseg.training.step import EpochMeans, Measurements, TrainStep
from tinyseg.weights import load_weights

Say = Callable[[str], None]
Callback = Callable[[dict[str, Any]], bool | None]
"""Called after each epoch with its numbers; True stops the run."""
NONE = OwnParts()
Result = TypeVar("Result")

SHOWN = 6
"""Validation images in the picture of the best epoch."""


@dataclass(frozen=True)
class Validation:
    """The results of one pass over the validation images."""

    summary: Summary
    histograms: Histograms
    pictures: list[list[Array]]
    """A row of pictures for each of the first few images."""


class Trainer:
    """Trains the network of a run: runs its phases, validates, logs and saves."""

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        say: Say = print,
        parts: OwnParts = NONE,
        callbacks: Sequence[Callback] = (),
    ):
        self.run, self.dataset, self.say = run, dataset, say
        self.parts, self.callbacks, self.stopped = parts, callbacks, False
        self.config, self.log, self.at = run.config.train, MetricsLog(run.log), Position()
        self._saved = False
        """Whether this process has written the last checkpoint."""
        self.phases = phases_of(self.config)
        self.epochs = sum(phase.epochs for phase in self.phases)
        model = run.build()
        if not checkpoint.any_in(run.checkpoints):  # else its weights are loaded below
            load_weights(model, run.config.model, say)
        self.state = TrainState(
            model,
            self.phases[0].loss if parts.loss is None else parts.loss,
            self.config.optimizer if parts.optimizer is None else parts.optimizer,
            self.config.augment if parts.augment is None else parts.augment,
            self.config.loss_scale,
            seed=self.config.seed,
        )
        self.schedule = Schedule(self.config.schedule)
        self.input_pipeline = run.input_pipeline
        self.images = self._prepare(run.split.train, 0.0, "preparing images")
        self.labels, self.numbers = self.images.labels, self.images.image_index
        self.steps = -(-len(self.images) // self.config.batch_size)
        if run.facts.input_statistics is None:
            run.update_facts(input_statistics=self._input_statistics())
        self.predictor = run.make_predictor(self.state.model)
        overlap = run.config.data.overlap
        self.held_out = self._prepare(run.split.val, overlap, "preparing validation images")
        self.shown = run.split.val[:SHOWN]

    # 1. The loop

    def run_all(self) -> None:
        """Train until the last epoch or an early stop; Ctrl-C leaves a run to resume."""
        self._resume()
        if self.config.precision != "float32" and backend().device == "CPU":
            self.say(
                f"train.precision={self.config.precision} is for GPUs: on this CPU a step takes "
                "longer than in float32"
            )
        first = 0
        try:
            for phase in self.phases:
                if self.at.epoch < first + phase.epochs and not self.stopped:
                    self._run_phase(phase, first)
                first += phase.epochs
        except KeyboardInterrupt:
            self.say(f"\nstopped after epoch {self.at.epoch}; continue with --resume")
            raise
        self.say(f"best validation Dice {self.at.best_dice:.4f} at epoch {self.at.best_epoch}")
        if not self.config.threshold and self.state.out_channels == 1:
            threshold = self.run.threshold
            why = "no other one is clearly better" if threshold == HALF else "the best one"
            self.say(f"threshold for predict and evaluate: {threshold:.3f} ({why} on validation)")

    def _run_phase(self, phase: Phase, first: int) -> None:
        step = self._enter(phase, first)
        for epoch in range(self.at.epoch, first + phase.epochs):
            if self.config.early_stopping and self.at.waited >= self.config.early_stopping:
                self.say(
                    f"stopped early: validation Dice has not improved for {self.at.waited} epochs"
                )
                break
            start = time.perf_counter()
            means = self._train_epoch(step, epoch, (epoch - first) * self.steps, phase)
            seconds = time.perf_counter() - start
            self._check_finite(epoch + 1)
            self._finish_epoch(epoch + 1, means, self._validate(), seconds)
            if self.stopped:
                self.say(f"a callback stopped the run after epoch {epoch + 1}; it can be resumed")
                return
        self.at.epoch = first + phase.epochs

    def _enter(self, phase: Phase, first: int) -> TrainStep:
        """Return the step of a phase; a later one begins a new schedule, perhaps from the best."""
        if first and self.at.epoch == first:
            if phase.from_best:
                best = self.run.checkpoints / "best.safetensors"
                self.state.load(checkpoint.load(best)[0], str(best))
            self.state = self.state.with_loss(phase.loss)
            self.schedule, self.at.waited = Schedule(self.config.schedule), 0
            origin = f" from the best (epoch {self.at.best_epoch})" if phase.from_best else ""
            self.say(f"epoch {first}: the loss is now {phase.loss}{origin}")
            # counted with the first step of the phase, which a resumed run may write again
            self.log.write(
                "phase",
                self.at.step + 1,
                loss=phase.loss,
                from_best=phase.from_best,
                optimizer_state="from the best" if phase.from_best else "kept",
            )
        return TrainStep(self.state, grad_clip=self.config.grad_clip)

    def _train_epoch(
        self, step: TrainStep, epoch: int, done: int, phase: Phase
    ) -> dict[str, float]:
        """Pass over the images once; return the mean of each measurement."""
        order = epoch_order(len(self.images), self.config.batch_size, self.config.seed, epoch)
        measured = EpochMeans()
        title, before = f"epoch {epoch + 1}/{self.epochs}", epoch * self.steps
        with Progress(title, self.epochs * self.steps, before) as progress:
            for count, indices in enumerate(order):
                factor = self.schedule.factor(done + count, phase.epochs * self.steps)
                step.learning_rate = self.state.optimizer.learning_rate * factor
                loss = measured.add(self._train_batch(step, indices, progress))["loss"]
                note = f"loss {loss:.4f} dice {self.at.dice:.3f}"
                progress.update(before + count + 1, note=note)
        return measured.means()

    def _train_batch(self, step: TrainStep, indices: Array, outer: Progress) -> Measurements:
        tiles, labels = [self.images[index] for index in indices], self.labels[indices]
        if self.parts.pipeline is not None:
            tiles, labels = self._on_host(self.parts.pipeline, tiles, labels)
        image, label = to_device(self.input_pipeline.to_batch(tiles)), to_device(labels)
        if step.compiled:
            measured = step(image, label)
        else:
            measured = self._compiling("training", step, lambda: step(image, label))
            outer.restart()
        values = measured.numbers()
        if fault := step.fault(values):
            names = [self.run.split.train[self.numbers[index]] for index in indices]
            raise nan_report(self.run.folder, step, self.at.step + 1, fault, image, label, names)
        self.at.step += 1
        self.log.write("step", self.at.step, learning_rate=step.learning_rate, **values)
        return measured

    def _on_host(
        self, pipeline: Pipeline, tiles: list[Tile], labels: Array
    ) -> tuple[list[Tile], Array]:
        seeds = np.random.SeedSequence([self.config.seed, self.at.step]).generate_state(len(tiles))
        new_tiles, new_labels = [], []
        for tile, label, seed in zip(tiles, labels, seeds, strict=True):
            pixels, new_label = on_host(
                pipeline, tile.pixels, label, self.run.facts.classes, int(seed)
            )
            new_tiles.append(replace(tile, pixels=pixels))
            new_labels.append(new_label)
        return new_tiles, np.stack(new_labels)

    def _check_finite(self, epoch: int) -> None:
        """Raise NonFiniteError for weights that overflowed: they are never saved."""
        for name, array in self.state.arrays().items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise NonFiniteError(
                    f"epoch {epoch}: {name} is not finite after an update; the checkpoint of the "
                    "epoch before is whole; start a new run with a lower learning rate, or "
                    "train.grad_clip=1"
                )

    # 2. Validation: whole images, by the same path as `predict`

    def _validate(self) -> Validation:
        """Score the validation images at one threshold and at all of them, in one pass."""
        names, classes = self.run.split.val, self.run.facts.classes
        samples, threshold = load_samples(self.dataset, names), self.config.threshold or HALF
        scores, pictures, histograms = [], [], Histograms()
        with Progress("validation", len(names)) as progress:
            for one in score(self._probabilities, samples, classes, threshold):
                histograms.add(one.probability, one.label)
                scores.append(one.scores)
                if one.sample.name in self.shown:
                    parts = (one.sample.image, one.label, one.probability, one.mask)
                    pictures.append(row(*parts, classes))
                progress.update(len(scores))
        return Validation(summarize(scores), histograms, pictures)

    def _probabilities(self, images: Iterable[Array]) -> Iterator[Array]:
        """Yield those of the validation images; the first one may have to compile the step."""
        probabilities = self.predictor.from_tiles(self.held_out.images())(images)
        if not self.predictor.step.compiled:
            yield self._compiling("validation", self.predictor.step, lambda: next(probabilities))
        yield from probabilities

    def _compiling(
        self, what: str, step: TrainStep | PredictStep, call: Callable[[], Result]
    ) -> Result:
        with Progress(f"compiling the {what} step") as progress:
            result = call()
            seconds = progress.seconds
        self.say(f"compiled the {what} step in {duration(seconds)}")
        self.log.write(
            "compile",
            self.at.step,
            what=what,
            seconds=round(seconds, 3),
            origin=step.origin,
            plain=step.plain,
        )
        return result

    # 3. After an epoch

    def _finish_epoch(
        self, epoch: int, means: dict[str, float], validation: Validation, seconds: float
    ) -> None:
        dice, iou = (foreground_mean(validation.summary.pooled[name]) for name in ("dice", "iou"))
        improved = self.at.update(epoch, dice)
        if self.schedule.observe(self.at.dice):
            self.say(f"plateau: the learning rate is now x {self.schedule.scale:g}")
        train = {**means, "seconds": round(seconds, 3)}
        thresholds = find_thresholds(validation.histograms, resample=improved)
        val = validation.summary.to_dict() | {"thresholds": [one.to_dict() for one in thresholds]}
        record = {"epoch": epoch, "train": train, "val": val}
        self.log.write("epoch", self.at.step, **record)
        self.say(
            f"epoch {epoch:3}/{self.epochs}  loss {means['loss']:.4f}  "
            f"train Dice {means['train_dice']:.3f}  val Dice {dice:.4f} IoU {iou:.4f}"
            f"{'  best' if improved else ''}  {seconds:.1f} s"
        )
        self._save(improved, to_facts(validation.histograms, thresholds), validation.pictures)
        answers = [callback({**record, "step": self.at.step}) for callback in self.callbacks]
        self.stopped = any(answer is True for answer in answers)

    def _save(
        self, improved: bool, thresholds: dict[str, Any], pictures: list[list[Array]]
    ) -> None:
        folder = self.run.checkpoints
        facts = position.to_facts(self.at, self.schedule, thresholds)
        last = folder / "last.safetensors"
        checkpoint.rotate(folder, whole=self._saved)
        checkpoint.save(last, self.state.arrays(), facts)
        self._saved = True
        # after the last one: killed here, a resumed run makes the best again from it
        if improved:
            checkpoint.share(last, folder / "best.safetensors")
            self._save_pictures(pictures)

    def _save_pictures(self, pictures: list[list[Array]]) -> None:
        legend = legend_of(self.dataset.class_names)
        save_grid(self.run.samples / "best.png", pictures, self.shown, legend=legend)

    def _resume(self) -> None:
        """Go on from the last whole checkpoint, if any; remove what a killed process left half."""
        remove_stale(self.run.folder)
        if not checkpoint.any_in(self.run.checkpoints):
            self.log.cut_after(0)
            return
        arrays, facts, path = checkpoint.load_latest(self.run.checkpoints)
        self.at, self.schedule = position.from_facts(facts, path)
        if self.parts.loss is None:
            self.state = self.state.with_loss(self._loss_at(self.at.epoch))
        self.state.load(arrays, str(path))
        self.log.cut_after(self.at.step)
        if self.at.best_epoch == self.at.epoch:  # both may be of an earlier epoch after a kill
            checkpoint.share(path, self.run.checkpoints / "best.safetensors")
            if not _is_newer(self.run.samples / "best.png", path):
                self._save_pictures(self._validate().pictures)
        self.say(f"resumed after epoch {self.at.epoch} from {path}")

    def _loss_at(self, epoch: int) -> str:
        """Return the loss of the phase that this epoch (from 1) belongs to."""
        ends = accumulate(phase.epochs for phase in self.phases)
        return next((p.loss for p, end in zip(self.phases, ends, strict=True) if epoch <= end))

    def _prepare(self, names: Sequence[str], overlap: float, title: str) -> PreparedImages:
        """Return the tiles and labels of these images."""
        with Progress(title, len(names)) as progress:
            return prepare_images(
                self.dataset, names, self.input_pipeline, overlap, progress.update
            )

    def _input_statistics(self) -> InputStatistics:
        """Return the statistics of the training images as network input."""
        return InputStatistics.of(
            np.concatenate([image_moments(self.input_pipeline.to_batch([i])) for i in self.images])
        )


def _is_newer(file: Path, other: Path) -> bool:
    """Whether a file is there and was written after another."""
    return file.exists() and file.stat().st_mtime_ns >= other.stat().st_mtime_ns
