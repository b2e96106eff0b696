"""A few images learned by heart, in a fixed budget, and what is there to see when it fails."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.progress import Progress
from tinyseg.data import Sample
from tinyseg.doctor.experiments.step_probe import number_of
from tinyseg.doctor.project import Batch, Project
from tinyseg.evaluation.score import score_image
from tinyseg.inference.step import probabilities
from tinyseg.metrics.threshold_curves import EDGES, HALF, Histograms, best_edge, outcomes
from tinyseg.training.overfit import PASS_DICE

BUDGET = {1: 80, 4: 160, 9: 300}
"""Steps for so many images."""
SECONDS = 30.0
"""For all lessons together, tried with other settings too; what is not learned then is not called a
failure."""
MORE_SECONDS = 10.0
"""After these, for tries at other learning rates; one that is cut off finds none that is better."""
CHECK_EVERY = 20
TRIAL_STEPS = 60
"""Steps in which two learning rates are compared."""
CLEAR = 0.1
"""Dice by which another threshold or mode must be better, to be the reason."""
RANGE = (1e-6, 1.0)
"""Learning rates of the range test."""
RANGE_STEPS = 60


@dataclass(frozen=True)
class Scores:
    """How well images are known: Dice of each one's foreground."""

    probabilities: Array
    """(N, K, S, S)"""
    dice: tuple[float, ...]
    """At the threshold in use; of a softmax head by its most probable class."""
    at_half: tuple[float, ...]
    best: tuple[float, ...]
    """Each at its own best threshold."""
    best_threshold: tuple[float, ...]
    """Which that is; nan for a softmax head."""

    @property
    def passed(self) -> bool:
        """Whether every image was learned."""
        return min(self.dice) >= PASS_DICE

    @property
    def hidden(self) -> float:
        """Mean Dice that 0.5 gains over the threshold in use."""
        return float(np.mean(self.at_half) - np.mean(self.dice))


@dataclass(frozen=True)
class Lesson:
    """What came of learning some squares by heart."""

    squares: tuple[int, ...]
    names: tuple[str, ...]
    losses: tuple[float, ...]
    """Of every step."""
    threshold: float
    """The probability from which a pixel counts as foreground."""
    scores: Scores
    """In the end."""
    hidden: float
    """`Scores.hidden` when all images were first known at their best thresholds; nan before."""
    in_training: tuple[float, ...]
    """Dice in training mode, by the statistics of the batch; empty where all was learned."""
    in_time: bool
    """Whether there was time for the steps of the budget."""


