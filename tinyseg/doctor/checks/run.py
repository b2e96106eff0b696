"""Checks of a finished run: its curves, its score and how certain that is, its worst images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.data import Dataset, prepare_images
from tinyseg.doctor.check import Check, error, finding, note, ok, only_if, warning
from tinyseg.doctor.checks.curves import DIAGNOSE, Curves, check_curves, check_end, curves_of
from tinyseg.doctor.experiments.failure_correlates import dice_of, failure_correlates
from tinyseg.doctor.figures import run_picture
from tinyseg.doctor.project import Project
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.evaluation.result import Evaluation
from tinyseg.inference.run import Run
from tinyseg.metrics.bootstrap import Interval, dice_interval, gain_of
from tinyseg.metrics.summary import foreground_mean
from tinyseg.metrics.threshold_curves import EDGES, best_edge, sweep
from tinyseg.runs.checkpoint import any_in

WIDE = 0.05
"""Half width of an interval of Dice that is worth a note."""
COSTLY = 0.1
"""Dice that a threshold costs to be an error; half of it is a warning."""
COMPARED_IMAGES, SAME = 6, 1e-3
"""Images whose probabilities are compared, and by how much two of them must differ somewhere."""
GAP = 0.1
"""Dice of training over validation from which more variety helps."""
GOOD = 0.9
"""Training Dice from which a network is large enough."""
WORST_IMAGES = 5

SPLIT_NAMES = {"train": "training images", "val": "validation images", "test": "test images"}


@dataclass(frozen=True)
class ThresholdCost:
    """What a set threshold costs compared with the best one on the scored images."""

    used: float
    best: float
    gain: Interval
    """Dice of the best over the set one."""


@dataclass(frozen=True)
class EvaluatedRun:
    """A run and its scores on the images of a split."""

    run: Run
    dataset: Dataset
    evaluation: Evaluation

    @cached_property
    def curves(self) -> Curves | None:
        """The curves in its log."""
        return curves_of(self.run)

    @cached_property
    def matrices(self) -> Array:
        """The confusion matrix of each image, (N, K, K) int64."""
        return np.stack([one.matrix for one in self.evaluation.images])

    @cached_property
    def dice(self) -> float:
        """The pooled Dice, mean of the foreground classes."""
        return foreground_mean(self.evaluation.summary.pooled["dice"])

    @cached_property
    def interval(self) -> Interval:
        """The pooled Dice with its 95 % interval, by bootstrap over images."""
        tp = self.matrices.diagonal(axis1=1, axis2=2)
        size = self.matrices.sum(1) + self.matrices.sum(2)
        return dice_interval(tp[:, 1:], size[:, 1:])

    @cached_property
    def best_baseline(self) -> tuple[float, str]:
        """The Dice and the rule of the best trivial baseline."""
        rules = self.evaluation.baselines
        return max((foreground_mean(b.summary.pooled["dice"]), b.rule) for b in rules)

    @cached_property
    def threshold_cost(self) -> ThresholdCost | None:
        """The cost of train.threshold; None if validation chose it or none is used."""
        used = self.run.config.train.threshold
        if self.evaluation.threshold_gain is None or not used:
            return None
        counts = sweep(self.evaluation.histograms.counts[:, 0])
        best = int(best_edge(2 * counts.tp.sum(0) / np.maximum(counts.size.sum(0), 1)))
        columns = [int(np.abs(EDGES - used).argmin()), best]
        gain = gain_of(counts.tp[:, columns, None], counts.size[:, columns, None])
        return ThresholdCost(used, float(EDGES[best]), gain)


def evaluate_run(project: Project) -> EvaluatedRun:
    """Evaluate the project's run on its validation images."""
    assert project.run is not None
    run, dataset = project.run, project.dataset
    evaluation = evaluate(run, dataset, surface=False, say=lambda text: None)
    return EvaluatedRun(run, dataset, evaluation)


# 1. The training and its data


def learned(case: EvaluatedRun) -> list[Finding]:
    """The run ended normally, and learned."""
    stopped = check_end(case.run)
    if stopped or case.curves is None:
        return stopped
    interval = case.interval if case.evaluation.split == "val" else None
    return [check_curves(case.curves, case.best_baseline[0], case.dice, interval)]


