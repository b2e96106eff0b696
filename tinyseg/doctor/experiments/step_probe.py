"""Experiments on a training step: the same few batches, from the same state, run in every way."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Context, Tensor

from tinyseg.common.arrays import Array
from tinyseg.device.tensors import copy_, to_device
from tinyseg.doctor.project import Batch, Project
from tinyseg.training.step import TrainStep

BATCHES = 3
"""TinyJit runs its first call plainly, captures the second and replays from the third on."""
MAX_SLOTS = 8
"""Positions in a batch that are tested one by one."""
DESCENT_STEPS = 5
"""Steps on one batch, which must lower its loss."""
PROBE_RATE = 1e-3
"""At this learning rate every weight with a gradient moves by more than float32 rounds off."""


def loss_of(result: Any) -> float:
    """Return the loss in a step's result: a number, a Tensor, `Measurements`, or the first item."""
    if isinstance(result, dict):
        result = result["loss"]
    if isinstance(result, tuple | list):
        return loss_of(result[0])
    return float(result.reshape(-1)[0].item() if isinstance(result, Tensor) else result)


class StepRunner:
    """Calls a project's compiled step from its initial state."""

    def __init__(self, project: Project):
        self.step, self.state = project.step, project.state
        self.batches = project.batches(BATCHES)
        self.initial = self.state.save()
        with self.restored():
            for batch in self.batches:
                self.step(*batch)  # after these calls it is compiled

    @contextmanager
    def restored(self) -> Iterator["StepRunner"]:
        """Restore the initial state at the end."""
        try:
            yield self
        finally:
            self.state.load(self.initial)

    def run(self, image: Tensor, label: Tensor) -> Any:
        """Return the step's result for a batch, from the initial state."""
        self.state.load(self.initial)
        return self.step(image, label)

    def run_with_other_weights(self, image: Tensor, label: Tensor) -> Any:
        """Return the result with other weights; not scales and shifts, which a step may reset."""
        self.state.load(self.initial)
        weights, rng = self.state.parameters.values(), np.random.default_rng(0)
        for tensor in [t for t in weights if t.ndim > 1] or weights:
            array = tensor.numpy()
            changed = array * 0.7 + 0.1 * rng.normal(size=array.shape)
            copy_(tensor, changed.astype(array.dtype))
        return self.step(image, label)

    def train(self, batches: Sequence[Batch]) -> tuple[list[float], dict[str, Array]]:
        """Return the losses of consecutive steps and the weights after them."""
        self.state.load(self.initial)
        losses = [loss_of(self.step(*batch)) for batch in batches]
        return losses, self.weights()

    def weights(self) -> dict[str, Array]:
        """Return a copy of all weights and running statistics of the model."""
        return {n: t.numpy().astype(np.float64) for n, t in self.state.weights.items()}


@dataclass(frozen=True)
class StepProbe:
    """Losses and weights of the compiled step, compared with the same step without JIT."""

    losses: list[float]
    """Of each batch from the initial state, compiled."""
    read_late: list[float]
    """The same, where all results were read after the last call."""
    other_image: float
    """Of the first batch with the image of the second."""
    other_label: float
    """Of the first batch with the label of the second."""
    jitted: list[float]
    """Of consecutive steps, compiled."""
    plain: list[float]
    """Of consecutive steps, without JIT."""
    weight_difference: float
    """Between the weights after these two, as a share of how far they moved."""
    ignored: tuple[str, ...]
    """Whether a new "image" or "label" changes the loss without JIT but not when compiled."""


def differ(losses: Sequence[float]) -> bool:
    """Return whether there are at least two different losses."""
    return len(set(losses)) > 1


def probe_step(project: Project) -> StepProbe:
    """Run a few batches in every way."""
    with project.once(StepRunner).restored() as runner:
        results = [runner.run(*batch) for batch in runner.batches]
        read_late = [loss_of(result) for result in results]
        losses = [loss_of(runner.run(*batch)) for batch in runner.batches]
        (image, label), (next_image, next_label), *_ = runner.batches
        runner.run(image, label)  # a step that reports one call late reports this one next
        other_image = loss_of(runner.run(next_image, label))
        other_label = loss_of(runner.run(image, next_label))
        changed = {"image": (other_image, next_image, label)}
        changed |= {"label": (other_label, image, next_label)}
        jitted, weights = runner.train(runner.batches)
        with Context(JIT=0):
            plain, expected = runner.train(runner.batches)
            ignored = tuple(
                part
                for part, (loss, *batch) in changed.items()
                if loss == losses[0] and loss_of(runner.run(*batch)) != plain[0]
            )
        runner.state.load(runner.initial)
        apart = _difference(weights, expected, runner.weights())
    return StepProbe(losses, read_late, other_image, other_label, jitted, plain, apart, ignored)


@dataclass(frozen=True)
class RepeatProbe:
    """Repetitions of the first batch, all from the initial state; for custom steps."""

    losses: list[float]
    """Of the batch three times."""
    other_weights: float
    """The loss with other weights."""
    other_slots: list[float]
    """The losses with one image and label replaced, for each position in the batch."""
    weight_difference: float
    """Between the weights after two equal steps, as a share of how far they moved."""

    @property
    def repeatable(self) -> bool:
        """Whether the same call has the same loss."""
        return self.losses[0] == self.losses[1]


