"""Whether a few images can be learned by heart."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.experiments.memorization import CLEAR, Lesson, attempt
from tinyseg.doctor.experiments.reasons import SET_NONE, why_not
from tinyseg.doctor.figures import lesson_picture
from tinyseg.doctor.project import Project
from tinyseg.training.overfit import PASS_DICE


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


LEARNING_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (by_heart,)
