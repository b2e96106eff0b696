"""The training setup under examination: each part is built once, and each can be the user's own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tinygrad import Tensor, nn

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
from tinyseg.device.tensors import copy_, realize_weights, restored, to_device
from tinyseg.doctor.state import State, found_in
from tinyseg.inference.predictor import Predictor
from tinyseg.inference.run import Run
from tinyseg.losses import Function, Loss
from tinyseg.models import build, head_channels
from tinyseg.nn import forward, state_dict
from tinyseg.training.step import TrainStep
from tinyseg.weights import load_weights

Step = Callable[[Tensor, Tensor], Any]
Batch = tuple[Tensor, Tensor]
Predict = Callable[[Iterable[Array]], Iterator[Array]]
Result = TypeVar("Result")
Item = TypeVar("Item")

MAX_IMAGES = 32
"""Training images that are examined closely."""


class Project:
    """A dataset and its settings, or a run, with the user's own parts in place of tinyseg's.

    `model(image)` or `model(image, training)` returns logits. `step(image, label)` trains it and
    returns the loss: a number, a Tensor or `Measurements`. `predictor(images)` returns
    probabilities (K, H, W) for images (H, W, C). `pipeline(image, label)` augments NumPy arrays.
    `loss(logits, label)` returns a scalar Tensor.
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
        self._own = {"model": model, "step": step, "predictor": predictor, "loss": loss}
        self.custom = any(part is not None for part in (*self._own.values(), pipeline))
        """Whether any part is the user's own."""
        self._results: dict[Any, Any] = {}
        self._batches: list[Batch] = []

    def once(self, experiment: Callable[["Project"], Result]) -> Result:
        """Return the result of an experiment, which runs once; an exception is raised each time."""
        if experiment not in self._results:
            try:
                self._results[experiment] = experiment(self)
            except Exception as error:  # noqa: BLE001 - it is raised below, and each time
                self._results[experiment] = error
        if isinstance(self._results[experiment], Exception):
            raise self._results[experiment]
        return self._results[experiment]  # type: ignore[no-any-return]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the user's own network and step at the end."""
        state = State(self._own["step"], self._own["model"])
        before = state.save()
        try:
            yield
        finally:
            state.load(before)

    # 1. The data

    @cached_property
    def dataset(self) -> Dataset:
        """All images, read as training reads them."""
        return self.run.open(self.source) if self.run else Dataset(self.source, self.config.data)

    @cached_property
    def split(self) -> Split:
        """The training, validation and test images; any of them may be empty."""
        return self.run.split if self.run else draw_split(self.dataset, self.config.data)

    @cached_property
    def names(self) -> list[str]:
        """The training images that are examined closely, evenly spaced over all of them."""
        return evenly_spaced(self.split.train, MAX_IMAGES)

    @cached_property
    def input_pipeline(self) -> InputPipeline:
        """The preparation of images for the network."""
        if self.run:
            return self.run.input_pipeline
        scale = cached_scale(self.dataset, self.split.train, self.config.data)
        return InputPipeline(self.config.data, scale)

    @cached_property
    def tiles(self) -> PreparedImages:
        """The images of `names` and their labels at the network's input size."""
        return prepare_images(self.dataset, self.names, self.input_pipeline)

    @cached_property
    def foreground_tiles(self) -> list[int]:
        """The indices of tiles with foreground, or of all tiles if none has any."""
        indices = [i for i, label in enumerate(self.tiles.labels) if is_foreground(label).any()]
        return indices or list(range(len(self.tiles)))

    @cached_property
    def input_moments(self) -> Array:
        """Mean, std, minimum and maximum (N, 4, C) of the tiles as network input."""
        return image_moments(self.input_pipeline.to_batch(list(self.tiles)))

    @cached_property
    def foreground_share(self) -> float:
        """The share of foreground in the labeled pixels of the tiles."""
        labels = self.tiles.labels
        return float(is_foreground(labels).sum() / max((labels != IGNORE).sum(), 1))

    @property
    def foreground_bias(self) -> float:
        """The bias at which a sigmoid head predicts this share before any training."""
        share = min(max(self.foreground_share, 1e-6), 1 - 1e-6)
        return float(np.log(share / (1 - share)))

    def name_of(self, tile: int) -> str:
        """Return the name of the image that a tile shows."""
        return self.names[int(self.tiles.image_index[tile])]

    def batch(self, tiles: Sequence[int]) -> Batch:
        """Return network input (B, C, S, S) and labels (B, S, S) of tiles, on the device."""
        image = self.input_pipeline.to_batch([self.tiles[index] for index in tiles])
        return to_device(image), to_device(np.ascontiguousarray(self.tiles.labels[list(tiles)]))

    def fill(self, tiles: Sequence[int], number: int) -> list[int]:
        """Return the tiles of batch `number` when full batches cycle through `tiles`."""
        size = self.config.train.batch_size
        return [tiles[(number * size + place) % len(tiles)] for place in range(size)]

    def batches(self, count: int) -> list[Batch]:
        """Return `count` batches of tiles with foreground, as different as the data allows."""
        for number in range(len(self._batches), count):
            self._batches.append(self.batch(self.fill(self.foreground_tiles, number)))
        return self._batches[:count]

    # 2. The network and its step

    @property
    def loss_is_known(self) -> bool:
        """Whether `loss` is what the step minimizes: with a custom step it must be passed."""
        return isinstance(self.step, TrainStep) or self.has_own_loss

    @property
    def has_own_loss(self) -> bool:
        """Whether the loss is a function of the user's; tinyseg's own are tested."""
        return self._own["loss"] is not None

    @cached_property
    def model(self) -> Any:
        """The network before training, without dropout."""
        if self._own["model"] is not None:
            realize_weights(state_dict(self._own["model"]))
            return self._own["model"]
        if isinstance(self._own["step"], TrainStep):
            return self._own["step"].model
        shape = (self.dataset.channels, self.dataset.classes)
        settings = replace(self.config.model, dropout=0.0, stochastic_depth=0.0)
        model = build(settings, *shape, self.config.train.seed, self.config.train.precision)
        load_weights(model, settings, say=lambda text: None)
        return model

    def forward(self, image: Tensor, training: bool) -> Tensor:
        """Return the logits in training or evaluation mode; running statistics stay as they are."""
        with restored(state_dict(self.model).values()):
            return forward(self.model, image, training)

    @property
    def out_channels(self) -> int:
        """The channels of the logits."""
        known = getattr(self.model, "out_channels", None)
        return known or head_channels(self.config.model, self.dataset.classes)

    @cached_property
    def loss(self) -> Loss:
        """The loss as a sum of named terms."""
        if isinstance(self._own["step"], TrainStep):
            return self._own["step"].state.loss
        if self._own["loss"] is not None:
            return Loss.of(self._own["loss"], self.out_channels)
        return Loss.parse(self.config.train.loss, self.out_channels)

    @cached_property
    def step(self) -> Any:
        """The training step, without augmentation."""
        if self._own["step"] is not None:
            return self._own["step"]
        train = self.config.train
        parts, clip = (self.model, self.loss, train.optimizer), train.grad_clip
        return TrainStep(*parts, grad_clip=clip, loss_scale=train.loss_scale)

    @cached_property
    def optimizer(self) -> Any:
        """The one optimizer of tinygrad's own in a custom step; None without one."""
        if isinstance(self.step, TrainStep):
            return None
        found = list(found_in(self.step, nn.optim.Optimizer))
        return found[0] if len(found) == 1 and hasattr(found[0], "lr") else None

    @property
    def has_rate(self) -> bool:
        """Whether the step has a learning rate as an attribute."""
        return isinstance(getattr(self.step, "learning_rate", None), int | float)

    @property
    def learning_rate(self) -> float | None:
        """The learning rate of the next step, or of its optimizer; None if neither is known."""
        if self.has_rate:
            return float(self.step.learning_rate)
        return None if self.optimizer is None else float(self.optimizer.lr.numpy().ravel()[0])

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if self.has_rate:
            self.step.learning_rate = rate
        else:
            lr = self.optimizer.lr
            copy_(lr, np.full(lr.shape, rate, np.float32))

    @contextmanager
    def restored_rate(self) -> Iterator[None]:
        """Restore the learning rate at the end."""
        before = self.learning_rate
        if self.optimizer is not None and not self.has_rate:
            self.state.kept.append(self.optimizer.lr)
        try:
            yield
        finally:
            self.state.kept.clear()
            if before is not None:
                self.learning_rate = before

    @cached_property
    def predictor(self) -> Predict:
        """The way from images to probabilities, in evaluation mode."""
        return self._own["predictor"] or self.own_predictor

    @cached_property
    def own_predictor(self) -> Predictor:
        """tinyseg's predictor of the network."""
        return Predictor(self.model, self.input_pipeline, self.config.train.batch_size)

    @cached_property
    def augmentation(self) -> Augmentation:
        """The augmentation of train.augment."""
        return Augmentation(self.config.train.augment)

    @cached_property
    def state(self) -> State:
        """Everything that a step changes."""
        return State(self.step, self.model)


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items, the first and the last among them."""
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, min(len(items), count))]
