"""The memorization test: can the network learn a handful of images? If not, it learns nothing."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path

import numpy as np

from tinyseg.common.progress import Progress, duration
from tinyseg.config import Config
from tinyseg.data import (
    Dataset,
    InputPipeline,
    Sample,
    find_scale,
    place_image,
    prepare_label,
    with_foreground,
)
from tinyseg.device.tensors import to_device
from tinyseg.errors import DataError, NonFiniteError
from tinyseg.evaluation.score import score
from tinyseg.inference.predictor import Predictor
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.models import build
from tinyseg.training.nan_report import first_not_finite
from tinyseg.training.step import TrainStep

PASS_DICE = 0.9
"""Every single image must reach it; a mean would hide that only one was learned."""
CHECK_EVERY = 25


@dataclass(frozen=True)
class Overfit:
    """The verdict: each image's Dice after the budget, or as soon as all had passed."""

    names: tuple[str, ...]
    dice: tuple[float, ...]
    steps: int
    loss: float

    @property
    def passed(self) -> bool:
        """Whether every image reached PASS_DICE."""
        return min(self.dice) >= PASS_DICE

    def table(self) -> str:
        """A line for each image, then PASS or FAIL."""
        lines = [f"{'Dice':>7}  image"]
        for name, dice in zip(self.names, self.dice, strict=True):
            lines.append(f"{dice:7.4f}  {name}{'' if dice >= PASS_DICE else '   <- not learned'}")
        learned = sum(dice >= PASS_DICE for dice in self.dice)
        verdict = "PASS" if self.passed else "FAIL"
        return "\n".join(
            [
                *lines,
                f"{verdict}: {learned} of {len(self.dice)} images at Dice >= {PASS_DICE} "
                f"after {self.steps} steps, loss {self.loss:.4f}",
            ]
        )


def overfit(
    data: str | Path,
    images: int = 4,
    config: Config | None = None,
    steps: int = 400,
    jit: bool = True,
    say: Callable[[str], None] = print,
) -> Overfit:
    """Trains on `images` images with foreground, all in one batch, and scores the same images.

    No augmentation, no dropout, a constant learning rate; at most `steps` steps. Dice is that of
    the foreground at the training size.
    """
    if steps < 1:
        raise DataError(f"--steps {steps}: give at least 1")
    config = config or Config()
    config = replace(config, model=replace(config.model, dropout=0.0))
    with Progress(f"reading {data}") as progress:
        dataset = Dataset(data, config.data, progress=progress.update)
    size, fit = config.data.size, config.data.fit
    indices = with_foreground(dataset, images, size, fit)
    samples = [dataset[index] for index in indices]
    labels = [
        prepare_label(sample.label, size, fit) for sample in samples if sample.label is not None
    ]
    scale = find_scale(config.data, [sample.image for sample in samples], dataset.channels)
    pipeline = InputPipeline(config.data, scale)
    whole = place_image(size, size, size, fit)  # scored at the training size
    tiles = [replace(pipeline.tile(sample.image), placement=whole) for sample in samples]
    train, shape = config.train, (dataset.channels, dataset.classes)
    model = build(config.model, *shape, train.seed, train.precision)
    step = TrainStep(
        model,
        train.loss,
        train.optimizer,
        grad_clip=train.grad_clip,
        loss_scale=train.loss_scale,
        jit=jit,
    )
    predictor = Predictor(model, pipeline, batch=len(samples), jit=jit)
    image, label = to_device(pipeline.to_batch(tiles)), to_device(np.stack(labels))

    prepared = [
        Sample(sample.name, tile.pixels, label)
        for sample, tile, label in zip(samples, tiles, labels, strict=True)
    ]

    def each_dice() -> tuple[float, ...]:
        predict = predictor.from_tiles([tile] for tile in tiles)
        scored = score(predict, prepared, dataset.classes, train.threshold or HALF)
        return tuple(one.dice for one in scored)

    names = tuple(sample.name for sample in samples)

    def learn(number: int) -> float:
        values = step(image, label).numbers()
        if fault := step.fault(values):
            where = first_not_finite(step, image, label, names)
            raise NonFiniteError(f"step {number}: {fault}; first in {where}")
        return values["loss"]

    each_loss = (learn(number) for number in count(1))
    with Progress("compiling the training step") as compiling:
        first = next(each_loss)
        say(f"compiled the training step in {duration(compiling.seconds)}")
    for losses in memorize(chain([first], each_loss), steps, CHECK_EVERY, len(samples)):
        result = Overfit(names, each_dice(), len(losses), losses[-1])
        if result.passed:
            break
    return result


def memorize(
    each_loss: Iterable[float], steps: int, every: int, images: int, deadline: float = math.inf
) -> Iterator[list[float]]:
    """Train on a few images; yield the losses so far whenever the images should be scored.

    That is after `every` so many steps and at the end: after `steps`, at the `deadline` on the
    clock of `time.monotonic`, or when a loss is not finite. Each loss that is read is one step, so
    a caller that stops early trains no more. `overfit` and the doctor share this loop.
    """
    losses = list[float]()
    with Progress(f"memorizing {images} images", steps) as progress:
        for loss in each_loss:
            losses.append(loss)
            late = time.monotonic() > deadline or not math.isfinite(loss)
            if late or len(losses) == steps:
                break
            if len(losses) % every == 0:
                yield losses
            progress.update(len(losses), note=f"loss {loss:.3g}")
        yield losses
