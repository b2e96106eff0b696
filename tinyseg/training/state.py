"""The training state: every Tensor that a step changes, by name, put together in one place."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

from tinygrad import Tensor, nn

from tinyseg.augment import Augmentation
from tinyseg.common.arrays import Array
from tinyseg.device.random import TinygradRandom
from tinyseg.device.tensors import realize_weights
from tinyseg.errors import StepError
from tinyseg.jit.key import NotCacheable, describe
from tinyseg.losses import Loss, Part
from tinyseg.nn import output_channels, parameters, state_dict
from tinyseg.runs.checkpoint import assign
from tinyseg.training.loss_scale import LossScale
from tinyseg.training.optimizer import Optimizer, TinygradOptimizer

AnyLoss = Loss | Part | Sequence[tuple[float, Part]]
AnyOptimizer: TypeAlias = Any
"""A text, an `Optimizer`, one of tinygrad.nn.optim, or a function of parameters giving one."""
AugmentFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
AnyAugment = str | Augmentation | AugmentFunction

ADDED_LATER = ("loss.", "random.")
"""Beginnings of names that checkpoints of older versions do not have."""


class TrainState(dict[str, Tensor]):
    """All Tensors that a training step changes, by name, with the parts that they belong to.

    "model.": weights and running statistics, by their names in the network; "optimizer.";
    "loss.": its numbers; "augment." and "random.": what augmentation, and the random numbers that
    a user's own code draws in the step, go on from; "loss_scale.". A checkpoint holds exactly
    these, so a resumed run goes on bit for bit.
    """

    def __init__(
        self,
        model: Any,
        loss: AnyLoss = "auto",
        optimizer: AnyOptimizer = "adam(lr=0.001)",
        augment: AnyAugment = "none",
        loss_scale: float | LossScale = 0.0,
        *,
        out_channels: int = 0,
        seed: int | None = None,
    ):
        """Put the state of these parts together; see `TrainStep` for what each may be.

        `out_channels` 0: read from the network or found by a call of it. `seed` is that of
        augmentation and of the random numbers of a user's own code; None: 0 and tinygrad's own.
        """
        super().__init__()
        weights = state_dict(model)
        realize_weights(weights)
        self.model, self.weights = model, weights
        self.out_channels = out_channels or output_channels(model)
        self.parameters = parameters(weights)
        """What is trained, by name in the network."""
        others = (t for name, t in weights.items() if name not in self.parameters)
        self.statistics = [tensor for tensor in others if tensor.is_floating_point()]
        """Running means and the like, which the network itself assigns in training."""
        self.loss = Loss.of(loss, self.out_channels)
        self.optimizer = make_optimizer(optimizer, self.parameters)
        self.augment = make_augment(augment, seed or 0)
        if not isinstance(loss_scale, LossScale):
            loss_scale = LossScale(getattr(model, "precision", "float32"), loss_scale)
        self.loss_scale = loss_scale
        self.random: TinygradRandom | None = None
        """Only for code that is not ours: ours has keys of its own, see `device.random`."""
        self._collect()
        if not self._is_ours():
            self.random = TinygradRandom(seed)
            self._collect()

    def _collect(self) -> None:
        self.clear()
        self.update({f"model.{name}": tensor for name, tensor in self.weights.items()})
        self.update({f"optimizer.{name}": t for name, t in self.optimizer.state.items()})
        for part in (self.loss, self.augment, self.loss_scale, self.random):
            self.update(part.state if part else {})

    def with_loss(self, loss: AnyLoss) -> "TrainState":
        """Return the same state with another loss in it, as the next phase of a run has."""
        other = copy.copy(self)
        other.loss = Loss.of(loss, self.out_channels)
        other._collect()
        return other

    def arrays(self) -> dict[str, Array]:
        """Return the values, as they are now."""
        return {name: tensor.numpy() for name, tensor in self.items()}

    def load(self, arrays: dict[str, Array], source: str) -> None:
        """Copy the values of a checkpoint in; RunError, which names `source`, for unlike ones.

        What older checkpoints do not hold keeps its value.
        """
        kept = {n: t for n, t in self.items() if n in arrays or not n.startswith(ADDED_LATER)}
        assign(kept, arrays, "", source)

    def own_random(self) -> AbstractContextManager[None]:
        """While it lasts, tinygrad's random numbers are drawn from, and move, this state."""
        return self.random.used() if self.random else nullcontext()

    def describe(self) -> dict[str, str]:
        """Return all that the parts bake into a compiled step; NotCacheable for a user's code."""
        # the learning rate is an input: all else of the optimizer is baked in
        without = ("learning_rate", "lr")
        return {
            "model": describe(self.model, self),
            "loss": describe(self.loss, self),
            "optimizer": describe(self.optimizer, self, without),
            "augment": describe(self.augment, self),
            "loss scale": describe(self.loss_scale, self),
        }

    def _is_ours(self) -> bool:
        try:
            return bool(self.describe())
        except NotCacheable:
            return False


class OwnAugmentation:
    """A user's function (image, label) -> (image, label) of Tensors as the augmentation of a step.

    It draws with tinygrad (`Tensor.rand`, ...), anew in every call.
    """

    def __init__(self, function: AugmentFunction):
        self.function, self.state = function, dict[str, Tensor]()

    def __call__(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        new_image, new_label = self.function(image, label)
        for name, new, old in (("image", new_image, image), ("label", new_label, label)):
            if new.shape != old.shape or new.dtype != old.dtype:
                raise StepError(
                    f"the augmentation returns the {name} as {new.dtype} {new.shape}, but it was "
                    f"{old.dtype} {old.shape}: keep both"
                )
        return new_image, new_label

    again = __call__
    """It cannot be repeated: what is shown of a step that failed is drawn anew."""


def make_optimizer(
    optimizer: AnyOptimizer, trained: dict[str, Tensor]
) -> Optimizer | TinygradOptimizer:
    """Return an optimizer of these parameters; StepError or ConfigError for what is none."""
    if isinstance(optimizer, Optimizer | TinygradOptimizer):
        return optimizer
    if isinstance(optimizer, str):
        return Optimizer(optimizer, trained)
    if not isinstance(optimizer, nn.optim.Optimizer) and callable(optimizer):
        optimizer = optimizer(list(trained.values()))
    return TinygradOptimizer(optimizer, trained)


def make_augment(augment: AnyAugment, seed: int) -> Augmentation | OwnAugmentation:
    """Return the augmentation of a text or a function."""
    if isinstance(augment, str):
        return Augmentation(augment, seed)
    if isinstance(augment, Augmentation):
        return augment
    return OwnAugmentation(augment)
