"""The steps: pure functions of explicit state, image and label; `guard` compiles and checks them.

What changes from call to call enters as a Tensor. What is baked into the graph is in `_recipe`,
by which a compiled step is found on disk again.
"""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg.augment import Augmentation
from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE
from tinyseg.device.choose import backend
from tinyseg.device.random import TinygradRandom
from tinyseg.device.tensors import Tensors, finite_only, realize_weights, to_device
from tinyseg.errors import StepError
from tinyseg.jit.guarded import CompiledStep, GuardedJit, alter_image
from tinyseg.jit.key import NotCacheable, describe
from tinyseg.losses import Loss, Part
from tinyseg.metrics.summary import mean_dice
from tinyseg.nn import forward, parameters, state_dict, update_running_stats
from tinyseg.training.loss_scale import LossScale
from tinyseg.training.optimizer import Optimizer, clip, joint_norm


class Measurements(dict[str, Tensor]):
    """What a step measured: scalar Tensors by name, all parts of one vector."""

    def __init__(self, names: Sequence[str], vector: Tensor):
        super().__init__((name, vector[index]) for index, name in enumerate(names))
        self.vector = vector

    @cached_property
    def _downloaded(self) -> Array:
        return np.asarray(self.vector.numpy())

    def numbers(self) -> dict[str, float]:
        """Return all of them as numbers, and "train_dice" of the batch, in one download.

        "train_dice" is the mean Dice of the foreground classes; nan where no pixel is labelled or
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
    """What an epoch measured, batch by batch."""

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

    `model(image)` or `model(image, training)` gives logits (B, K, H, W); `model.out_channels` is K.
    tinygrad's own layers are in training mode meanwhile, and draw from the step's own state.
    `loss`, `optimizer` and `loss_scale` are as in the config, or objects of that name; `loss` may
    also be a function (logits, label) -> scalar Tensor, or a list as in `Loss.of`. Images are
    (B, C, H, W) float32; labels (B, H, W) class indices or (B, 1, H, W) {0, 1}; 255 is ignored.
    `augment` is a text as in the config, or an `Augmentation`: it is drawn anew in every call.
    """

    def __init__(
        self,
        model: Any,
        loss: Loss | Part | Sequence[tuple[float, Part]] = "auto",
        optimizer: str | Optimizer = "adam(lr=0.001)",
        grad_clip: float = 0.0,
        jit: bool = True,
        canary: bool = True,
        augment: str | Augmentation = "none",
        loss_scale: float | LossScale = 0.0,
    ):
        backend()
        if not isinstance(getattr(model, "out_channels", None), int):
            raise StepError(
                f"{type(model).__name__} does not say how many channels its logits have; set "
                "model.out_channels to 1 (sigmoid) or to the number of classes (softmax)"
            )
        self.model, self.grad_clip = model, grad_clip
        self.augment = Augmentation(augment) if isinstance(augment, str) else augment
        if not isinstance(loss_scale, LossScale):
            loss_scale = LossScale(getattr(model, "precision", "float32"), loss_scale)
        self.loss_scale = loss_scale
        weights = state_dict(model)
        realize_weights(weights)
        self.parameters = parameters(weights)
        others = (t for name, t in weights.items() if name not in self.parameters)
        self._statistics = [tensor for tensor in others if tensor.is_floating_point()]
        self.loss = Loss.of(loss, model.out_channels)
        self.optimizer = (
            Optimizer(optimizer, self.parameters) if isinstance(optimizer, str) else optimizer
        )
        self.learning_rate = self.optimizer.learning_rate
        """Used by the next call; changing it compiles nothing."""
        self.state: Tensors = {
            **{f"model.{name}": tensor for name, tensor in weights.items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.state.items()},
            **self.loss.state,
            **self.augment.state,
            **self.loss_scale.state,
        }
        self.random = None if self._is_ours() else TinygradRandom()
        """Only of code that is not ours: ours has keys of its own, see `draws`."""
        self.state |= self.random.state if self.random else {}
        alter = (alter_image, self._alter_label, None)
        self._guarded = GuardedJit(self._step, self.state, alter, jit, canary, self._recipe)

    def __call__(self, image: Tensor, label: Tensor) -> Measurements:
        """Return what was measured: "loss", each term of it, "gradient_norm" (before clipping).

        In float16 also "loss_scale", and "skipped": 1 when its gradients overflowed, so that the
        update was left out and the next scale is half. When the loss or the gradient's norm is not
        finite, parameters and optimizer state stay as they were, and running statistics take up
        no NaN; dropout draws on.
        """
        if not self.compiled and isinstance(label, Tensor):
            _check_label(label, max(2, self.model.out_channels))
        rate = to_device(np.array([self.learning_rate], np.float32))
        vector = self._guarded(image, label, rate)
        return Measurements(self._guarded.names, vector)

    def _step(self, image: Tensor, label: Tensor, rate: Tensor) -> Tensor:
        image, label = self.augment(image, label)
        logits = self.forward(image)
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
        if self.random is None:
            return forward(self.model, image, training=True)
        with self.random.used(), finite_only(self._statistics):
            return forward(self.model, image, training=True)

    def gradients(self, loss: Tensor) -> Tensors:
        """The gradient of every parameter."""
        names = list(self.parameters)
        found = self.loss_scale.up(loss).gradient(*(self.parameters[name] for name in names))
        return self.loss_scale.down(dict(zip(names, found, strict=True)))

    def fault(self, measured: dict[str, float]) -> str:
        """Why training cannot go on after these measurements, in words; empty when it can."""
        if not np.isfinite(measured["loss"]):
            return "the loss is not finite"
        if not np.isfinite(measured["gradient_norm"]) and not self.loss_scale.state:
            return "the loss is finite but its gradient is not"
        if measured.get("skipped") and measured["loss_scale"] <= self.loss_scale.lowest:
            return f"the gradients overflow at loss scale {self.loss_scale.lowest:g}"
        return ""

    def _is_ours(self) -> bool:
        try:
            return bool(self._recipe())
        except NotCacheable:
            return False

    def _recipe(self) -> dict[str, str]:
        # the learning rate is an input: all else of the optimizer is baked in
        without = ("learning_rate", "lr")
        return {
            "step": describe(type(self), {}),
            "model": describe(self.model, self.state),
            "loss": describe(self.loss, self.state),
            "optimizer": describe(self.optimizer, self.state, without),
            "clip": repr(float(self.grad_clip)),
            "augment": describe(self.augment, self.state),
            "loss scale": describe(self.loss_scale, self.state),
        }

    def _alter_label(self, label: Array) -> Array:
        classes = max(2, self.model.out_channels)
        return np.where(label == IGNORE, label, (label + 1) % classes).astype(label.dtype)