def probe_repeats(project: Project) -> RepeatProbe:
    """Repeat the first batch, also with other weights and with single images replaced."""
    with project.once(StepRunner).restored() as runner:
        first, second, *_ = runner.batches
        losses = [loss_of(runner.run(*first)) for _ in range(3)]
        other_weights = loss_of(runner.run_with_other_weights(*first))
        slots = [loss_of(runner.run(*batch)) for batch in _with_one_replaced(first, second)]
        weights, again = (runner.train([first])[1] for _ in range(2))
        runner.state.load(runner.initial)
        difference = _difference(weights, again, runner.weights())
    return RepeatProbe(losses, other_weights, slots, difference)


def _with_one_replaced(batch: Batch, other: Batch) -> Iterator[Batch]:
    """Yield the batch with one image and label of another batch, at each position in turn."""
    (x, y), (new_x, new_y) = (tuple(tensor.numpy() for tensor in pair) for pair in (batch, other))
    for slot in range(min(len(x), MAX_SLOTS)):
        images, labels = x.copy(), y.copy()
        images[slot], labels[slot] = new_x[slot], new_y[slot]
        yield to_device(images), to_device(labels)


@dataclass(frozen=True)
class DescentProbe:
    """The loss of one batch before and after a few steps on it."""

    reported: float
    """As the first step returned it."""
    before: float
    after: float
    slower: float | None
    """After as many steps at a tenth of the learning rate; None if not tried."""


def probe_descent(project: Project) -> DescentProbe:
    """Take a few steps on the first batch; only of a custom step is the loss computed anew."""
    step, rate = project.step, project.learning_rate
    with project.once(StepRunner).restored() as runner:
        image, label = runner.batches[0]

        def loss() -> float:
            return float(project.loss(project.forward(image, training=True), label)["loss"].item())

        def descend() -> tuple[float, float, float]:
            if isinstance(step, TrainStep):
                losses, _ = runner.train([(image, label)] * (DESCENT_STEPS + 1))
                return losses[0], losses[0], losses[-1]
            runner.state.load(runner.initial)
            before = loss()
            losses, _ = runner.train([(image, label)] * DESCENT_STEPS)
            return losses[0], before, loss()

        reported, before, after = descend()
        slower = None
        if rate is not None and after > before:
            with project.restored_rate():
                project.learning_rate = rate / 10
                slower = descend()[-1]
    return DescentProbe(reported, before, after, slower)


@dataclass(frozen=True)
class UpdateProbe:
    """How far steps move the weights from the initial state, by their names in the model."""

    size: dict[str, float]
    """Root mean square of each weight."""
    one_step: dict[str, float]
    """Root mean square of its change in one step at the set learning rate."""
    moves: dict[str, Array]
    """This change itself."""
    few_steps: dict[str, float]
    """The same after a few steps at a learning rate that moves every weight visibly."""
    statistics: dict[str, float]
    """The change of the running statistics of normalization layers in these steps."""
    at_rate_0: float | None
    """The largest change in a step at learning rate 0; None if the step has no such attribute."""
    rate: float | None
    """The set learning rate."""


def probe_updates(project: Project) -> UpdateProbe:
    """Measure how far steps move the weights."""
    rate = project.learning_rate
    with project.once(StepRunner).restored() as runner:
        runner.state.load(runner.initial)
        before, at_rate_0 = runner.weights(), None
        after = runner.train(runner.batches[:1])[1]
        one_step, moves = _changes(before, after), {n: after[n] - before[n] for n in before}
        with project.restored_rate():
            if project.has_rate:
                project.learning_rate = 0.0
                changes = _changes(before, runner.train(runner.batches[:1])[1])
                at_rate_0 = max((changes[name] for name in runner.state.parameters), default=0.0)
            if rate is not None:
                project.learning_rate = max(rate, PROBE_RATE)
            few_steps = _changes(before, runner.train(runner.batches)[1])
        trained = list(runner.state.parameters)
    return UpdateProbe(
        {name: root_mean_square(before[name]) for name in trained},
        {name: one_step[name] for name in trained},
        {name: moves[name] for name in trained},
        {name: few_steps[name] for name in trained},
        {n: few_steps[n] for n in few_steps if n.endswith(("running_mean", "running_var"))},
        at_rate_0,
        rate,
    )


def _changes(before: dict[str, Array], after: dict[str, Array]) -> dict[str, float]:
    return {name: root_mean_square(after[name] - array) for name, array in before.items()}


def root_mean_square(array: Array) -> float:
    """Return the root mean square, computed in float64."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def _difference(one: dict[str, Array], other: dict[str, Array], start: dict[str, Array]) -> float:
    """Return the largest difference of weights, as a share of their largest move from the start."""
    moved = max((float(np.abs(other[n] - start[n]).max()) for n in start), default=0.0)
    apart = max((float(np.abs(one[n] - other[n]).max()) for n in start), default=0.0)
    return apart / moved if moved else apart
