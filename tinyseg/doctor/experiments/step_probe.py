"""Experiments on a step: one set of batches from one state, in all ways to call a step."""

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
MOST_SLOTS = 8
"""Places of a batch that are tried one by one."""
DESCENT = 5
"""Steps on one batch, which must lower its loss."""
PROBE_RATE = 1e-3
"""At this learning rate every weight that has a gradient moves by more than float32 rounds."""


@dataclass(frozen=True)
class Trial:
    """What the jitted step, and the same without JIT, made of a few batches."""

    losses: list[float]
    """Jitted, every batch from the first state."""
    read_late: list[float]
    """The same results, all read after the last of them was made."""
    other_image: float
    """The first batch from the first state, with the image of the second."""
    other_label: float
    """And with its label."""
    jitted: list[float]
    """One batch after the other."""
    plain: list[float]
    """One batch after the other, without JIT."""
    apart: float
    """How far the weights are apart after these two, as a share of what they moved."""


@dataclass(frozen=True)
class Moves:
    """How far weights go from the first state, by their names in the model."""

    size: dict[str, float]
    """Root of the mean square of each weight."""
    once: dict[str, float]
    """The same of what one step at the set learning rate adds to it."""
    often: dict[str, float]
    """And a few steps at a learning rate that cannot be overlooked."""
    statistics: dict[str, float]
    """And these steps to the running statistics of normalisations."""
    still: float | None
    """The largest change in a step at learning rate 0; None where the step has no such setting."""
    rate: float | None
    """The set learning rate."""


def number_of(result: Any) -> float:
    """The loss that a step gave: a number, a Tensor, `Measurements`, or the first of several."""
    if isinstance(result, dict):
        result = result["loss"]
    if isinstance(result, tuple | list):
        return number_of(result[0])
    return float(result.reshape(-1)[0].item() if isinstance(result, Tensor) else result)


class Runs:
    """Calls of a project's step, compiled, from its first state."""

    def __init__(self, project: Project):
        self.step, self.state = project.step, project.state
        self.batches = project.batches(BATCHES)
        self.first = self.state.save()
        with self.restored():
            for batch in self.batches:
                self.step(*batch)  # after these it is compiled

    @contextmanager
    def restored(self) -> Iterator["Runs"]:
        """Goes back to the first state in the end."""
        try:
            yield self
        finally:
            self.state.load(self.first)

    def from_first(self, *batch: Tensor) -> Any:
        """What the step gives for a batch, without what was learned before."""
        self.state.load(self.first)
        return self.step(*batch)

    def from_other(self, *batch: Tensor) -> Any:
        """The same with other weights: not scales and shifts, which a step may well set anew."""
        self.state.load(self.first)
        weights, rng = self.state.parameters.values(), np.random.default_rng(0)
        for tensor in [t for t in weights if t.ndim > 1] or weights:
            array = tensor.numpy()
            turned = array * 0.7 + 0.1 * rng.normal(size=array.shape)
            copy_(tensor, turned.astype(array.dtype))
        return self.step(*batch)

    def in_turn(self, batches: Sequence[Batch]) -> tuple[list[float], dict[str, Array]]:
        """The losses, and the weights after the last batch."""
        self.state.load(self.first)
        losses = [number_of(self.step(*batch)) for batch in batches]
        return losses, self.weights()

    def weights(self) -> dict[str, Array]:
        """All weights and statistics of the model, copied."""
        return {n: t.numpy().astype(np.float64) for n, t in self.state.weights.items()}


def try_step(project: Project) -> Trial:
    """Runs a few batches in all ways."""
    with project.once(Runs).restored() as runs:
        results = [runs.from_first(*batch) for batch in runs.batches]
        read_late = [number_of(result) for result in results]
        losses = [number_of(runs.from_first(*batch)) for batch in runs.batches]
        (image, label), (next_image, next_label), *_ = runs.batches
        runs.from_first(image, label)  # a step that is one call late tells of it now
        other_image = number_of(runs.from_first(next_image, label))
        other_label = number_of(runs.from_first(image, next_label))
        jitted, ended = runs.in_turn(runs.batches)
        with Context(JIT=0):
            plain, expected = runs.in_turn(runs.batches)
        runs.state.load(runs.first)
        apart = _apart(ended, expected, runs.weights())
    return Trial(losses, read_late, other_image, other_label, jitted, plain, apart)


