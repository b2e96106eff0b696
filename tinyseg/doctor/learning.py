"""Whether a few images can be learned by heart; if not, why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinyseg.doctor.lessons import BUDGET, Lesson, School
from tinyseg.doctor.project import Project
from tinyseg.doctor.show import lesson_picture
from tinyseg.findings import Finding
from tinyseg.overfit import PASS_DICE
from tinyseg.thresholds import HALF

STUCK = 0.05
"""A loss that falls by less than this share of itself has not moved."""
BETTER, MUCH_BETTER = 0.75, 0.25
"""Another learning rate is the reason when its loss falls below this share of the set one's, where
that has not moved, and where it has."""
ALIKE = 0.99
"""Correlation from which two maps are called the same."""
CLEAR = 0.1
"""Dice by which another threshold or mode must be better, to be the reason."""
FLAT = 1e-3
"""Spread of probabilities below which a map is of one grey."""
TRIAL_STEPS = 60
MOST_BASE = 64
"""Channels of a first level that four times as many would make too slow."""

SET_NONE = "set train.threshold=0: validation then finds the best one, and predict uses it"


@dataclass(frozen=True)
class Attempt:
    """All lessons up to the first that was not learned, and experiments on that one."""

    lessons: list[Lesson]
    rate: float | None = None
    """The learning rate that the range test finds best."""
    at_rate: tuple[float, ...] = ()
    """The losses at it, and below at the set one in as many steps."""
    at_set: tuple[float, ...] = ()


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
    if last.scores.passed or not last.in_time or not np.isfinite(last.losses).all():
        return Attempt(lessons)
    if project.rate is None:
        return Attempt(lessons)
    rate = best_rate(*school.rates(last.squares))
    at_rate = school.at_rate(last.squares, rate, min(TRIAL_STEPS, len(last.losses)))
    return Attempt(lessons, rate, tuple(at_rate), last.losses[: len(at_rate)])


def best_rate(rates: list[float], losses: list[float]) -> float:
    """A tenth of the rate at which the loss is lowest, before it rises again.

    The loss is smoothed over five steps; where it never falls, the lowest of all rates comes out.
    """
    smooth = np.convolve(losses, np.ones(5) / 5, mode="valid") if len(losses) >= 5 else losses
    return float(rates[int(np.argmin(smooth)) + (2 if len(losses) >= 5 else 0)] / 10)


def by_heart(project: Project) -> list[Finding]:
    """The verdict on learning by heart, with the likeliest reason when it fails."""
    found = project.once(attempt)
    last = found.lessons[-1]
    told = tuple(line for lesson in found.lessons for line in _lines(lesson))
    picture = lesson_picture(project, last)
    if not last.scores.passed:
        return [replace(why_not(project, found), evidence=told, picture=picture)]
    counts = ", ".join(str(len(lesson.names)) for lesson in found.lessons)
    seen = f"{counts} images were learned by heart, every one with Dice >= {PASS_DICE}"
    passed = Finding("ok", "by heart", seen, evidence=told, picture=picture)
    late = float(np.nanmax([0.0, *(lesson.hidden for lesson in found.lessons)]))
    return [passed, *_late(last.threshold, late)]


def why_not(project: Project, found: Attempt) -> Finding:
    """The likeliest reason why the last lesson failed."""
    last = found.lessons[-1]
    tried = last.in_time or len(last.losses) >= TRIAL_STEPS
    known = REASONS if tried else (_diverged,)  # a slow machine is no reason
    reasons = (finding for reason in known if (finding := reason(project, found)))
    return next(reasons, _not_finished(found))


def _late(threshold: float, cost: float) -> list[Finding]:
    """A threshold far from where masks are cut best hides what is learned until it is certain."""
    if not cost >= CLEAR:
        return []
    return [
        Finding(
            "warning",
            "threshold",
            f"when all images were learned, the threshold {threshold:g} still cost {cost:.2f} Dice "
            "beside 0.5",
            "on new images a network is less sure than on those it knows by heart: more is hidden",
            SET_NONE,
        )
    ]


def _lines(lesson: Lesson) -> list[str]:
    head = f"{len(lesson.names)} by heart, {len(lesson.losses)} steps, loss "
    head += f"{lesson.losses[0]:.3g} to {lesson.losses[-1]:.3g}:"
    lines = [head]
    known = lesson.scores
    rows = zip(lesson.names, known.dice, known.best_threshold, known.best, strict=True)
    for name, dice, threshold, best in rows:
        other = "" if np.isnan(threshold) else f", {best:.3f} at threshold {threshold:.2f}"
        lines.append(f"Dice {dice:.3f}{other}  {name}")
    return lines


# Reasons, the surest first


def _diverged(project: Project, found: Attempt) -> Finding | None:
    losses = found.lessons[-1].losses
    if np.isfinite(losses).all():
        return None
    seen = f"the loss was {losses[-1]} in step {len(losses)}"
    remedy = "lower the learning rate tenfold, or set train.clip=1"
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
        "raise train.batch, set model.norm=group, or look at the momentum of BatchNorm",
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
    images = project.door.enter([project.squares[square] for square in last.squares])
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


def _capacity(project: Project, found: Attempt) -> Finding | None:
    """A network of four times the channels learns what this one does not."""
    last, base = found.lessons[-1], project.config.model.base
    slow = _falls(last.losses) and len(last.names) > 1  # one image is learned by any healthy one
    if project.foreign or not last.in_time or slow or base > MOST_BASE:
        return None
    wider = Project(project.source, project.config.override([f"model.base={4 * base}"]))
    lesson = School(wider).lesson(list(BUDGET)[len(found.lessons) - 1])
    if not lesson.scores.passed:
        return None
    return Finding(
        "warning",
        "capacity",
        f"{_told(last)}; with model.base={4 * base} all are learned in {len(lesson.losses)} steps",
        f"model.base={base} has too few channels for these images",
        f"set model.base={2 * base} or {4 * base}",
    )


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
    _stuck,
    _capacity,
)

LEARNING_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (by_heart,)