def data_is_unchanged(case: EvaluatedRun) -> list[Finding]:
    """The dataset is as it was in training; `all` may be any dataset."""
    same = case.dataset.fingerprint() == case.run.facts.fingerprint
    if same or case.evaluation.split == "all":
        return []
    what = f"{case.dataset.source} has changed since the run was trained"
    why = "file names, images or labels differ, so the scores are not those of the run's own data"
    return warning("data changed", what, why, "restore the files, or train again")


def images_look_alike(case: EvaluatedRun) -> list[Finding]:
    """The scored images look like the training images."""
    if not case.evaluation.drift:
        return []
    why = "the scored images differ from those the network was trained on"
    remedy = "save new images as the training images were saved; to train on both kinds, remove "
    return warning("drift", case.evaluation.drift, why, f"{remedy}data.split_file")


# 2. The score


def threshold_is_good(case: EvaluatedRun) -> list[Finding]:
    """The threshold in the settings does not cost much."""
    cost = case.threshold_cost
    if cost is None or cost.gain.mean < COSTLY / 2 or cost.gain.low <= 0:
        return []
    level = "error" if cost.gain.mean >= COSTLY else "warning"
    what = f"train.threshold={cost.used:g} costs {cost.gain.mean:.3f} Dice (95 % interval "
    what += f"{cost.gain.low:.3f} to {cost.gain.high:.3f}) compared with {cost.best:.2f}, the best "
    what += "threshold on these images"
    remedy = "set train.threshold=0 in the run's config.toml, or use `tinyseg predict` with "
    remedy += f"--threshold {cost.best:.2f}"
    return finding(
        level, "threshold", what, "the network is better than its masks at this threshold", remedy
    )


def beats_baselines(case: EvaluatedRun) -> list[Finding]:
    """The run is better than trivial baselines and predicts different masks for images."""
    predicted = case.matrices[:, :, 1:].sum((1, 2)) / np.maximum(case.matrices.sum((1, 2)), 1)
    if not predicted.any() and case.matrices[:, 1:].any():
        what = f"the run predicts no foreground in any of {len(predicted)} images"
        why = "networks do this when the training images contain too little foreground"
        remedy = "set train.loss=auto (half Dice) and train.threshold=0, and train for more epochs"
        return error("all background", what, why, remedy)
    if (predicted == 1).all() and len(predicted) > 1:
        what = f"the run predicts every pixel of {len(predicted)} images as foreground"
        why = "the network does not tell foreground from background"
        remedy = "set train.threshold=0, and check the labels with `tinyseg data check DATA`"
        return error("all foreground", what, why, remedy)
    if same_output(case):
        what = "different images get the same probabilities, pixel for pixel"
        why = "the network has learned the mean of the labels, and nothing from the images"
        return error("same output", what, why, DIAGNOSE)
    best, rule = case.best_baseline
    if case.dice <= best:
        what = f"Dice {case.dice:.3f} is not better than the trivial baseline {rule!r} ({best:.3f})"
        remedy = f"{DIAGNOSE}; if it finds nothing, train for more epochs"
        return warning("baseline", what, "a simple rule without a network does as well", remedy)
    return ok("baseline", f"Dice {case.dice:.3f}; the best trivial baseline ({rule}) {best:.3f}")


def same_output(case: EvaluatedRun) -> bool:
    """Return whether a few different images have the same probabilities."""
    names = case.evaluation.names[:COMPARED_IMAGES]
    images = [t.pixels for t in prepare_images(case.dataset, names, case.run.input_pipeline)]
    if all((image == images[0]).all() for image in images):
        return False
    first, *others = case.run.predictor(images)
    return all(float(np.abs(p_khw - first).max()) < SAME for p_khw in others)


