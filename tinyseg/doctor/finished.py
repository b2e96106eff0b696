"""What a finished run shows: its curves, its score and how sure that is, its worst images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.backend import Array
from tinyseg.data import Dataset
from tinyseg.doctor.project import Project
from tinyseg.doctor.show import run_picture
from tinyseg.doctor.worst import common
from tinyseg.evaluate import Evaluation, evaluate
from tinyseg.findings import Finding
from tinyseg.metrics import foreground_mean
from tinyseg.run import Run
from tinyseg.thresholds import EDGES, Interval, gain_of, outcomes
from tinyseg.track import Epoch, history

RESAMPLES = 1000
MOVES = 0.05
"""Share by which a loss, or Dice by which a score, has to move in a run."""
APART = 0.2
"""Dice of training over validation from which a network is said to know images by heart."""
LOW = 0.6
"""Training Dice below which the network has not even learned its own images."""
BOTTLENECK = 0.1
"""Dice that a threshold costs, from which it is what spoils a run; from half of it, it is told."""


@dataclass(frozen=True)
class Finished:
    """A run with its epochs and its scores on the validation images."""

    run: Run
    dataset: Dataset
    epochs: list[Epoch]
    found: Evaluation

    @property
    def matrices(self) -> Array:
        """(N, K, K) int64, confusion of each image."""
        return np.stack([one.matrix for one in self.found.images])

    @property
    def dice(self) -> float:
        """Pooled, mean of the foreground classes."""
        return float(pooled_dice(self.matrices.sum(0)))

    def values(self, name: str) -> Array:
        """A number of all epochs that have it."""
        return np.array([e[name] for e in self.epochs if e[name] is not None], float)


def pooled_dice(matrix: Array) -> Array:
    """Mean Dice (...,) of the foreground classes that are anywhere in confusions (..., K, K)."""
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)[..., 1:]
    size = (matrix.sum(-1) + matrix.sum(-2))[..., 1:]
    dice = np.where(size > 0, 2 * hit / np.maximum(size, 1), np.nan)
    known = np.maximum((~np.isnan(dice)).sum(-1), 1)
    return np.asarray(np.nansum(dice, axis=-1) / known)


def interval(matrices: Array, seed: int = 0) -> Interval:
    """The pooled Dice with its 95 % over images drawn anew."""
    count = len(matrices)
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    dice = np.stack([pooled_dice(matrices[row].sum(0)) for row in drawn])
    return Interval(float(pooled_dice(matrices.sum(0))), *np.percentile(dice, (2.5, 97.5)).tolist())


def finished(project: Project) -> Finished:
    """Evaluates the project's run on its validation images."""
    assert project.run is not None
    run, dataset = project.run, project.dataset
    found = evaluate(run, dataset, surface=False, say=lambda text: None)
    return Finished(run, dataset, history(run.log), found)


# 1. Curves


def ended(case: Finished) -> list[Finding]:
    """Training went on to its end."""
    files = sorted(path.name for path in case.run.folder.glob("nonfinite-step-*.npz"))
    wanted = case.run.config.train.epochs
    if files and len(case.epochs) < wanted and not case.run.config.train.phases:
        return [
            Finding(
                "error",
                "not finite",
                f"training stopped at a number that is not finite, after {len(case.epochs)} of "
                f"{wanted} epochs",
                "what is scored here is an early state of the network",
                "mend the image that the error named, or lower the learning rate, or train.clip=1",
                tuple(files),
            )
        ]
    return []


def plateau(case: Finished) -> list[Finding]:
    """Loss and score have moved since the first epoch."""
    loss, dice = case.values("loss"), case.values("val_dice")
    if len(loss) < 3 or not loss[0] or not len(dice):
        return []
    fall, rise = 1 - loss.min() / loss[0], dice.max() - dice[0]
    if loss[-1] > 2 * loss[0]:
        seen = f"the loss has grown from {loss[0]:.3g} to {loss[-1]:.3g}"
        why, remedy = "steps are too long to follow the gradient", "lower the learning rate tenfold"
        return [Finding("error", "exploded", seen, why, remedy)]
    if fall >= MOVES or rise >= MOVES:
        return []
    return [
        Finding(
            "error",
            "plateau",
            f"nothing has moved in {len(loss)} epochs: loss {loss[0]:.3g} to {loss.min():.3g}, "
            f"validation Dice {dice[0]:.3f} to {dice.max():.3f}",
            "a run that stands still from its first epoch has a cause that no patience mends",
            "`tinyseg doctor DATA` with the run's settings finds it: the learning rate most often",
        )
    ]


