"""The training step: a function of explicit state, image and label, compiled at its first call.

What changes from call to call enters as a Tensor. What is baked into the graph is in `_recipe`,
by which a compiled step is found on disk again.
"""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE
from tinyseg.device.choose import backend
from tinyseg.device.tensors import Tensors, finite_only, to_device
from tinyseg.errors import StepError
from tinyseg.jit.guarded import CompiledStep, GuardedJit, alter_image
from tinyseg.jit.key import describe
from tinyseg.metrics.pixel import mean_dice
from tinyseg.nn import forward, update_running_stats
from tinyseg.training.loss_scale import LossScale
from tinyseg.training.optimizer import clip, joint_norm
from tinyseg.training.state import AnyAugment, AnyLoss, AnyOptimizer, TrainState


class Measurements(dict[str, Tensor]):
    """The measurements of a step: scalar Tensors by name, all parts of one vector."""

    def __init__(self, names: Sequence[str], vector: Tensor):
        super().__init__((name, vector[index]) for index, name in enumerate(names))
        self.vector = vector

    @cached_property
    def _downloaded(self) -> Array:
        return np.asarray(self.vector.numpy())

    def numbers(self) -> dict[str, float]:
        """Return all of them as numbers, and "train_dice" of the batch, in one download.

        "train_dice" is the mean Dice of the foreground classes; nan where no pixel is labeled or
        predicted as one. Over several batches add up the `counts` instead: `metrics.mean_dice`.
        """
        numbers = dict(zip(self, map(float, self._downloaded), strict=False))
        return {**numbers, "train_dice": mean_dice(self.counts())}

    def counts(self) -> Array:
        """Return true positives, false positives and false negatives of each foreground class.

        (3, K) int64 of the prediction at probability 0.5 (or the most probable class). Counted on
        the device in float32: exact up to 16.7 million pixels.
        """
        return self._downloaded[len(self) :].reshape(3, -1).astype(np.int64)


class EpochMeans:
    """The measurements of an epoch, batch by batch."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.counts: Array = np.zeros((3, 1), np.int64)
        """True positives, false positives, false negatives of each foreground class."""

    def add(self, measured: Measurements) -> dict[str, float]:
        """Add a batch and return its numbers."""
        self.steps.append(measured.numbers())
        self.counts = self.counts + measured.counts()
        return self.steps[-1]

    def means(self) -> dict[str, float]:
        """Return the mean over batches, and "train_dice" of all their pixels, as in validation.

        Left out of the mean is what is not finite: the gradient's norm of an update left out.
        """
        table = {name: [step[name] for step in self.steps] for name in self.steps[0]}
        finite = {name: [v for v in values if np.isfinite(v)] for name, values in table.items()}
        means = {name: sum(v) / len(v) if v else np.nan for name, v in finite.items()}
        return {**means, "train_dice": mean_dice(self.counts)}


class TrainStep(CompiledStep):
    """One step of training: `step(image, label)` changes the model and returns measurements.

    `model`: a network, called as `model(image)` or `model(image, training)` with tinygrad's own
    layers in training mode, gives logits (B, K, H, W); K is `model.out_channels`, or found by a
    call. Or a `TrainState`, which has all parts but `grad_clip` in it already.
    `loss`: a text as in the config, a function (logits, label) -> scalar Tensor, or a list of
    weights and these: `[(0.5, "bce"), (0.5, function)]`.
    `optimizer`: a text, one of tinygrad.nn.optim, or a function of the list of parameters that
    returns one, such as `tinygrad.nn.optim.Adam`.
    `augment`: a text, or a function (image, label) -> (image, label) of Tensors.
    `grad_clip`: the largest norm of the gradient; 0 does not clip. `loss_scale`: of float16.

    Images are (B, C, H, W) float32; labels (B, H, W) or (B, 1, H, W) class ids, 255 is ignored.
    """

    def __init__(
        self,
        model: Any,
        loss: AnyLoss = "auto",
        optimizer: AnyOptimizer = "adam(lr=0.001)",
        *,
        grad_clip: float = 0.0,
        augment: AnyAugment = "none",
        loss_scale: float | LossScale = 0.0,
        jit: bool = True,
        canary: bool = True,
    ):
        backend()
        if not isinstance(model, TrainState):
            model = TrainState(model, loss, optimizer, augment, loss_scale)
        self.state: TrainState = model
        """All that a step changes."""
        self.grad_clip = grad_clip
        self.model, self.parameters = self.state.model, self.state.parameters
        self.loss, self.optimizer = self.state.loss, self.state.optimizer
        self.augment, self.loss_scale = self.state.augment, self.state.loss_scale
        self.learning_rate = self.optimizer.learning_rate
        """Used by the next call; changing it compiles nothing."""
        alter = (alter_image, self._alter_label, None)
        self._guarded = GuardedJit(self._step, self.state, alter, jit, canary, self._recipe)

    def __call__(self, image: Tensor | Array, label: Tensor | Array) -> Measurements:
        """Return what was measured: "loss", each term of it, "gradient_norm" (before clipping).

        In float16 also "loss_scale", and "skipped": 1 when its gradients overflowed, so that the
        update was left out and the next scale is half. When the loss or the gradient's norm is not
        finite, parameters and optimizer state stay as they were, and running statistics take up
        no NaN; dropout draws on. StepError for another shape or type than in the first call, or
        labels that are no class ids.
        """
        image, label = _as_tensors(image, label)
        if not self.compiled and isinstance(label, Tensor):
            _check_label(label, self._classes)
        rate = to_device(np.array([self.learning_rate], np.float32))
        vector = self._guarded(image, label, rate)
        return Measurements(self._guarded.names, vector)

    def _step(self, image: Tensor, label: Tensor, rate: Tensor) -> Tensor:
        with self.state.own_random():
            image, label = self.augment(image, label)
        logits = self.forward(image)
        if logits.ndim != 4 or logits.shape[1] != self.state.out_channels:
            raise StepError(
                f"the network's logits have shape {logits.shape}, but (B, "
                f"{self.state.out_channels}, H, W) was expected: set model.out_channels"
            )
        with self.state.own_random():
            measured = dict(self.loss(logits, label))
        gradients = self.gradients(measured["loss"])
        norm = measured["gradient_norm"] = joint_norm(gradients)
        finite = measured["loss"].detach().isfinite() & norm.isfinite()
        if self.loss_scale.state:
            measured["loss_scale"] = self.loss_scale.state["loss_scale.value"].clone()
            measured["skipped"] = 1 - finite.cast(dtypes.float32)
            self.loss_scale.adapt(finite)
        if self.grad_clip:
            gradients = clip(gradients, norm, self.grad_clip)
        self.optimizer.update(gradients, rate, finite)
        update_running_stats(self.model)
        self._guarded.names[:] = measured
        values = Tensor.stack(*(value.detach().reshape(()) for value in measured.values()))
        return values.cat(outcomes(logits.detach(), label).flatten())

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of a batch in training mode."""
        if self.state.random is None:
            return forward(self.model, image, training=True)
        with self.state.own_random(), finite_only(self.state.statistics):
            return forward(self.model, image, training=True)

    def gradients(self, loss: Tensor) -> Tensors:
        """Return the gradient of every parameter."""
        names = list(self.parameters)
        values = self.loss_scale.up(loss).gradient(*(self.parameters[name] for name in names))
        gradients: Tensors = self.loss_scale.down(dict(zip(names, values, strict=True)))
        return gradients

    def fault(self, measured: dict[str, float]) -> str:
        """Return in words why training cannot go on after these measurements; empty if it can."""
        if not np.isfinite(measured["loss"]):
            return "the loss is not finite"
        if not np.isfinite(measured["gradient_norm"]) and not self.loss_scale.state:
            return "the loss is finite but its gradient is not"
        if measured.get("skipped") and measured["loss_scale"] <= self.loss_scale.lowest:
            return f"the gradients overflow at loss scale {self.loss_scale.lowest:g}"
        return ""

    @property
    def _classes(self) -> int:
        return max(2, self.state.out_channels)

    def _recipe(self) -> dict[str, str]:
        step = {"step": describe(type(self), {}), "grad_clip": repr(float(self.grad_clip))}
        return step | self.state.describe()

    def _alter_label(self, label: Array) -> Array:
        return np.where(label == IGNORE, label, (label + 1) % self._classes).astype(label.dtype)