def score_is_certain(case: EvaluatedRun) -> list[Finding]:
    """The score would be much the same on other images of this kind."""
    count, interval = len(case.evaluation.images), case.interval
    if count < 2:
        return []
    half = (interval.high - interval.low) / 2
    images = SPLIT_NAMES.get(case.evaluation.split, "images")
    what = f"Dice {interval.mean:.3f} on {count} {images}, 95 % interval {interval.low:.3f} to "
    what += f"{interval.high:.3f}"
    why = f"a difference of less than about {half:.3f} to another run may be due to chance"
    remedy = "compare runs on the same images (`tinyseg report RUN RUN`) and with several seeds; "
    remedy += "`tinyseg train --folds 5` validates on every image"
    return finding("note" if half > WIDE else "ok", "certainty", what, why, remedy)


# 3. What to look at, and what to try


def worst_images(case: EvaluatedRun) -> list[Finding]:
    """Report what the images with the lowest Dice have in common."""
    sentences = failure_correlates(case.dataset, case.evaluation)
    dice, names = dice_of(case.evaluation), case.evaluation.names
    order = [int(i) for i in np.argsort(dice, kind="stable") if np.isfinite(dice[i])]
    order = order[:WORST_IMAGES]
    worst = [names[i] for i in order]
    lines = [f"Dice {dice[i]:.3f}  {names[i]}" for i in order]
    picture = run_picture(case.run, case.dataset, worst, lines) if worst else None
    if not sentences:
        return ok("worst images", "no measured feature explains them", "", "", lines, picture)
    why = "the score can gain most on these images: add similar ones, or raise data.size"
    return note("worst images", "; ".join(sentences), why, "", lines, picture)


def next_steps(case: EvaluatedRun) -> list[Finding]:
    """Report what to try, the largest expected gain first."""
    if case.curves is None:
        return []
    config, train, val = case.run.config, case.curves["train_dice"], case.curves["val_dice"]
    gap, steps = case.curves.gap, list[tuple[float, str]]()
    if (cost := case.threshold_cost) and cost.gain.low > 0:
        steps.append((cost.gain.mean, f"train.threshold=0: {cost.used:g} costs Dice"))
    if gap > GAP and config.train.augment == "none":
        text = f"train.augment=medium: training Dice is {gap:.2f} above validation Dice (on BUSI, "
        steps.append((gap, f"{text}this gained 0.05 on test images)"))
    if gap > GAP:
        half = f"data.max_train_images={max(1, len(case.run.split.train) // 2)}"
        steps.append((gap / 2, f"more images: a run with {half} shows what the other half gains"))
    if case.curves.still_rising:
        text = f"{case.curves.more_epochs}: validation Dice was still rising at the end"
        steps.append((max(float(val[-1] - val[len(val) // 2]), 0), text))
    if train[-1] < GOOD:
        text = f"{config.model.larger}, or a higher learning rate: training Dice is low"
        steps.append(((GOOD - train[-1]) / 2, text))
    steps.append((0.01, "--tta auto, or --with RUN for runs of other seeds: a small, slow gain"))
    lines = [text for _, text in sorted(steps, reverse=True)]
    return ok("what to try", "the largest expected gain first", evidence=lines)


RUN_CASE_CHECKS: tuple[Callable[[EvaluatedRun], list[Finding]], ...] = (
    learned,
    data_is_unchanged,
    threshold_is_good,
    beats_baselines,
    images_look_alike,
    score_is_certain,
    worst_images,
    next_steps,
)


def check_run(case: EvaluatedRun) -> list[Finding]:
    """Return the findings of all checks of an evaluated run."""
    return [one for check in RUN_CASE_CHECKS for one in check(case)]


def without_checkpoint(run: Run) -> list[Finding]:
    """Return why a run has no checkpoint yet."""
    what = f"{run.folder} has no checkpoint: no epoch has been completed"
    remedy = "continue it with `tinyseg train` and --resume"
    return check_end(run) or note("no checkpoint", what, "", remedy)


@only_if(lambda project: project.run is not None)
def finished_run(project: Project) -> list[Finding]:
    """All checks of a finished run."""
    assert project.run is not None
    if not any_in(project.run.checkpoints):
        return without_checkpoint(project.run)
    return check_run(project.once(evaluate_run))


RUN_CHECKS: tuple[Check, ...] = (finished_run,)