class School:
    """Lessons on one project; its state is as before after each."""

    def __init__(self, project: Project, end: float | None = None):
        self.project, self.first = project, project.state.save()
        self.threshold = project.config.train.threshold or HALF
        self.end = time.monotonic() + SECONDS if end is None else end

    # 1. What is learned

    def squares(self, count: int) -> list[int]:
        """So many squares with foreground, of different images, spread over them."""
        found = {int(self.project.squares.image[i]): i for i in reversed(self.project.held)}
        order = [found[image] for image in sorted(found)]
        return [order[int(i)] for i in np.linspace(0, len(order) - 1, min(count, len(order)))]

    def lesson(self, count: int) -> Lesson:
        """Learns `count` images from the first state."""
        squares, budget = self.squares(count), BUDGET[count]
        losses, hidden = list[float](), float("nan")
        with self._from_first(), Progress(f"learning {len(squares)} images", budget) as progress:
            for batch in self._batches(squares):
                losses.append(number_of(self.project.step(*batch)))
                late = time.monotonic() > self.end
                over = late or len(losses) == budget or not np.isfinite(losses[-1])
                if over or len(losses) % CHECK_EVERY == 0:
                    scores = self.score(squares)
                    if np.isnan(hidden) and min(scores.best) >= PASS_DICE:
                        hidden = scores.hidden
                    if over or scores.passed:
                        break
                progress.update(len(losses), note=f"loss {losses[-1]:.3g}")
            in_training = () if scores.passed else self._in_training(squares)
        names = tuple(self.project.name_of(square) for square in squares)
        told = (tuple(squares), names, tuple(losses), self.threshold, scores, hidden)
        return Lesson(*told, in_training, in_time=scores.passed or not late)

    # 2. Experiments on a lesson that failed

    def rates(self, squares: Sequence[int]) -> tuple[list[float], list[float]]:
        """The range test (Smith 2017): learning rates that grow step by step, and the losses."""
        rates = np.geomspace(*RANGE, RANGE_STEPS).tolist()
        return rates, self._at_rates(squares, rates)

    def at_rate(self, squares: Sequence[int], rate: float, steps: int) -> list[float]:
        """The losses of so many steps at another learning rate."""
        return self._at_rates(squares, [rate] * steps)

    def _at_rates(self, squares: Sequence[int], rates: Sequence[float]) -> list[float]:
        step, losses = self.project.step, list[float]()
        with self._from_first(), self.project.rate_kept():
            for batch, rate in zip(self._batches(squares), rates, strict=False):
                step.learning_rate = rate
                losses.append(number_of(step(*batch)))
                late = time.monotonic() > self.end + MORE_SECONDS
                if late or not np.isfinite(losses[-1]):
                    break
        return losses

    # 3. How it is done

    @contextmanager
    def _from_first(self) -> Iterator[None]:
        """Begins without what was learned before, and forgets what is learned meanwhile."""
        self.project.state.load(self.first)
        try:
            yield
        finally:
            self.project.state.load(self.first)

    def _batches(self, squares: Sequence[int]) -> Iterator[Batch]:
        """Batches of the step's size, the squares in turn; each is uploaded once."""
        size, count = self.project.config.train.batch_size, len(squares)
        rounds = count // int(np.gcd(size, count))
        members = [[squares[(b * size + i) % count] for i in range(size)] for b in range(rounds)]
        return cycle([self.project.batch(chosen) for chosen in members])

    def score(self, squares: Sequence[int]) -> Scores:
        """How well squares are known, in evaluation, with the weights as they are now."""
        maps = self._maps(squares, self.project.evaluate_step)
        dice, half = (self._dice(at, squares, maps) for at in (self.threshold, HALF))
        best = [self.best(square, p) for square, p in zip(squares, maps, strict=True)]
        thresholds, values = zip(*best, strict=True)
        return Scores(maps, dice, half, values, thresholds)

    def _in_training(self, squares: Sequence[int]) -> tuple[float, ...]:
        maps = self._maps(
            squares, lambda image: probabilities(self.project.forward(image, training=True))
        )
        return self._dice(self.threshold, squares, maps)

    def _maps(self, squares: Sequence[int], network: Any) -> Array:
        """Probabilities (N, K, S, S) of squares; a short batch is filled with its first image."""
        size, found = self.project.config.train.batch_size, []
        for start in range(0, len(squares), size):
            chosen = list(squares[start : start + size])
            image, _ = self.project.batch(chosen + chosen[:1] * (size - len(chosen)))
            found.append(network(image).numpy()[: len(chosen)])
        return np.concatenate(found)

    def _dice(self, threshold: float, squares: Sequence[int], maps: Array) -> tuple[float, ...]:
        pairs = zip(squares, maps, strict=True)
        return tuple(self._one(square, p, threshold) for square, p in pairs)

    def _one(self, square: int, p_khw: Array, threshold: float) -> float:
        project = self.project
        pixels, label = project.squares[square].pixels, project.squares.labels[square]
        sample = Sample(project.name_of(square), pixels, label)
        return score_image(sample, p_khw, project.dataset.classes, threshold).dice

    def best(self, square: int, p_khw: Array) -> tuple[float, float]:
        """The threshold with the best Dice (of equals the middle one), and that Dice."""
        if len(p_khw) > 1:
            return float("nan"), self._one(square, p_khw, HALF)
        (counts,) = Histograms().add(p_khw, self.project.squares.labels[square])
        dice = np.nan_to_num(outcomes(counts).measures()["dice"])
        place = int(best_edge(dice))
        return float(EDGES[place]), float(dice[place])


@dataclass(frozen=True)
class Attempt:
    """All lessons up to the first that was not learned, and experiments on that one."""

    lessons: list[Lesson]
    rate: float | None = None
    """The learning rate that the range test finds best."""
    at_rate: tuple[float, ...] = ()
    """The losses at it, and below at the set one in as many steps."""
    at_set: tuple[float, ...] = ()
    end: float = np.inf
    """When the time for lessons is over, on the clock of `time.monotonic`."""


def attempt(project: Project) -> Attempt:
    """One image, then 4, then 9; when one lesson fails, what could be the reason."""
    school, lessons = School(project), list[Lesson]()
    for count in BUDGET:
        if lessons and len(lessons[-1].names) == len(school.squares(count)):
            break  # there are no more images
        lessons.append(school.lesson(count))
        if not lessons[-1].scores.passed:
            break
    last = lessons[-1]
    told = last.scores.passed or not last.in_time or not np.isfinite(last.losses).all()
    if told or project.rate is None:
        return Attempt(lessons, end=school.end)
    rate = best_rate(*school.rates(last.squares))
    at_rate = school.at_rate(last.squares, rate, min(TRIAL_STEPS, len(last.losses)))
    return Attempt(lessons, rate, tuple(at_rate), last.losses[: len(at_rate)], school.end)


def best_rate(rates: list[float], losses: list[float]) -> float:
    """A tenth of the rate at which the loss is lowest, before it rises again.

    The loss is smoothed over five steps; where it never falls, the lowest of all rates comes out.
    """
    smooth = np.convolve(losses, np.ones(5) / 5, mode="valid") if len(losses) >= 5 else losses
    return float(rates[int(np.argmin(smooth)) + (2 if len(losses) >= 5 else 0)] / 10)