def outcomes(logits: Tensor, label: Tensor) -> Tensor:
    """Return true positives, false positives, false negatives (3, K) per foreground class.

    Of the prediction at probability 0.5, or of the most probable class; all images pooled.
    """
    label = label.reshape(label.shape[0], *label.shape[-2:]).cast(dtypes.int32)
    if logits.shape[1] == 1:
        predicted = (logits[:, 0].sigmoid() >= 0.5).cast(dtypes.int32)  # as `to_classes`
    else:
        predicted = logits.argmax(axis=1).contiguous()  # else computed for each of the sums
    class_ids = Tensor.arange(1, max(2, logits.shape[1])).reshape(-1, 1, 1, 1)
    actual, positive = label == class_ids, (predicted == class_ids) & (label != IGNORE)
    tp, positives, actuals = (x.sum((1, 2, 3)) for x in (actual & positive, positive, actual))
    return Tensor.stack(tp, positives - tp, actuals - tp).cast(dtypes.float32)


def _as_tensors(image: Tensor | Array, label: Tensor | Array) -> tuple[Tensor, Tensor]:
    """Move arrays to the device: images of floats as float32, masks of bool as class ids."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        image = to_device(image.astype(np.float32))
    if isinstance(image, np.ndarray):
        raise StepError(
            f"the image is an array of {image.dtype}: pass floats, as `Dataset.batches` gives, "
            "e.g. (image / 255).astype(numpy.float32)"
        )
    if isinstance(label, np.ndarray):
        label = to_device(label.astype(np.uint8) if label.dtype == bool else label)
    return image, label


def _check_label(label: Tensor, classes: int) -> None:
    """Check the first batch: it shows most mistakes, and each check costs a download."""
    values = np.unique(label.numpy())
    wrong = [value.item() for value in values if value not in (*range(classes), IGNORE)]
    if wrong:
        raise StepError(
            f"the label has values {wrong[:5]}: it must contain class ids 0 to {classes - 1} "
            f"({IGNORE} is ignored); map the mask's values first"
        )
    if values.tolist() == [0, IGNORE]:
        warnings.warn(
            f"the first batch's label has only 0 and {IGNORE}, and {IGNORE} means ignored: "
            "if it is meant to be foreground, pass label // 255",
            stacklevel=3,
        )