def outcomes(logits: Tensor, label: Tensor) -> Tensor:
    """Return true positives, false positives, false negatives (3, K) per foreground class.

    Of the prediction at probability 0.5, or of the most probable class; all images pooled.
    """
    label = label.reshape(label.shape[0], *label.shape[-2:]).cast(dtypes.int32)
    if logits.shape[1] == 1:
        predicted = (logits[:, 0].sigmoid() >= 0.5).cast(dtypes.int32)  # as `to_classes`
    else:
        predicted = logits.argmax(axis=1).contiguous()  # else found anew for each of the sums
    kinds = Tensor.arange(1, max(2, logits.shape[1])).reshape(-1, 1, 1, 1)
    labelled, marked = label == kinds, (predicted == kinds) & (label != IGNORE)
    both, positive, actual = (x.sum((1, 2, 3)) for x in (labelled & marked, marked, labelled))
    return Tensor.stack(both, positive - both, actual - both).cast(dtypes.float32)


def _check_label(label: Tensor, classes: int) -> None:
    """The first batch shows most mistakes; looking at every one would cost a download a step."""
    values = np.unique(label.numpy())
    wrong = [value.item() for value in values if value not in (*range(classes), IGNORE)]
    if wrong:
        raise StepError(
            f"the label has values {wrong[:5]}: it must hold class ids 0 to {classes - 1} "
            f"({IGNORE} is ignored); map the mask's values first"
        )
    if values.tolist() == [0, IGNORE]:
        warnings.warn(
            f"the first batch's label has only 0 and {IGNORE}, and {IGNORE} means ignored: "
            "if it is meant to be foreground, pass label // 255",
            stacklevel=3,
        )
