"""Why images were not learned by heart: the reasons, the surest first."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.experiments.memorization import (
    BUDGET,
    CLEAR,
    TRIAL_STEPS,
    Attempt,
    Lesson,
    School,
)
from tinyseg.doctor.project import Project
from tinyseg.losses import Loss
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.training.overfit import PASS_DICE

STUCK = 0.05
"""A loss that falls by less than this share of itself has not moved."""
BETTER, MUCH_BETTER = 0.75, 0.25
"""Another learning rate is the reason when its loss falls below this share of the set one's, where
that has not moved, and where it has."""
ALIKE = 0.99
"""Correlation from which two maps are called the same."""
FLAT = 1e-3
"""Spread of probabilities below which a map is of one grey."""
LEAST_SECONDS = 5.0
"""That must be left for a lesson with another setting, which compiles a step first."""
MOST_BASE = 64
"""Channels of a first level that four times as many would make too slow."""

SET_NONE = "set train.threshold=0: validation then finds the best one, and predict uses it"


def why_not(project: Project, found: Attempt) -> Finding:
    """The likeliest reason why the last lesson failed."""
    last = found.lessons[-1]
    tried = last.in_time or len(last.losses) >= TRIAL_STEPS
    known = REASONS if tried else (_diverged,)  # a slow machine is no reason
    reasons = (finding for reason in known if (finding := reason(project, found)))
    return next(reasons, _not_finished(found))


def _diverged(project: Project, found: Attempt) -> Finding | None:
    losses = found.lessons[-1].losses
    if np.isfinite(losses).all():
        return None
    seen = f"the loss was {losses[-1]} in step {len(losses)}"
    remedy = "lower the learning rate tenfold, or set train.grad_clip=1"
    return Finding("error", "diverged", seen, "weights grew until numbers overflowed", remedy)


def _one_sided(project: Project, found: Attempt) -> Finding | None:
    """Probabilities stay on one side of 0.5, though their order is right."""
    scores = found.lessons[-1].scores
    maps = scores.probabilities
    if maps.shape[1] > 1 or maps.min() < HALF - FLAT or min(scores.best) < PASS_DICE:
        return None
    return Finding(
        "error",
        "one-sided output",
        f"the images are learned, yet no probability lies below {maps.min():.2f}, for the clearest "
        "background either: no logit is negative",
        "a sigmoid or ReLU at the network's end lets no logit below 0; the loss and prediction "
        "take the sigmoid of what comes out",
        "end the network with its last convolution: no sigmoid, no ReLU",
    )


def _threshold(project: Project, found: Attempt) -> Finding | None:
    last = found.lessons[-1]
    if (
        min(last.scores.best) < PASS_DICE
        or np.mean(last.scores.best) - np.mean(last.scores.dice) < CLEAR
    ):
        return None
    chosen = bool(project.config.train.threshold)
    if not chosen and (other := _other_loss(project, found)):
        return other
    middle = float(np.median(last.scores.best_threshold))
    return Finding(
        "error" if chosen else "warning",
        "threshold",
        f"all images are learned, but the threshold {last.threshold:g} hides it: Dice "
        f"{np.mean(last.scores.dice):.2f}, at {middle:.2f} it is {np.mean(last.scores.best):.2f}",
        "the probabilities are right in their order; only where they are cut is wrong",
        SET_NONE
        if chosen
        else "leave train.threshold=0 as it is; a loss with a Dice part brings "
        "the best threshold near 0.5",
    )


def _gap(project: Project, found: Attempt) -> Finding | None:
    last = found.lessons[-1]
    if not last.in_training or min(last.in_training) < max(
        PASS_DICE, min(last.scores.dice) + CLEAR
    ):
        return None
    return Finding(
        "warning",
        "eval mode",
        f"in training mode all images are learned (worst Dice {min(last.in_training):.2f}), in "
        f"evaluation they are not ({min(last.scores.dice):.2f})",
        "evaluation normalises by running statistics, and these are not those of the images",
        "raise train.batch_size, set model.norm=group, or look at the momentum of BatchNorm",
    )


def _rate(project: Project, found: Attempt) -> Finding | None:
    if found.rate is None or len(found.at_rate) < 5:
        return None
    there, here = (float(np.median(losses[-5:])) for losses in (found.at_rate, found.at_set))
    moved = here < (1 - STUCK) * found.at_set[0]
    if not there < (MUCH_BETTER if moved else BETTER) * here:
        return None
    return Finding(
        "warning" if moved else "error",
        "learning rate",
        f"in {len(found.at_rate)} steps the loss comes from {found.at_set[0]:.3g} to {here:.3g}; "
        f"at a learning rate of {found.rate:.0e} it comes to {there:.3g}",
        "it learns, but slowly" if moved else "the set rate is far from where this network learns",
        f"set the rate in train.optimizer to about {found.rate:.0e}",
    )


def _one_only(project: Project, found: Attempt) -> Finding | None:
    last = found.lessons[-1]
    learned = [n for n, dice in zip(last.names, last.scores.dice, strict=True) if dice >= PASS_DICE]
    if len(last.names) < 2 or len(learned) != 1 or max(sorted(last.scores.dice)[:-1]) > 0.8:
        return None
    return Finding(
        "error",
        "one image",
        f"only one of {len(last.names)} images was learned: {learned[0]}",
        "the step sees the same image whatever it is given",
        "look at how batches reach the step: an index or a slice that the JIT has baked in",
    )


def _same(project: Project, found: Attempt) -> Finding | None:
    last = found.lessons[-1]
    maps = last.scores.probabilities[:, -1].reshape(len(last.names), -1)
    if maps.std(axis=1).max() < FLAT:
        seen = f"every pixel gets the same probability, {maps.mean():.3g}"
        why = "a network that says one thing for all has found the mean of the labels, no more"
    elif len(maps) > 1 and np.corrcoef(maps)[0, 1:].min() > ALIKE:
        seen, why = "all images get the same mask", "what is in the image does not reach the output"
    else:
        return None
    remedy = (
        "look at the inputs (normalised?), at the learning rate, and at a loss with a Dice part"
    )
    return Finding("error", "same output", seen, why, remedy)


def _copy(project: Project, found: Attempt) -> Finding | None:
    last = found.lessons[-1]
    images = project.input_pipeline.to_batch([project.squares[square] for square in last.squares])
    maps = last.scores.probabilities[:, -1].reshape(len(images), -1)
    alike = [
        min(
            abs(float(np.corrcoef(p, x[c].ravel())[0, 1]))
            for p, x in zip(maps, images, strict=True)
        )
        for c in range(images.shape[1])
    ]
    if not max(alike) > ALIKE:
        return None
    return Finding(
        "error",
        "copies input",
        f"the prediction is the image itself (correlation {max(alike):.3f})",
        "a path around the network is all that reaches the output",
        "look at what is added to or joined with the output, and at the labels: are they images?",
    )


def _stuck(project: Project, found: Attempt) -> Finding | None:
    losses = found.lessons[-1].losses
    fall = 1 - float(np.median(losses[-5:])) / max(losses[0], 1e-12)
    if fall >= STUCK:
        return None
    return Finding(
        "error",
        "stuck",
        f"the loss has moved from {losses[0]:.4g} to {np.median(losses[-5:]):.4g} only",
        "no rate that was tried does better: the gradient does not lead anywhere",
        "try train.loss=auto, then a network as `tinyseg train` makes it; what helps is the cause",
    )


def _loss(project: Project, found: Attempt) -> Finding | None:
    return None if _slow(found.lessons[-1]) else _other_loss(project, found)


def _other_loss(project: Project, found: Attempt) -> Finding | None:
    """The default loss learns what the set one does not."""
    if project.foreign or project.loss.text == Loss.parse("auto", project.model_channels).text:
        return None
    why = f"train.loss={project.config.train.loss} is content with masks that are not right"
    return _otherwise(project, found, "loss", "train.loss=auto", why)


def _capacity(project: Project, found: Attempt) -> Finding | None:
    """A network of four times the channels learns what this one does not."""
    base = project.config.model.base_channels
    if _slow(found.lessons[-1]) or base > MOST_BASE:
        return None
    why = f"model.base_channels={base} has too few channels for these images"
    return _otherwise(project, found, "capacity", f"model.base_channels={4 * base}", why)


def _otherwise(
    project: Project, found: Attempt, check: str, setting: str, why: str
) -> Finding | None:
    """The same lesson with one other setting; None where it fails too, or could not tell."""
    last = found.lessons[-1]
    if project.foreign or not last.in_time or time.monotonic() > found.end - LEAST_SECONDS:
        return None
    other = Project(project.source, project.config.override([setting]))
    lesson = School(other, found.end).lesson(list(BUDGET)[len(found.lessons) - 1])
    if not lesson.scores.passed:
        return None
    seen = f"{_told(last)}; with {setting} all are learned in {len(lesson.losses)} steps"
    return Finding("warning", check, seen, why, f"set {setting}")


def _slow(lesson: Lesson) -> bool:
    """Whether more steps may still do it; a single image is learned in time by what is healthy."""
    return _falls(lesson.losses) and len(lesson.names) > 1


def _falls(losses: Sequence[float]) -> bool:
    """Whether the loss still falls in the second half."""
    half = len(losses) // 2
    return bool(np.median(losses[-10:]) < 0.9 * np.median(losses[half - 5 : half + 5]))


def _told(lesson: Lesson) -> str:
    learned = sum(dice >= PASS_DICE for dice in lesson.scores.dice)
    return (
        f"{learned} of {len(lesson.names)} images at Dice >= {PASS_DICE} after "
        f"{len(lesson.losses)} steps, the worst at {min(lesson.scores.dice):.2f}"
    )


def _not_finished(found: Attempt) -> Finding:
    last, remedy = found.lessons[-1], "`tinyseg overfit DATA --images 9 --steps 2000` goes on"
    if not last.in_time:
        return Finding("note", "by heart", f"{_told(last)}, when the time was over")
    if _falls(last.losses):
        return Finding("note", "by heart", f"{_told(last)}, and the loss still falls", "", remedy)
    return Finding(
        "warning",
        "by heart",
        f"{_told(last)}, and the loss does not fall any more",
        "no rate, threshold or width that was tried is the reason",
        "look at the pictures: are these masks what the images show? Is data.size fine enough for "
        f"them? Then more depth (model.depth); {remedy}",
    )


REASONS: tuple[Callable[[Project, Attempt], Finding | None], ...] = (
    _diverged,
    _one_sided,
    _threshold,
    _gap,
    _one_only,
    _rate,
    _same,
    _copy,
    _loss,
    _capacity,
    _stuck,
)
