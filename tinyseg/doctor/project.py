"""What the doctor examines: the parts of a training set-up, each made once, each replaceable."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tinygrad import Tensor

from tinyseg.augment import Augmentation, Pipeline
from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE, Config
from tinyseg.data import (
    Dataset,
    InputPipeline,
    PreparedImages,
    cached_scale,
    image_moments,
    is_foreground,
    prepare_images,
)
from tinyseg.data.splits.split import Split, draw_split
from tinyseg.device.tensors import realize_weights, to_device
from tinyseg.doctor.state import State, probe
from tinyseg.inference.predictor import Predictor
from tinyseg.inference.run import Run
from tinyseg.inference.step import PredictStep
from tinyseg.losses import Function, Loss
from tinyseg.models import build, head_channels
from tinyseg.nn import state_dict
from tinyseg.training.step import TrainStep

Step = Callable[[Tensor, Tensor], Any]
Batch = tuple[Tensor, Tensor]
Seen = TypeVar("Seen")
Predict = Callable[[Iterable[Array]], Iterator[Array]]

MOST = 32
"""Training images that are looked at closely."""


class Project:
    """A data set, its settings and, where they are given, a user's own parts in place of ours.

    `model(image)` or `model(image, training)` gives logits; `step(image, label)` changes it and
    gives the loss, as a number, a Tensor, or `Measurements`; `predictor(images)` gives
    probabilities (K, H, W) of images (H, W, C); `pipeline(image, label)` augments on the host;
    `loss(logits, label)` is a scalar.
    """

    def __init__(
        self,
        data: str | Path,
        config: Config | None = None,
        run: Run | None = None,
        *,
        model: Any = None,
        step: Step | None = None,
        predictor: Predict | None = None,
        pipeline: Pipeline | None = None,
        loss: Function | None = None,
    ):
        self.source, self.run = str(data), run
        self.config = run.config if run else config or Config()
        self.pipeline = pipeline
        self._given = {"model": model, "step": step, "predictor": predictor, "loss": loss}
        self._seen: dict[Any, Any] = {}
        self._batches: list[Batch] = []
        self.foreign = any(part is not None for part in (*self._given.values(), pipeline))
        """Whether any part is the user's."""

    def once(self, experiment: Callable[["Project"], Seen]) -> Seen:
        """What an experiment shows; it is made the first time only, and fails again as it did."""
        if experiment not in self._seen:
            try:
                self._seen[experiment] = experiment(self)
            except Exception as error:  # noqa: BLE001 - it is raised below, and each time
                self._seen[experiment] = error
        if isinstance(self._seen[experiment], Exception):
            raise self._seen[experiment]
        return self._seen[experiment]  # type: ignore[no-any-return]

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While it lasts, a user's network and step may change; then they are as before."""
        state = State(self._given["step"], self._given["model"])
        first = state.save()
        try:
            yield
        finally:
            state.load(first)

    # 1. The data

    @cached_property
    def dataset(self) -> Dataset:
        """All images, as a run with these settings reads them."""
        return self.run.open(self.source) if self.run else Dataset(self.source, self.config.data)

    @cached_property
    def split(self) -> Split:
        """Which images train and which validate; a part may be empty."""
        return self.run.split if self.run else draw_split(self.dataset, self.config.data)

    @cached_property
    def names(self) -> list[str]:
        """The training images that are looked at closely, spread over all of them."""
        names = self.split.train
        return [
            names[int(place)] for place in np.linspace(0, len(names) - 1, min(len(names), MOST))
        ]

    @cached_property
    def input_pipeline(self) -> InputPipeline:
        """How training prepares its images."""
        if self.run:
            return self.run.input_pipeline
        return InputPipeline(
            self.config.data, cached_scale(self.dataset, self.split.train, self.config.data)
        )

    @cached_property
    def squares(self) -> PreparedImages:
        """The images of `names` and their labels at the network's size."""
        return prepare_images(self.dataset, self.names, self.input_pipeline)

    @cached_property
    def held(self) -> list[int]:
        """The squares with foreground; all of them where none has any."""
        found = [i for i, label in enumerate(self.squares.labels) if is_foreground(label).any()]
        return found or list(range(len(self.squares)))

    @cached_property
    def moments(self) -> Array:
        """(N, 4, C) mean, deviation, minimum and maximum of the squares at the network's door."""
        return image_moments(self.input_pipeline.to_batch(list(self.squares)))

    @cached_property
    def foreground(self) -> float:
        """The share of foreground among the pixels of the squares that are not ignored."""
        labels = self.squares.labels
        return float(is_foreground(labels).sum() / max((labels != IGNORE).sum(), 1))

    @property
    def first_bias(self) -> float:
        """The bias of a sigmoid head that says this share before it has learned anything."""
        share = min(max(self.foreground, 1e-6), 1 - 1e-6)
        return float(np.log(share / (1 - share)))

    def name_of(self, square: int) -> str:
        """The image that a square shows."""
        return self.names[int(self.squares.image[square])]

    def batch(self, squares: Sequence[int]) -> Batch:
        """Images (B, C, S, S) at the door and labels (B, S, S) of these squares, uploaded."""
        image = self.input_pipeline.to_batch([self.squares[index] for index in squares])
        return to_device(image), to_device(np.ascontiguousarray(self.squares.labels[list(squares)]))

    def members(self, number: int) -> list[int]:
        """The squares of batch `number`: those with foreground, in turn."""
        size, held = self.config.train.batch_size, self.held
        return [held[(number * size + place) % len(held)] for place in range(size)]

    def batches(self, count: int) -> list[Batch]:
        """So many batches, as unlike as there are squares; each is uploaded once."""
        for number in range(len(self._batches), count):
            self._batches.append(self.batch(self.members(number)))
        return self._batches[:count]

    # 2. The network and its step

    @property
    def knows_loss(self) -> bool:
        """Whether `loss` is what the step makes smaller: of a foreign step it must be given."""
        return isinstance(self.step, TrainStep) or self._given["loss"] is not None

    @cached_property
    def model(self) -> Any:
        """The untrained network, without dropout."""
        if self._given["model"] is not None:
            realize_weights(state_dict(self._given["model"]))
            return self._given["model"]
        if isinstance(self._given["step"], TrainStep):
            return self._given["step"].model
        shape = (self.dataset.channels, self.dataset.classes)
        quiet = replace(self.config.model, dropout=0.0)
        return build(quiet, *shape, self.config.train.seed, self.config.train.precision)

    def forward(self, image: Tensor, training: bool) -> Tensor:
        """Return the network's logits in training or evaluation mode, and leave it as it is."""
        return probe(self.model, image, training)

    @property
    def model_channels(self) -> int:
        """Channels of its logits."""
        known = getattr(self.model, "out_channels", None)
        return known or head_channels(self.config.model, self.dataset.classes)

    @cached_property
    def loss(self) -> Loss:
        """What is made smaller, as a sum of named terms."""
        if isinstance(self._given["step"], TrainStep):
            loss: Loss = self._given["step"].loss
            return loss
        if self._given["loss"] is not None:
            return Loss.of(self._given["loss"], self.model_channels)
        return Loss.parse(self.config.train.loss, self.model_channels)

    @cached_property
    def step(self) -> Any:
        """One step of training, without augmentation."""
        if self._given["step"] is not None:
            return self._given["step"]
        train = self.config.train
        return TrainStep(
            self.model,
            self.loss,
            train.optimizer,
            grad_clip=train.grad_clip,
            loss_scale=train.loss_scale,
        )

    @property
    def rate(self) -> float | None:
        """The learning rate of the next step; None where it has no such setting."""
        rate = getattr(self.step, "learning_rate", None)
        return float(rate) if isinstance(rate, int | float) else None

    @contextmanager
    def rate_kept(self) -> Iterator[None]:
        """While it lasts, the learning rate may be set; then it is as before."""
        usual = self.rate
        try:
            yield
        finally:
            if usual is not None:
                self.step.learning_rate = usual

    @cached_property
    def evaluate_step(self) -> PredictStep:
        """Probabilities (B, K, S, S) of a batch at the door, in evaluation."""
        return PredictStep(self.model)

    @cached_property
    def predictor(self) -> Predict:
        """From images to probabilities: the network in evaluation."""
        return self._given["predictor"] or Predictor(
            self.model, self.input_pipeline, self.config.train.batch_size
        )

    @cached_property
    def augment(self) -> Augmentation:
        """What a step of training does to its batch first."""
        return Augmentation(self.config.train.augment)

    @cached_property
    def state(self) -> State:
        """All that a step changes; the doctor puts it back as it was."""
        return State(self.step, self.model)
