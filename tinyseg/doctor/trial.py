"""Experiments on a step: one set of batches from one state, in all ways to call a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Context, Tensor

from tinyseg.backend import Array
from tinyseg.doctor.project import Batch, Project

BATCHES = 3
"""TinyJit runs its first call plainly, captures the second and replays from the third on."""
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


class _Runs:
    """Calls of a project's step from its first state, to which it goes back in the end."""

    def __init__(self, project: Project):
        self.step, self.state = project.step, project.state
        self.batches = project.batches(BATCHES)
        self.first = self.state.save()

    def __enter__(self) -> "_Runs":
        for batch in self.batches:
            self.step(*batch)  # after these it is compiled
        return self

    def __exit__(self, *_: object) -> None:
        self.state.load(self.first)

    def from_first(self, *batch: Tensor) -> Any:
        """What the step gives for a batch, without what was learned before."""
        self.state.load(self.first)
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
    with _Runs(project) as runs:
        results = [runs.from_first(*batch) for batch in runs.batches]
        read_late = [number_of(result) for result in results]
        losses = [number_of(runs.from_first(*batch)) for batch in runs.batches]
        (image, label), (next_image, next_label), *_ = runs.batches
        other_image = number_of(runs.from_first(next_image, label))
        other_label = number_of(runs.from_first(image, next_label))
        jitted, moved = runs.in_turn(runs.batches)
        with Context(JIT=0):
            plain, expected = runs.in_turn(runs.batches)
        runs.state.load(runs.first)
        apart = _apart(moved, expected, runs.weights())
    return Trial(losses, read_late, other_image, other_label, jitted, plain, apart)


def move(project: Project) -> Moves:
    """Measures how far steps move the weights."""
    step = project.step
    rate = getattr(step, "learning_rate", None)
    rate = float(rate) if isinstance(rate, int | float) else None
    with _Runs(project) as runs:
        runs.state.load(runs.first)
        before, still = runs.weights(), None
        once = _changes(before, runs.in_turn(runs.batches[:1])[1])
        try:
            if rate is not None:
                step.learning_rate = 0.0
                found = _changes(before, runs.in_turn(runs.batches[:1])[1])
                still = max((found[name] for name in runs.state.parameters), default=0.0)
                step.learning_rate = max(rate, PROBE_RATE)
            often = _changes(before, runs.in_turn(runs.batches)[1])
        finally:
            if rate is not None:
                step.learning_rate = rate
    size = {name: _root_mean_square(array) for name, array in before.items()}
    trained = runs.state.parameters
    size, once, moved = ({n: of[n] for n in trained} for of in (size, once, often))
    statistics = {n: often[n] for n in often if n.endswith(("running_mean", "running_var"))}
    return Moves(size, once, moved, statistics, still, rate)


def _changes(before: dict[str, Array], after: dict[str, Array]) -> dict[str, float]:
    return {name: _root_mean_square(after[name] - array) for name, array in before.items()}


def _root_mean_square(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array)))) if array.size else 0.0


def _apart(one: dict[str, Array], other: dict[str, Array], before: dict[str, Array]) -> float:
    moved = max((float(np.abs(other[n] - before[n]).max()) for n in before), default=0.0)
    differ = max((float(np.abs(one[n] - other[n]).max()) for n in before), default=0.0)
    return differ / moved if moved else differ
