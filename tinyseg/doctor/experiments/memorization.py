"""The memorization test: train on 1, 4, then 9 images, within a budget of steps and time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.data import Sample
from tinyseg.doctor.experiments.step_probe import loss_of
from tinyseg.doctor.project import Batch, Project, evenly_spaced
from tinyseg.evaluation.score import score_image
from tinyseg.inference.step import probabilities
from tinyseg.metrics.threshold_curves import EDGES, HALF, Histograms, best_edge, sweep
from tinyseg.training.overfit import PASS_DICE, memorize

BUDGET = {1: 80, 4: 160, 9: 300}
"""Steps by the number of images."""
SECONDS = 30.0
"""For all tests together, those with other settings included; running out of time is no failure."""
MORE_SECONDS = 10.0
"""After these, for tests at other learning rates."""
SCORE_EVERY = 20
COMPARED_STEPS = 60
"""Steps in which two learning rates are compared."""
CLEAR = 0.1
"""Dice by which another threshold or mode must be better to count as the reason."""
RATES = np.geomspace(1e-6, 1.0, 60).tolist()
"""Learning rates of the range test."""


@dataclass(frozen=True)
class Scores:
    """How well images are memorized: the Dice of the foreground of each image."""

    probabilities: Array
    """(N, K, S, S)"""
    dice: tuple[float, ...]
    """At the threshold in use; of a softmax head by its most probable class."""
    best: tuple[float, ...]
    """Each at its own best threshold."""
    best_threshold: tuple[float, ...]
    """nan for a softmax head."""
    threshold_cost: float
    """The mean Dice that 0.5 gains over the threshold in use."""

    @property
    def passed(self) -> bool:
        """Whether every image was memorized."""
        return min(self.dice) >= PASS_DICE


@dataclass(frozen=True)
class Outcome:
    """What came of training on a few tiles."""

    tiles: tuple[int, ...]
    names: tuple[str, ...]
    losses: tuple[float, ...]
    """Of every step."""
    threshold: float
    """The threshold in use."""
    scores: Scores
    """At the end."""
    threshold_cost: float
    """`Scores.threshold_cost` once all images passed at their best thresholds; nan if never."""
    training_mode: tuple[float, ...]
    """Dice in training mode, that is by batch statistics; empty if the test passed."""
    in_time: bool
    """Whether there was time for all steps of the budget."""


class Memorizer:
    """Runs memorization tests on one project, each from its initial state."""

    def __init__(self, project: Project, deadline: float | None = None):
        self.project, self.initial = project, project.state.save()
        self.threshold = project.config.train.threshold or HALF
        self.deadline = time.monotonic() + SECONDS if deadline is None else deadline

    def tiles(self, count: int) -> list[int]:
        """Return tiles with foreground of `count` different images, evenly spaced."""
        of_image = {
            int(self.project.tiles.image_index[i]): i
            for i in reversed(self.project.foreground_tiles)
        }
        return evenly_spaced([of_image[image] for image in sorted(of_image)], count)

    def run(self, count: int) -> Outcome:
        """Train on `count` images until all are memorized or the budget is used up."""
        tiles, cost, steps = self.tiles(count), float("nan"), BUDGET[count]
        with self._from_initial():
            each_loss = (loss_of(self.project.step(*batch)) for batch in self._batches(tiles))
            for losses in memorize(each_loss, steps, SCORE_EVERY, len(tiles), self.deadline):
                scores = self.score(tiles)
                if np.isnan(cost) and min(scores.best) >= PASS_DICE:
                    cost = scores.threshold_cost
                in_time = scores.passed or len(losses) == steps or not np.isfinite(losses[-1])
                if scores.passed:
                    break
            training_mode = () if scores.passed else self._training_mode(tiles)
        names = tuple(self.project.name_of(tile) for tile in tiles)
        parts = (tuple(tiles), names, tuple(losses), self.threshold, scores, cost)
        return Outcome(*parts, training_mode, bool(in_time))

    def losses_at(self, tiles: Sequence[int], rates: Sequence[float]) -> list[float]:
        """Return the losses of steps at these learning rates; fewer if time runs out."""
        step, losses = self.project.step, list[float]()
        with self._from_initial(), self.project.restored_rate():
            for batch, rate in zip(self._batches(tiles), rates, strict=False):
                self.project.learning_rate = rate
                losses.append(loss_of(step(*batch)))
                late = time.monotonic() > self.deadline + MORE_SECONDS
                if late or not np.isfinite(losses[-1]):
                    break
        return losses

    def score(self, tiles: Sequence[int]) -> Scores:
        """Score tiles with the weights as they are now, in evaluation mode."""
        maps = self._probabilities(tiles, self.project.own_predictor.step)
        best = [self.best(tile, p_khw) for tile, p_khw in zip(tiles, maps, strict=True)]
        thresholds, values = zip(*best, strict=True)
        dice, at_half = (self._dice(tiles, maps, at) for at in (self.threshold, HALF))
        cost = float(np.mean(at_half) - np.mean(dice))
        return Scores(maps, dice, values, thresholds, cost)

    def best(self, tile: int, p_khw: Array) -> tuple[float, float]:
        """Return the threshold with the best Dice (the middle one of equals), and that Dice."""
        if len(p_khw) > 1:
            return float("nan"), self._dice([tile], p_khw[None], HALF)[0]
        (counts,) = Histograms().add(p_khw, self.project.tiles.labels[tile])
        dice = np.nan_to_num(sweep(counts).measures()["dice"])
        place = int(best_edge(dice))
        return float(EDGES[place]), float(dice[place])

    def _training_mode(self, tiles: Sequence[int]) -> tuple[float, ...]:
        def network(image: Tensor) -> Tensor:
            return probabilities(self.project.forward(image, training=True))

        return self._dice(tiles, self._probabilities(tiles, network), self.threshold)

    def _dice(self, tiles: Sequence[int], maps: Array, threshold: float) -> tuple[float, ...]:
        project, prepared = self.project, self.project.tiles
        samples = [
            Sample(project.name_of(i), prepared[i].pixels, prepared.labels[i]) for i in tiles
        ]
        classes = project.dataset.classes
        pairs = zip(samples, maps, strict=True)
        return tuple(score_image(sample, p, classes, threshold).dice for sample, p in pairs)

    def _probabilities(self, tiles: Sequence[int], network: Callable[[Tensor], Tensor]) -> Array:
        """Return probabilities (N, K, S, S) of tiles, in full batches."""
        count = -(-len(tiles) // self.project.config.train.batch_size)
        batches = islice(self._batches(tiles), count)
        return np.concatenate([network(image).numpy() for image, _ in batches])[: len(tiles)]

    def _batches(self, tiles: Sequence[int]) -> Iterator[Batch]:
        """Yield full batches that cycle through the tiles."""
        rounds = len(tiles) // int(np.gcd(self.project.config.train.batch_size, len(tiles)))
        fill, batch = self.project.fill, self.project.batch
        return cycle([batch(fill(tiles, number)) for number in range(rounds)])

    @contextmanager
    def _from_initial(self) -> Iterator[None]:
        """Start from the initial state and restore it at the end."""
        self.project.state.load(self.initial)
        try:
            yield
        finally:
            self.project.state.load(self.initial)


@dataclass(frozen=True)
class Memorization:
    """All tests up to the first that failed, and other learning rates tried on that one."""

    outcomes: list[Outcome]
    best_rate: float | None = None
    """The learning rate that the range test suggests."""
    at_best_rate: tuple[float, ...] = ()
    """The losses at this rate, and those at the set rate in as many steps."""
    at_set_rate: tuple[float, ...] = ()
    deadline: float = np.inf
    """When time runs out, on the clock of `time.monotonic`."""

    @property
    def last(self) -> Outcome:
        """The outcome of the last test."""
        return self.outcomes[-1]


def memorization_test(project: Project) -> Memorization:
    """Train on 1, 4, then 9 images; if a test fails, also at other learning rates."""
    memorizer, results = Memorizer(project), list[Outcome]()
    for count in BUDGET:
        if results and len(results[-1].names) == len(memorizer.tiles(count)):
            break  # there are no more images
        results.append(memorizer.run(count))
        if not results[-1].scores.passed:
            break
    last, deadline = results[-1], memorizer.deadline
    explained = last.scores.passed or not last.in_time or not np.isfinite(last.losses).all()
    if explained or project.learning_rate is None:
        return Memorization(results, deadline=deadline)
    rate = suggest_rate(RATES, memorizer.losses_at(last.tiles, RATES))
    steps = min(COMPARED_STEPS, len(last.losses))
    at_rate = memorizer.losses_at(last.tiles, [rate] * steps)
    return Memorization(results, rate, tuple(at_rate), last.losses[: len(at_rate)], deadline)


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return a tenth of the rate with the lowest loss in a range test (Smith 2017).

    Losses are averaged over five steps. If the loss never falls, the lowest rate is chosen.
    """
    few = len(losses) < 5
    smooth = losses if few else np.convolve(losses, np.ones(5) / 5, mode="valid")
    return float(rates[int(np.argmin(smooth)) + (0 if few else 2)] / 10)
