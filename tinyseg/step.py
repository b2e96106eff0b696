"""The jitted step: a pure function of explicit state, image and label, with guards.

TinyJit replaces only whole own buffers among its arguments; all else (Python numbers, slices) is
baked in at the first call, silently. So: state, images, labels and the learning rate enter as
Tensors, each is checked on every call, and a canary proves after the capture that they count.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg.backend import Array, backend, jitted, overwrite, owns_buffer, upload
from tinyseg.config import IGNORE
from tinyseg.errors import StepError
from tinyseg.losses import Loss
from tinyseg.nn import parameters, remember, state_dict
from tinyseg.optim import Optimizer, Tensors, clip

Alter = Callable[[Array], Array]


class GuardedJit:
    """Runs `function(*inputs) -> Tensor`, which may assign `state` in place, jitted or plain.

    `alter` has an entry per input: how the canary changes it, or None to leave it.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        state: Tensors,
        alter: Sequence[Alter | None],
        jit: bool = True,
        canary: bool = True,
    ):
        self.function, self.state, self.alter, self.canary = function, state, alter, canary
        self.signature: list[tuple[Any, ...]] = []
        self.jit = jitted(lambda state, *inputs: self._realize(*inputs)) if jit else None

    @property
    def compiled(self) -> bool:
        """Whether the first call has been made."""
        return bool(self.signature)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's output in a buffer of its own, which no later call overwrites."""
        inputs = tuple(_own(tensor) for tensor in inputs)
        signature = [(tuple(t.shape), t.dtype, t.device) for t in inputs]
        if not self.signature:
            self.signature = signature
            return self._first(inputs)
        if signature != self.signature:
            raise StepError(
                f"the step was compiled for {_describe(self.signature)} but got "
                f"{_describe(signature)}; keep the shapes or make a new step"
            )
        return self._run(inputs)

    def _realize(self, *inputs: Tensor) -> Tensor:
        output = self.function(*inputs)
        return output.realize(*self.state.values())

    def _run(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.jit is None:
            return self._realize(*inputs)
        # all replays write to one buffer: without the clone a list of losses is n times the last
        return self.jit(list(self.state.values()), *inputs).clone().realize()

    def _first(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.jit is None or not self.canary:
            return self._run(inputs)
        before = self._snapshot()
        first = self._run(inputs).numpy()
        for index, alter in enumerate(self.alter):
            if alter is not None:
                self._check_counts(inputs, index, alter, before, first)
        self._restore(before)
        again = self._run(inputs)
        if not np.array_equal(again.numpy(), first, equal_nan=True):
            raise StepError(
                "the same step gave another result when replayed: "
                f"{first.ravel()[:4]} and then {again.numpy().ravel()[:4]}; run with jit=False"
            )
        return again

    def _check_counts(
        self,
        inputs: tuple[Tensor, ...],
        index: int,
        alter: Alter,
        before: dict[str, Array],
        first: Array,
    ) -> None:
        """The canary: an input that is changed must change the result, from the same state."""
        changed = list(inputs)
        changed[index] = upload(alter(inputs[index].numpy()))
        self._restore(before)
        if not np.array_equal(self._run(tuple(changed)).numpy(), first):
            return
        # nothing changed: is the step locked, or does the network really not look at it?
        self._restore(before)
        plain = self._realize(*changed).numpy()
        if not np.array_equal(plain, first):
            raise StepError(
                f"the jitted step ignores input {index}: it is locked onto the first batch; "
                "pass image and label as whole Tensors, or run with jit=False"
            )

    def _snapshot(self) -> dict[str, Array]:
        return {name: tensor.numpy().copy() for name, tensor in self.state.items()}

    def _restore(self, arrays: dict[str, Array]) -> None:
        for name, array in arrays.items():
            overwrite(self.state[name], array)


class Measurements(dict[str, Tensor]):
    """What a step measured: scalar Tensors by name, all parts of one vector."""

    def __init__(self, names: Sequence[str], vector: Tensor):
        super().__init__((name, vector[index]) for index, name in enumerate(names))
        self.vector = vector

    def numbers(self) -> dict[str, float]:
        """All of them as numbers, in one download."""
        return dict(zip(self, map(float, self.vector.numpy()), strict=True))


class TrainStep:
    """One step of training: `step(image, label)` changes the model and returns measurements.

    `loss` and `optimizer` are texts as in the config, or a `Loss` and an `Optimizer`. Images are
    (B, C, H, W) float32; labels (B, H, W) class indices or (B, 1, H, W) {0, 1}; 255 is ignored.
    """

    def __init__(
        self,
        model: Any,
        loss: str | Loss = "auto",
        optimizer: str | Optimizer = "adam(lr=0.001)",
        clip: float = 0.0,
        jit: bool = True,
        canary: bool = True,
    ):
        backend()
        self.model, self.clip = model, clip
        weights = state_dict(model)
        self.parameters = parameters(weights)
        self.loss = Loss.parse(loss, model.out_channels) if isinstance(loss, str) else loss
        self.optimizer = (
            Optimizer(optimizer, self.parameters) if isinstance(optimizer, str) else optimizer
        )
        self.learning_rate = self.optimizer.learning_rate
        """Used by the next call; changing it compiles nothing."""
        self.state: Tensors = {
            **{f"model.{name}": tensor for name, tensor in weights.items()},
            **{f"optimizer.{name}": tensor for name, tensor in self.optimizer.state.items()},
            **self.loss.state,
        }
        self.names: list[str] = []
        self._guarded = GuardedJit(
            self._step, self.state, (_alter_image, self._alter_label, None), jit, canary
        )

    def __call__(self, image: Tensor, label: Tensor) -> Measurements:
        """Measurements before the change: "loss", each term of it, "hard_dice", "gradient_norm".

        "hard_dice" is that of the hard prediction, all pixels and foreground classes of the batch
        together. When the loss is not finite, nothing is changed.
        """
        if not self.compiled:
            _check_label(label, max(2, self.model.out_channels))
        rate = upload(np.array([self.learning_rate], np.float32))
        vector = self._guarded(image, label, rate)
        return Measurements(self.names, vector)

    @property
    def compiled(self) -> bool:
        """Whether the first call, which compiles, has been made."""
        return self._guarded.compiled

    def _step(self, image: Tensor, label: Tensor, rate: Tensor) -> Tensor:
        logits = self.model(image, training=True)
        measured = dict(self.loss(logits, label))
        names = list(self.parameters)
        found = measured["loss"].gradient(*(self.parameters[name] for name in names))
        gradients = dict(zip(names, found, strict=True))
        if self.clip:
            gradients, measured["gradient_norm"] = clip(gradients, self.clip)
        finite = measured["loss"].detach().isfinite()
        self.optimizer.update(gradients, rate, finite)
        remember(self.model)
        measured["hard_dice"] = hard_dice(logits.detach(), label)
        self.names = list(measured)
        return Tensor.stack(*(value.detach().reshape(()) for value in measured.values()))

    def _alter_label(self, label: Array) -> Array:
        classes = max(2, self.model.out_channels)
        return np.where(label == IGNORE, label, (label + 1) % classes).astype(label.dtype)


class PredictStep:
    """`step(image)` gives probabilities (B, K, H, W) in [0, 1] of the model in evaluation mode."""

    def __init__(self, model: Any, jit: bool = True, canary: bool = True):
        backend()
        self.model = model
        self.state: Tensors = state_dict(model)
        self._guarded = GuardedJit(self._step, self.state, (_alter_image,), jit, canary)

    def __call__(self, image: Tensor) -> Tensor:
        """Foreground probability (K = 1) or the probability of each class, summing to 1."""
        return self._guarded(image)

    @property
    def compiled(self) -> bool:
        """Whether the first call, which compiles, has been made."""
        return self._guarded.compiled

    def _step(self, image: Tensor) -> Tensor:
        logits = self.model(image, training=False)
        return (logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(axis=1)).contiguous()


def hard_dice(logits: Tensor, label: Tensor) -> Tensor:
    """Dice of the hard prediction at probability 0.5, foreground classes and images pooled."""
    label = label.reshape(label.shape[0], *label.shape[-2:]).cast(dtypes.int32)
    predicted = (
        (logits[:, 0] > 0).cast(dtypes.int32) if logits.shape[1] == 1 else logits.argmax(axis=1)
    )
    valid = label != IGNORE
    hits = ((predicted == label) & (label > 0) & valid).sum()
    total = ((predicted > 0) & valid).sum() + ((label > 0) & valid).sum()
    return (2 * hits).cast(dtypes.float32) / total.cast(dtypes.float32).maximum(1)


def _check_label(label: Any, classes: int) -> None:
    """The first batch shows most mistakes; looking at every one would cost a download a step."""
    values = np.unique(_own(label).numpy())
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


def _own(tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise StepError(
            f"a step takes Tensors, not {type(tensor).__name__}: a number or an index would be "
            "baked in at the first call; pass Tensor(array)"
        )
    return tensor if owns_buffer(tensor) else tensor.clone().realize()


def _alter_image(image: Array) -> Array:
    ramp = np.linspace(-1, 1, image.size, dtype=np.float32).reshape(image.shape)
    return (image[::-1] * 0.5 + ramp).astype(image.dtype)


def _describe(signature: list[tuple[Any, ...]]) -> str:
    return " and ".join(f"{shape} {np.dtype(dtype.fmt)}" for shape, dtype, _ in signature)


__all__ = ["GuardedJit", "Measurements", "PredictStep", "TrainStep", "hard_dice"]