def fit(case: Finished) -> list[Finding]:
    """Training and validation are not far apart, and training is not low."""
    train, val = case.values("train_dice"), case.values("val_dice")
    if not (len(train) and len(val)):
        return []
    sure, best = interval(case.matrices), int(val.argmax())
    told = f"training Dice {train[-1]:.2f}, validation {val[-1]:.2f} (best {val.max():.2f}, epoch "
    told += f"{best + 1} of {len(val)})"
    if train[-1] - val.max() > APART and train[-1] > sure.high:
        why = "the network knows its images by heart and reads new ones much worse"
        remedy = "train.augment=medium, then more images; patience=10 saves the time after the best"
        return [Finding("warning", "overfitting", told, why, remedy)]
    if train[-1] < LOW and len(val) - best <= max(1, len(val) // 10):
        why = "it had not learned its own training images when it ended"
        remedy = f"train.epochs={2 * len(val)}, or a higher learning rate, or model.base="
        remedy += f"{2 * case.run.config.model.base}"
        return [Finding("warning", "underfitting", told, why, remedy)]
    return [Finding("ok", "curves", told)]


# 2. The score


def certainty(case: Finished) -> list[Finding]:
    """How far the score would move on other images of the same kind."""
    count = len(case.found.images)
    if count < 2:
        return []
    sure = interval(case.matrices)
    half = (sure.high - sure.low) / 2
    return [
        Finding(
            "note" if half > MOVES else "ok",
            "certainty",
            f"validation Dice {sure.mean:.3f} from {count} images, 95 % {sure.low:.3f} to "
            f"{sure.high:.3f}",
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
        seen = "every pixel of every image is predicted as foreground"
        remedy = "look at train.threshold, and at the labels: `tinyseg data check DATA`"
        return [Finding("error", "all foreground", seen, "nothing is told apart", remedy)]
    scores = [(foreground_mean(b.summary.pooled["dice"]), b.rule) for b in case.found.baselines]
    best, rule = max(scores)
    if case.dice <= best:
        seen = f"Dice {case.dice:.3f} does not beat {rule!r} ({best:.3f}), which needs no network"
        why = "whatever was learned is worth less than a rule of one line"
        remedy = "`tinyseg doctor DATA` with these settings; then more epochs"
        return [Finding("warning", "baseline", seen, why, remedy)]
    return [
        Finding("ok", "baseline", f"Dice {case.dice:.3f}, the best baseline ({rule}) {best:.3f}")
    ]


def threshold(case: Finished) -> list[Finding]:
    """The threshold that is set does not cost much."""
    used = case.run.config.train.threshold
    if case.found.worth is None or not used:
        return []
    every = outcomes(case.found.histograms.counts[:, 0])
    hit, size = every.hit, 2 * every.hit + every.false + every.missed
    best = int((2 * hit.sum(0) / np.maximum(size.sum(0), 1)).argmax())
    rules = [int(np.abs(EDGES - used).argmin()), best]
    gain = gain_of(hit[:, rules], size[:, rules])
    if gain.mean < BOTTLENECK / 2 or gain.low <= 0:
        return []
    return [
        Finding(
            "error" if gain.mean >= BOTTLENECK else "warning",
            "threshold",
            f"train.threshold={used:g} costs {gain.mean:.3f} Dice (95 % {gain.low:.3f} to "
            f"{gain.high:.3f}) beside {EDGES[best]:.2f}, the best on these images",
            "the network is better than its masks",
            "set train.threshold=0 in the run's config.toml, or give --threshold to predict",
        )
    ]


def same_data(case: Finished) -> list[Finding]:
    """The data are those of the training."""
    if case.dataset.fingerprint() == case.run.facts.fingerprint:
        return []
    seen = f"{case.dataset.source} is not as it was when the run was trained on it"
    why = "names, files or labels have changed since: scores are of other data"
    remedy = "restore it, or train anew"
    return [Finding("warning", "data changed", seen, why, remedy)]


# 3. What to look at, and what to try


def worst_images(case: Finished) -> list[Finding]:
    """What the images with the lowest Dice have in common."""
    told = common(case.dataset, case.found)
    dice = np.array([foreground_mean(one.values["dice"]) for one in case.found.images])
    order = [int(i) for i in np.argsort(dice, kind="stable") if np.isfinite(dice[i])][:5]
    names = [case.found.names[i] for i in order]
    lines = tuple(f"Dice {dice[i]:.3f}  {case.found.names[i]}" for i in order)
    picture = run_picture(case.run, case.dataset, names, lines) if names else None
    level, seen = ("note", "; ".join(told)) if told else ("ok", "nothing measured sets them apart")
    why = "where errors gather there is something to be had: images, size, contrast"
    return [Finding(level, "worst images", seen, why * bool(told), "", lines, picture)]


def next_steps(case: Finished) -> list[Finding]:
    """What to try, the largest expected gain first."""
    train, val = case.values("train_dice"), case.values("val_dice")
    if not (len(train) and len(val)):
        return []
    config, gap = case.run.config, float(train[-1] - val.max())
    late = val.argmax() >= 0.9 * len(val) - 1
    steps: list[tuple[float, str]] = []
    if config.train.threshold and (cost := threshold(case)):
        steps.append((1.0, f"train.threshold=0: {cost[0].seen}"))
    if gap > 0.1 and config.train.augment == "none":
        why = "training is ahead by"
        steps.append((gap, f"train.augment=medium: {why} {gap:.2f} Dice (BUSI: +0.05 on the test)"))
    if gap > 0.1:
        steps.append((gap / 2, "more images: about every doubling halves the gap that is left"))
    if late:
        rise = float(val[-1] - val[len(val) // 2])
        steps.append((max(rise, 0), f"train.epochs={2 * len(val)}: it still rose at the end"))
    if train[-1] < 0.9:
        base = 2 * config.model.base
        steps.append(((0.9 - train[-1]) / 2, f"model.base={base}, or a higher learning rate"))
    steps.append((0.01, "--tta flips, or --with of runs of other seeds: a little, for time alone"))
    lines = tuple(text for _, text in sorted(steps, reverse=True))
    return [Finding("ok", "what to try", "in order of what it may bring", evidence=lines)]


CaseCheck = Callable[[Finished], list[Finding]]

CASE_CHECKS: Sequence[CaseCheck] = (
    ended,
    same_data,
    plateau,
    threshold,
    fit,
    worth,
    certainty,
    worst_images,
    next_steps,
)
"""On a run that has been evaluated."""


def examine_run(case: Finished) -> list[Finding]:
    """All that a finished run shows."""
    return [finding for check in CASE_CHECKS for finding in check(case)]


def _run(project: Project) -> list[Finding]:
    return examine_run(project.once(finished)) if project.run else []


FINISHED_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (_run,)
