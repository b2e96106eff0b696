"""What a finished run shows: its curves, its score and how sure that is, its worst images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.data import Dataset, prepare_images
from tinyseg.doctor.checks.curves import Curves, curves_of, ended, learned, longer
from tinyseg.doctor.experiments.failure_correlates import common, dice_of
from tinyseg.doctor.figures import run_picture
from tinyseg.doctor.project import Project
from tinyseg.evaluation.evaluate import Evaluation, evaluate
from tinyseg.inference.run import Run
from tinyseg.metrics.bootstrap import Interval, dice_interval, gain_of
from tinyseg.metrics.summary import foreground_mean
from tinyseg.metrics.threshold_curves import EDGES, best_edge, outcomes
from tinyseg.runs.checkpoint import any_in

WIDE = 0.05
"""Half of an interval of Dice that is worth a remark."""
BOTTLENECK = 0.1
"""Dice that a threshold costs, from which it is what spoils a run; from half of it, it is told."""
FEW, ALIKE = 6, 1e-3
"""Images whose maps are compared, and probability by which two of them must differ somewhere."""
AHEAD = 0.1
"""Dice of training over validation from which more variety helps."""
WELL = 0.9
"""Training Dice from which a network has room enough."""

IMAGES = {"train": "training images", "val": "validation images", "test": "test images"}
"""What a split has, in words; all others are images."""


@dataclass(frozen=True)
class Cost:
    """What a set threshold costs beside the best on the images that are scored."""

    used: float
    best: float
    gain: Interval
    """Dice of the best over the set one."""


@dataclass(frozen=True)
class Finished:
    """A run with its scores on the images of a split, each conclusion drawn once."""

    run: Run
    dataset: Dataset
    found: Evaluation

    @cached_property
    def curves(self) -> Curves | None:
        """What its log tells of its epochs."""
        return curves_of(self.run)

    @cached_property
    def matrices(self) -> Array:
        """(N, K, K) int64, confusion of each image."""
        return np.stack([one.matrix for one in self.found.images])

    @cached_property
    def dice(self) -> float:
        """Pooled, mean of the foreground classes."""
        return foreground_mean(self.found.summary.pooled["dice"])

    @cached_property
    def sure(self) -> Interval:
        """The same with its 95 % over images drawn anew."""
        hit = self.matrices.diagonal(axis1=1, axis2=2)
        size = self.matrices.sum(1) + self.matrices.sum(2)
        return dice_interval(hit[:, 1:], size[:, 1:])

    @cached_property
    def best_rule(self) -> tuple[float, str]:
        """The Dice of the best baseline, and its rule."""
        rules = self.found.baselines
        return max((foreground_mean(b.summary.pooled["dice"]), b.rule) for b in rules)

    @cached_property
    def cost(self) -> Cost | None:
        """Of train.threshold; None where validation chose it, or none is used."""
        used = self.run.config.train.threshold
        if self.found.worth is None or not used:
            return None
        every = outcomes(self.found.histograms.counts[:, 0])
        size = 2 * every.hit + every.false + every.missed
        best = int(best_edge(2 * every.hit.sum(0) / np.maximum(size.sum(0), 1)))
        rules = [int(np.abs(EDGES - used).argmin()), best]
        return Cost(used, float(EDGES[best]), gain_of(every.hit[:, rules], size[:, rules]))


def finished(project: Project) -> Finished:
    """Evaluates the project's run on its validation images."""
    assert project.run is not None
    run, dataset = project.run, project.dataset
    return Finished(run, dataset, evaluate(run, dataset, surface=False, say=lambda text: None))


# 1. The data, and how it was learned


def same_data(case: Finished) -> list[Finding]:
    """A run's own splits are those of its training; `all` may be of any data."""
    own = case.dataset.fingerprint() == case.run.facts.fingerprint
    if own or case.found.split == "all":
        return []
    seen = f"{case.dataset.source} is not as it was when the run was trained on it"
    why = "names, files or labels have changed since: scores are of other data"
    remedy = "restore it, or train anew"
    return [Finding("warning", "data changed", seen, why, remedy)]


