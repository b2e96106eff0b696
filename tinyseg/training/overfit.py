"""The memorization test: can the network learn a handful of images at all?"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

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
from tinyseg.evaluation.score import label_of, score
from tinyseg.inference.predictor import Predictor
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.models import build
from tinyseg.training.nan_report import first_not_finite
from tinyseg.training.state import AnyLoss
from tinyseg.training.step import TrainStep
from tinyseg.weights import load_weights

PASS_DICE = 0.9
"""Every single image must reach it; a mean would hide that only one was learned."""
SCORE_EVERY = 25


@dataclass(frozen=True)
class Overfit:
    """The result: the Dice of each image when all had passed, or after the last step."""

    names: tuple[str, ...]
    dice: tuple[float, ...]
    steps: int
    loss: float

    @property
    def passed(self) -> bool:
        """Whether every image reached PASS_DICE."""
        return min(self.dice) >= PASS_DICE

    def table(self) -> str:
        """Return a line for each image, then PASS or FAIL."""
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
    data: str | Path | Dataset | tuple[Any, Any],
    images: int = 4,
    *,
    config: Config | None = None,
    steps: int = 400,
    model: Any = None,
    loss: AnyLoss | None = None,
    jit: bool = True,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Overfit:
    """Train on a few images with foreground, all in one batch, and score the same images.

    No augmentation, no dropout, a constant learning rate. Dice is that of the foreground at the
    training size.

    Args:
        data: What `train` takes.
        images: How many images; each must reach a Dice of 0.9.
        config: The settings; `settings` by keyword (`size=256`, `loss="dice"`) change it.
        steps: At most so many steps, at least 1; fewer when all images have passed.
        model: Your own network, as in `train`; it is changed.
        loss: A text, or your own function, as in `train`.
        jit: Whether the step is compiled as a whole.
        say: Gets each line that is printed.

    Raises:
        DataError: The data cannot be used, or too few images have foreground.
        NonFiniteError: The loss or its gradient is NaN or infinite.
    """
    if steps < 1:
        raise DataError(f"--steps {steps}: give at least 1")
    config = (config or Config()).with_settings(**settings, dropout=0.0)
    few = _FewImages(data, images, config, model, loss, jit)
    with Progress("compiling the training step") as progress:
        first = few.train()
        say(f"compiled the training step in {duration(progress.seconds)}")
    each_loss = chain([first], (few.train() for _ in count()))
    for losses in memorize(each_loss, steps, SCORE_EVERY, len(few.names)):
        result = Overfit(few.names, few.dice(), len(losses), losses[-1])
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


class _FewImages:
    """A few images as one batch, and a fresh network that is trained on them."""

    def __init__(
        self, data: Any, images: int, config: Config, model: Any, loss: AnyLoss | None, jit: bool
    ):
        with Progress("reading the images") as progress:
            dataset = Dataset(data, config.data, progress=progress.update)
        size, fit, train = config.data.size, config.data.fit, config.train
        chosen = [dataset[i] for i in with_foreground(dataset, images, size, fit)]
        scale = find_scale(config.data, [one.image for one in chosen], dataset.channels)
        pipeline = InputPipeline(config.data, scale)
        whole = place_image(size, size, size, fit)  # scored at the training size
        self.tiles = [replace(pipeline.tile(one.image), placement=whole) for one in chosen]
        self.samples = [
            Sample(one.name, tile.pixels, prepare_label(label_of(one), size, fit))
            for one, tile in zip(chosen, self.tiles, strict=True)
        ]
        self.names = tuple(one.name for one in chosen)
        if model is None:
            shape = (dataset.channels, dataset.classes)
            model = build(config.model, *shape, train.seed, train.precision)
        load_weights(model, config.model)
        self.step = TrainStep(
            model,
            train.loss if loss is None else loss,
            train.optimizer,
            grad_clip=train.grad_clip,
            loss_scale=train.loss_scale,
            jit=jit,
        )
        self.predictor = Predictor(model, pipeline, batch=len(chosen), jit=jit)
        self.image = to_device(pipeline.to_batch(self.tiles))
        self.label = to_device(np.stack([label_of(sample) for sample in self.samples]))
        self.classes, self.threshold, self.steps = dataset.classes, train.threshold or HALF, 0

    def train(self) -> float:
        """Train for one step and return the loss."""
        self.steps += 1
        values = self.step(self.image, self.label).numbers()
        if fault := self.step.fault(values):
            where = first_not_finite(self.step, self.image, self.label, self.names)
            raise NonFiniteError(f"step {self.steps}: {fault}; first in {where}")
        return values["loss"]

    def dice(self) -> tuple[float, ...]:
        """Return the Dice of each image."""
        predict = self.predictor.from_tiles([tile] for tile in self.tiles)
        scored = score(predict, self.samples, self.classes, self.threshold)
        return tuple(one.dice for one in scored)