@dataclass(frozen=True)
class Habits:
    """What a step may do that only a user's own does; all losses are of the first state."""

    again: list[float]
    """Of the first batch, three times in a row."""
    other_weights: float
    """With other weights."""
    other_slots: list[float]
    """With one image and label of the second batch, at each place of the first."""
    drift: float
    """How far the weights are apart after two equal steps, as a share of what they moved."""


def try_habits(project: Project) -> Habits:
    """Repeats the first batch, in part with other weights and images."""
    with project.once(Runs).restored() as runs:
        first = runs.batches[0]
        again = [number_of(runs.from_first(*first)) for _ in range(3)]
        other_weights = number_of(runs.from_other(*first))
        slots = [number_of(runs.from_first(*pair)) for pair in _slots(*runs.batches[:2])]
        moved = runs.in_turn([first])[1], runs.in_turn([first])[1]
        runs.state.load(runs.first)
        drift = _apart(*moved, runs.weights())
    return Habits(again, other_weights, slots, drift)


def _slots(batch: Batch, other: Batch) -> Iterator[Batch]:
    """The batch with one image and label of another one, at each place in turn."""
    (x, y), (new_x, new_y) = (tuple(tensor.numpy() for tensor in pair) for pair in (batch, other))
    for slot in range(min(len(x), MOST_SLOTS)):
        images, labels = x.copy(), y.copy()
        images[slot], labels[slot] = new_x[slot], new_y[slot]
        yield to_device(images), to_device(labels)


@dataclass(frozen=True)
class Descent:
    """What a few steps on one batch make of its loss."""

    told: float
    """As the step tells it."""
    before: float
    """By the loss itself, and below after the steps."""
    after: float
    slower: float | None
    """And after as many at a tenth of the learning rate, where they raise it; None: not tried."""


def descend(project: Project) -> Descent:
    """Takes a few steps on the first batch; our own step is believed what it tells."""
    step, rate = project.step, project.rate
    with project.once(Runs).restored() as runs:
        image, label = runs.batches[0]

        def true_loss() -> float:
            return float(project.loss(project.forward(image, training=True), label)["loss"].item())

        def losses() -> tuple[float, float, float]:
            """As told before, and truly before and after."""
            if isinstance(step, TrainStep):
                told = runs.in_turn([(image, label)] * (DESCENT + 1))[0]
                return told[0], told[0], told[-1]
            runs.state.load(runs.first)
            before = true_loss()
            return runs.in_turn([(image, label)] * DESCENT)[0][0], before, true_loss()

        found, slower = losses(), None
        if rate is not None and found[2] > found[1]:
            with project.rate_kept():
                step.learning_rate = rate / 10
                slower = losses()[2]
    return Descent(*found, slower)


def move(project: Project) -> Moves:
    """Measures how far steps move the weights."""
    step, rate = project.step, project.rate
    with project.once(Runs).restored() as runs:
        runs.state.load(runs.first)
        before, still = runs.weights(), None
        once = _changes(before, runs.in_turn(runs.batches[:1])[1])
        with project.rate_kept():
            if rate is not None:
                step.learning_rate = 0.0
                found = _changes(before, runs.in_turn(runs.batches[:1])[1])
                still = max((found[name] for name in runs.state.parameters), default=0.0)
                step.learning_rate = max(rate, PROBE_RATE)
            often = _changes(before, runs.in_turn(runs.batches)[1])
        trained = list(runs.state.parameters)
    size = {name: root_mean_square(array) for name, array in before.items()}
    size, once, moved = ({n: of[n] for n in trained} for of in (size, once, often))
    statistics = {n: often[n] for n in often if n.endswith(("running_mean", "running_var"))}
    return Moves(size, once, moved, statistics, still, rate)


def _changes(before: dict[str, Array], after: dict[str, Array]) -> dict[str, float]:
    return {name: root_mean_square(after[name] - array) for name, array in before.items()}


def root_mean_square(array: Array) -> float:
    """The root of the mean of the squares, in float64."""
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def _apart(one: dict[str, Array], other: dict[str, Array], before: dict[str, Array]) -> float:
    moved = max((float(np.abs(other[n] - before[n]).max()) for n in before), default=0.0)
    differ = max((float(np.abs(one[n] - other[n]).max()) for n in before), default=0.0)
    return differ / moved if moved else differ