def seen_before(case: Finished) -> list[Finding]:
    """The images are like those that the network has learned from."""
    if not case.found.drift:
        return []
    why = "the score is of other images than those that were learned"
    remedy = "split at random (data.split_seed, data.stratify=true), prepare images as those of "
    remedy += "the training, or know that you test for another device"
    return [Finding("warning", "drawn apart", case.found.drift, why, remedy)]


def progress(case: Finished) -> list[Finding]:
    """It went on to its end, and learned."""
    stopped = ended(case.run)
    if stopped or case.curves is None:
        return stopped
    sure = case.sure if case.found.split == "val" else None
    return [learned(case.curves, case.best_rule[0], case.dice, sure)]


# 2. The score


def certainty(case: Finished) -> list[Finding]:
    """How far the score would move on other images of the same kind."""
    count, sure = len(case.found.images), case.sure
    if count < 2:
        return []
    half = (sure.high - sure.low) / 2
    images = f"{count} {IMAGES.get(case.found.split, 'images')}"
    return [
        Finding(
            "note" if half > WIDE else "ok",
            "certainty",
            f"Dice {sure.mean:.3f} on {images}, 95 % {sure.low:.3f} to {sure.high:.3f}",
            f"a run that is better by less than about {half:.3f} may owe it to these images",
            "compare runs on the same images (`tinyseg report RUN RUN`) and over seeds; --folds 5 "
            "uses every image",
        )
    ]


def worth(case: Finished) -> list[Finding]:
    """The run beats what needs no network, and says different things of different images."""
    predicted = case.matrices[:, :, 1:].sum((1, 2)) / np.maximum(case.matrices.sum((1, 2)), 1)
    labelled = case.matrices[:, 1:].sum((1, 2))
    if not predicted.any() and labelled.any():
        seen = f"nothing is predicted in any of {len(predicted)} images"
        why = "all background is the answer of a network that has seen too little foreground"
        remedy = "train.loss=auto (half Dice), train.threshold=0, more epochs"
        return [Finding("error", "all background", seen, why, remedy)]
    if (predicted == 1).all() and len(predicted) > 1:
        seen = f"every pixel of {len(predicted)} images is predicted as foreground"
        remedy = "look at train.threshold, and at the labels: `tinyseg data check DATA`"
        return [Finding("error", "all foreground", seen, "nothing is told apart", remedy)]
    if _same_answer(case):
        seen = "images that differ get the same probabilities, pixel for pixel"
        why = "what is in an image does not reach the output: it has learned the mean of the labels"
        remedy = "`tinyseg doctor DATA` with these settings: inputs, dead channels, learning rate"
        return [Finding("error", "same output", seen, why, remedy)]
    best, rule = case.best_rule
    if case.dice <= best:
        seen = f"Dice {case.dice:.3f} does not beat {rule!r} ({best:.3f}), which needs no network"
        why = "whatever was learned is worth less than a rule of one line"
        remedy = "`tinyseg doctor DATA` with these settings; then more epochs"
        return [Finding("warning", "baseline", seen, why, remedy)]
    return [
        Finding("ok", "baseline", f"Dice {case.dice:.3f}, the best baseline ({rule}) {best:.3f}")
    ]


def _same_answer(case: Finished) -> bool:
    """Whether squares of a few unlike images come out alike."""
    squares = list(prepare_images(case.dataset, case.found.names[:FEW], case.run.input_pipeline))
    images = [square.pixels for square in squares]
    if all((image == images[0]).all() for image in images):
        return False
    first, *others = case.run.predictor(images)
    return all(float(np.abs(p_khw - first).max()) < ALIKE for p_khw in others)


