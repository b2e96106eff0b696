"""The check that a few images can be memorized."""

from dataclasses import replace

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import Check, ok, warning
from tinyseg.doctor.experiments.memorization import CLEAR, Outcome, memorization_test
from tinyseg.doctor.experiments.memorization_failure import CHOOSE_THRESHOLD, explain_failure
from tinyseg.doctor.figures import memorization_picture
from tinyseg.doctor.project import Project
from tinyseg.training.overfit import PASS_DICE


def few_images_are_memorized(project: Project) -> list[Finding]:
    """The network memorizes 1, 4 and 9 images; otherwise the likeliest reason is reported."""
    result = project.once(memorization_test)
    lines = tuple(line for outcome in result.outcomes for line in _lines(outcome))
    picture = memorization_picture(project, result.last)
    if not result.last.scores.passed:
        reason = explain_failure(project, result)
        return [replace(one, evidence=lines, picture=picture) for one in reason]
    counts = ", ".join(str(len(outcome.names)) for outcome in result.outcomes)
    what = f"tests with {counts} images: every image memorized (Dice >= {PASS_DICE})"
    cost = float(np.nanmax([0.0, *(outcome.threshold_cost for outcome in result.outcomes)]))
    passed = ok("memorization", what, evidence=lines, picture=picture)
    if cost < CLEAR:
        return passed
    what = f"after all images were memorized, the threshold {result.last.threshold:g} still cost "
    what += f"{cost:.2f} Dice compared with 0.5"
    why = "on new images the network is less certain, so the threshold will cost even more there"
    return passed + warning("threshold", what, why, CHOOSE_THRESHOLD)


def _lines(outcome: Outcome) -> list[str]:
    scores, losses = outcome.scores, outcome.losses
    lines = [
        f"{len(outcome.names)} image{'s' * (len(outcome.names) > 1)}, {len(losses)} steps, loss "
        f"{losses[0]:.3g} to {losses[-1]:.3g}:"
    ]
    rows = zip(outcome.names, scores.dice, scores.best_threshold, scores.best, strict=True)
    for name, dice, threshold, best in rows:
        other = "" if np.isnan(threshold) else f", {best:.3f} at threshold {threshold:.2f}"
        lines.append(f"Dice {dice:.3f}{other}  {name}")
    return lines


MEMORIZATION_CHECKS: tuple[Check, ...] = (few_images_are_memorized,)
