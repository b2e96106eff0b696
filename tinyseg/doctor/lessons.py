"""A few images learned by heart, in a fixed budget, and what is there to see when it fails."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from tinyseg.backend import Array
from tinyseg.config import IGNORE
from tinyseg.doctor.project import Batch, Project
from tinyseg.doctor.trial import number_of
from tinyseg.overfit import PASS_DICE, foreground_dice
from tinyseg.predict import to_classes
from tinyseg.progress import Progress
from tinyseg.thresholds import HALF

BUDGET = {1: 80, 4: 160, 9: 300}
"""Steps for so many images."""
SECONDS = 45.0
"""For all lessons together; what is not learned then is not called a failure."""
CHECK_EVERY = 20
RANGE = (1e-6, 1.0)
"""Learning rates of the range test."""
RANGE_STEPS = 60
GRID = np.arange(1, 64) / 64
"""Thresholds that are tried."""


@dataclass(frozen=True)
class Lesson:
    """What came of learning some squares by heart."""

    squares: tuple[int, ...]
    names: tuple[str, ...]
    losses: tuple[float, ...]
    """Of every step."""
    threshold: float
    """The probability from which a pixel counted as foreground."""
    dice: tuple[float, ...]
    """Of each image, at the threshold; of a softmax head by its most probable class."""
    best_threshold: tuple[float, ...]
    """The best one of each image; nan for a softmax head."""
    best_dice: tuple[float, ...]
    probabilities: Array
    """(N, K, S, S)"""
    hidden: float
    """Dice that 0.5 would have gained over the threshold, on average, when all images were first
    learned at their best; nan before."""
    in_time: bool
    """Whether the steps were those of the budget."""

    @property
    def passed(self) -> bool:
        """Whether every image was learned."""
        return min(self.dice) >= PASS_DICE


@dataclass(frozen=True)
class Scores:
    """Predictions of some squares, their Dice, and their best thresholds with the Dice there."""

    probabilities: Array
    """(N, K, S, S)"""
    dice: tuple[float, ...]
    best: tuple[tuple[float, float], ...]

    @property
    def worst_best(self) -> float:
        """The lowest Dice, each image at its best threshold."""
        return min(value for _, value in self.best)


class School:
    """Lessons on one project; its state is as before after each."""

    def __init__(self, project: Project):
        self.project, self.first = project, project.state.save()
        self.threshold = project.config.train.threshold or HALF
        self.left = SECONDS

    def squares(self, count: int) -> list[int]:
        """So many squares with foreground, of different images, spread over them."""
        found = {int(self.project.squares.image[i]): i for i in reversed(self.project.held)}
        order = [found[image] for image in sorted(found)]
        return [order[int(i)] for i in np.linspace(0, len(order) - 1, min(count, len(order)))]

    def lesson(self, count: int) -> Lesson:
        """Learns `count` images from the first state."""
        squares, project = self.squares(count), self.project
        losses, steps, begun = list[float](), BUDGET[count], time.monotonic()
        hidden, scores = float("nan"), Scores(np.zeros(0), (0.0,), ((0.0, 0.0),))
        project.state.load(self.first)
        try:
            with Progress(f"doctor: learning {len(squares)} by heart", steps) as progress:
                for batch in self._batches(squares):
                    losses.append(number_of(project.step(*batch)))
                    over = time.monotonic() - begun > self.left or not np.isfinite(losses[-1])
                    over = over or len(losses) == steps
                    if len(losses) % CHECK_EVERY == 0 or over:
                        scores = self.score(squares)
                        if np.isnan(hidden) and scores.worst_best >= PASS_DICE:
                            hidden = float(np.mean(self._at(HALF, squares, scores.probabilities)))
                            hidden -= float(np.mean(scores.dice))
                        if min(scores.dice) >= PASS_DICE or over:
                            break
                    progress.update(len(losses), note=f"worst Dice {min(scores.dice):.2f}")
        finally:
            project.state.load(self.first)
        self.left -= time.monotonic() - begun
        return Lesson(
            tuple(squares),
            tuple(project.name_of(square) for square in squares),
            tuple(losses),
            self.threshold,
            scores.dice,
            tuple(threshold for threshold, _ in scores.best),
            tuple(value for _, value in scores.best),
            scores.probabilities,
            hidden,
            len(losses) == steps or min(scores.dice) >= PASS_DICE,
        )

    def rates(self, squares: Sequence[int]) -> tuple[list[float], list[float]]:
        """The range test (Smith 2017): learning rates that grow step by step, and the losses."""
        step, rates = self.project.step, np.geomspace(*RANGE, RANGE_STEPS).tolist()
        return rates, self._at_rates(step, squares, rates)

    def at_rate(self, squares: Sequence[int], rate: float, steps: int) -> list[float]:
        """The losses of so many steps at another learning rate, from the first state."""
        return self._at_rates(self.project.step, squares, [rate] * steps)

    def _at_rates(
        self, step: object, squares: Sequence[int], rates: Sequence[float]
    ) -> list[float]:
        usual, losses = step.learning_rate, list[float]()  # type: ignore[attr-defined]
        self.project.state.load(self.first)
        try:
            for batch, rate in zip(self._batches(squares), rates, strict=False):
                step.learning_rate = rate  # type: ignore[attr-defined]
                losses.append(number_of(self.project.step(*batch)))
                if not np.isfinite(losses[-1]):
                    break
        finally:
            step.learning_rate = usual  # type: ignore[attr-defined]
            self.project.state.load(self.first)
        return losses

    def _batches(self, squares: Sequence[int]) -> Iterator[Batch]:
        """Batches of the step's size, the squares in turn; each is uploaded once."""
        size, count = self.project.config.train.batch, len(squares)
        rounds = count // np.gcd(size, count)
        members = [[squares[(b * size + i) % count] for i in range(size)] for b in range(rounds)]
        return cycle([self.project.batch(chosen) for chosen in members])

    def score(self, squares: Sequence[int]) -> Scores:
        """How well the squares are known, in evaluation, with the weights as they are now."""
        probabilities = self._probabilities(squares)
        best = tuple(self._best(s, p) for s, p in zip(squares, probabilities, strict=True))
        return Scores(probabilities, self._at(self.threshold, squares, probabilities), best)

    def _probabilities(self, squares: Sequence[int]) -> Array:
        size, found = self.project.config.train.batch, []
        for start in range(0, len(squares), size):
            chosen = list(squares[start : start + size])
            full = chosen + chosen[:1] * (size - len(chosen))
            image, _ = self.project.batch(full)
            found.append(self.project.evaluate_step(image).numpy()[: len(chosen)])
        return np.concatenate(found)

    def trained(self, lesson: Lesson) -> tuple[float, ...]:
        """Dice of a lesson's images in training mode: it is learned once more for that."""
        project = self.project
        project.state.load(self.first)
        try:
            batches = self._batches(lesson.squares)
            for batch, _ in zip(batches, lesson.losses, strict=False):
                project.step(*batch)
            found = []
            for start in range(0, len(lesson.squares), project.config.train.batch):
                image, _ = next(batches)
                logits = project.model(image, training=True)
                sure = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(axis=1)
                found.append(sure.numpy()[: len(lesson.squares) - start])
        finally:
            project.state.load(self.first)
        return self._at(self.threshold, lesson.squares, np.concatenate(found))

    def _at(self, threshold: float, squares: Sequence[int], maps: Array) -> tuple[float, ...]:
        pairs = zip(squares, maps, strict=True)
        return tuple(self._one(square, to_classes(p, threshold)) for square, p in pairs)

    def _one(self, square: int, prediction: Array) -> float:
        label = self.project.squares.labels[square]
        return foreground_dice(prediction, label, self.project.dataset.classes)

    def _best(self, square: int, p_khw: Array) -> tuple[float, float]:
        """The threshold of GRID with the best Dice, and that."""
        label = self.project.squares.labels[square]
        if len(p_khw) > 1:
            return float("nan"), self._one(square, to_classes(p_khw))
        known = label != IGNORE
        p, truth = p_khw[0][known], label[known] > 0
        sizes = [(p >= t).sum() + truth.sum() for t in GRID]
        hits = [((p >= t) & truth).sum() for t in GRID]
        dice = 2 * np.array(hits) / np.maximum(sizes, 1)
        # a plateau of equals is taken in its middle
        place = np.flatnonzero(dice == dice.max())
        return float(GRID[place[len(place) // 2]]), float(dice.max())