def threshold(case: Finished) -> list[Finding]:
    """The threshold that is set does not cost much."""
    cost = case.cost
    if cost is None or cost.gain.mean < BOTTLENECK / 2 or cost.gain.low <= 0:
        return []
    return [
        Finding(
            "error" if cost.gain.mean >= BOTTLENECK else "warning",
            "threshold",
            f"train.threshold={cost.used:g} costs {cost.gain.mean:.3f} Dice (95 % "
            f"{cost.gain.low:.3f} to {cost.gain.high:.3f}) beside {cost.best:.2f}, the best on "
            "these images",
            "the network is better than its masks",
            "set train.threshold=0 in the run's config.toml, or give --threshold to predict",
        )
    ]


# 3. What to look at, and what to try


def worst_images(case: Finished) -> list[Finding]:
    """What the images with the lowest Dice have in common."""
    told, dice = common(case.dataset, case.found), dice_of(case.found)
    order = [int(i) for i in np.argsort(dice, kind="stable") if np.isfinite(dice[i])][:5]
    names = [case.found.names[i] for i in order]
    lines = tuple(f"Dice {dice[i]:.3f}  {case.found.names[i]}" for i in order)
    picture = run_picture(case.run, case.dataset, names, lines) if names else None
    level, seen = ("note", "; ".join(told)) if told else ("ok", "nothing measured sets them apart")
    why = "where errors gather there is something to be had: images, size, contrast"
    return [Finding(level, "worst images", seen, why * bool(told), "", lines, picture)]


def next_steps(case: Finished) -> list[Finding]:
    """What to try, the largest expected gain first."""
    if case.curves is None:
        return []
    config, train, val = case.run.config, case.curves["train_dice"], case.curves["val_dice"]
    gap, steps = case.curves.gap, list[tuple[float, str]]()
    if (cost := case.cost) and cost.gain.low > 0:
        steps.append((cost.gain.mean, f"train.threshold=0: {cost.used:g} costs Dice"))
    if gap > AHEAD and config.train.augment == "none":
        text = f"train.augment=medium: training is ahead by {gap:.2f} Dice (BUSI: +0.05 on the test"
        steps.append((gap, f"{text}, three seeds)"))
    if gap > AHEAD:
        half = f"data.max_train_images={max(1, len(case.run.split.train) // 2)}"
        text = f"more images: a run with {half} tells what the last half of them brought"
        steps.append((gap / 2, text))
    if case.curves.late:
        rise = float(val[-1] - val[len(val) // 2])
        steps.append((max(rise, 0), f"{longer(case.curves)}: it still rose at the end"))
    if train[-1] < WELL:
        base = 2 * config.model.base_channels
        steps.append(
            ((WELL - train[-1]) / 2, f"model.base_channels={base}, or a higher learning rate")
        )
    steps.append((0.01, "--tta flips, or --with of runs of other seeds: a little, for time alone"))
    lines = tuple(text for _, text in sorted(steps, reverse=True))
    return [Finding("ok", "what to try", "in order of what it may bring", evidence=lines)]


CaseCheck = Callable[[Finished], list[Finding]]

CASE_CHECKS: Sequence[CaseCheck] = (
    progress,
    same_data,
    threshold,
    worth,
    seen_before,
    certainty,
    worst_images,
    next_steps,
)
"""On a run that has been evaluated."""


def examine_run(case: Finished) -> list[Finding]:
    """All that a finished run shows."""
    return [finding for check in CASE_CHECKS for finding in check(case)]


def without_network(run: Run) -> list[Finding]:
    """A run that has no checkpoint yet, and why."""
    seen = f"{run.folder} has no checkpoint: no epoch of it has ended"
    remedy = "`tinyseg train` with --resume goes on with it"
    return ended(run) or [Finding("note", "no checkpoint", seen, "", remedy)]


def _run(project: Project) -> list[Finding]:
    if project.run is None:
        return []
    if not any_in(project.run.checkpoints):
        return without_network(project.run)
    return examine_run(project.once(finished))


FINISHED_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (_run,)
