"""Whether a step of training tells of the batch that it is given, jitted as plain."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.checks.update import (
    downhill,
    own_weights,
    rate,
    rate_counts,
    same_move,
    statistics,
    weights_move,
)
from tinyseg.doctor.experiments.step_probe import BATCHES, Trial, descend, try_habits, try_step
from tinyseg.doctor.project import Project
from tinyseg.training.nan_report import first_not_finite
from tinyseg.training.step import TrainStep

ALIKE = 1e-4
"""Relative difference of two losses that another order of sums may explain."""
NEAR = 1e-3
"""And of a step's loss and that of its batch."""

WHOLE = (
    "pass whole Tensors to the jitted function, Tensor(array), data[Tensor([i])] or "
    "data[i].clone(), never an index or a slice; or use tinyseg.TrainStep, which checks it"
)


def finite(project: Project) -> list[Finding]:
    """The first losses are numbers."""
    trial = project.once(try_step)
    wrong = [i for i, loss in enumerate(trial.jitted) if not np.isfinite(loss)]
    if not wrong:
        return []
    names = [project.name_of(square) for square in project.members(wrong[0])]
    where = f"; first in {_where(project, wrong[0], names)}"
    return [
        Finding(
            "error",
            "not finite",
            f"the loss is {trial.jitted[wrong[0]]} in step {wrong[0] + 1} of {BATCHES}{where}",
            "one NaN or infinity spreads to all weights, and nothing can be learned any more",
            "mend the image that is named, or lower the learning rate, or set train.grad_clip=1",
            tuple(names),
        )
    ]


def _where(project: Project, number: int, names: Sequence[str]) -> str:
    image, label = project.batches(number + 1)[number]
    if isinstance(project.step, TrainStep):
        return first_not_finite(project.step, image, label, names)
    unlike = [n for n, x in zip(names, image.numpy(), strict=True) if not np.isfinite(x).all()]
    return f"the image {unlike[0]}" if unlike else "the network or the loss, not in an image"


def locked(project: Project) -> list[Finding]:
    """Other batches give other losses, once the step is compiled."""
    trial = project.once(try_step)
    if not _differ(trial.plain):
        return []  # without JIT all are alike too: another check tells why
    if not _differ(trial.losses):
        seen = f"{BATCHES} different batches give one loss, {trial.losses[0]:.6g}"
    elif trial.other_image == trial.losses[0] and _sees_images(trial):
        seen = "another image gives the same loss"
    elif trial.other_label == trial.losses[0]:
        seen = "another label gives the same loss"
    else:
        told = ", ".join(f"{loss:.4g}" for loss in trial.losses)
        return [Finding("ok", "locked step", f"{BATCHES} batches give {BATCHES} losses: {told}")]
    return [
        Finding(
            "error",
            "locked step",
            f"{seen}, from the same weights, as soon as the step is compiled",
            "the JIT has baked in the batch of its second call: training sees that one only",
            WHOLE,
        )
    ]


def _differ(losses: Iterable[float]) -> bool:
    return len(set(losses)) > 1


def _sees_images(trial: Trial) -> bool:
    """A loss may rightly not depend on images, as when all logits are 0 at first."""
    return trial.other_label != trial.losses[0] or trial.other_image != trial.losses[0]


def honest(project: Project) -> list[Finding]:
    """With JIT and without, the same losses and weights come out."""
    trial = project.once(try_step)
    pairs = list(zip(trial.jitted, trial.plain, strict=True))
    far = max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in pairs)
    told = tuple(f"batch {i}: {a:.8g} jitted, {b:.8g} plain" for i, (a, b) in enumerate(pairs, 1))
    if far <= ALIKE and trial.apart <= ALIKE:
        exact = "bit for bit" if far == trial.apart == 0 else f"to {max(far, trial.apart):.0e}"
        return [Finding("ok", "jit", f"{BATCHES} steps with JIT equal those without {exact}")]
    seen = "the jitted step gives other losses than without JIT"
    if far <= ALIKE:
        seen = f"the jitted step moves weights otherwise than without JIT (by {trial.apart:.1%})"
    why = "what is not a Tensor argument keeps the value that it had in the second call"
    return [Finding("error", "jit", seen, why, WHOLE, told)]


def told_loss(project: Project) -> list[Finding]:
    """The loss that a step tells is that of its own batch."""
    if not project.foreign:
        return []
    trial, habits = project.once(try_step), project.once(try_habits)
    first, second, third = habits.again
    if first != second == third and trial.losses[1] == second and _differ(trial.plain):
        seen = f"the loss of a batch comes with the next call: {first:.6g}, then {second:.6g}"
        why = "what is plotted is always one step late, and the first value is of another batch"
        return [Finding("error", "stale loss", seen, why, "return the loss of this very call")]
    if isinstance(project.step, TrainStep) or not project.knows_loss or first != second:
        return []
    found = project.once(descend)
    near = NEAR * max(abs(found.before), 1e-12)
    if abs(found.told - found.before) <= near:
        return []
    if min(found.before, found.after) <= found.told <= max(found.before, found.after):
        seen = f"the step tells a loss of {found.told:.4g}, before its update it is "
        seen += f"{found.before:.4g}"
        why = "tinygrad computes what is realized after the update with weights of after it"
        remedy = "loss.realize(*optimizer.schedule_step()) instead of optimizer.step() makes both "
        remedy += "together"
        return [Finding("note", "told loss", seen, why, remedy)]
    return [
        Finding(
            "warning",
            "told loss",
            f"the step tells a loss of {found.told:.4g}, but the loss of its batch is "
            f"{found.before:.4g}",
            "what is plotted is not what is wanted, or not what is trained",
            "look in the step for evaluation mode (training=True is needed), for a part of the "
            "batch only, a sum instead of a mean, another loss, or another preparation of labels",
        )
    ]


def every_image(project: Project) -> list[Finding]:
    """Each image of a batch counts in its loss."""
    if not project.foreign:
        return []
    found = project.once(try_habits)
    idle = [slot for slot, loss in enumerate(found.other_slots, 1) if loss == found.again[0]]
    if not idle or len(idle) == len(found.other_slots) or found.again[0] != found.again[1]:
        return []
    places = ", ".join(map(str, idle))
    return [
        Finding(
            "error",
            "part of a batch",
            f"in a batch of {len(found.other_slots)} the images at {places} do not count: others "
            "in their place give the same loss",
            "they are never learned, though they are loaded, and epochs take as long",
            "look for an index like [0] or [:1] where the step or the loss takes image and label",
        )
    ]


def results(project: Project) -> list[Finding]:
    """A result that is kept stays what it was."""
    trial = project.once(try_step)
    if trial.read_late == trial.losses or not _differ(trial.losses):
        return []
    return [
        Finding(
            "warning",
            "results",
            f"results that are read later have changed: {_told(trial.read_late)} instead of "
            f"{_told(trial.losses)}",
            "all calls of a TinyJit return one buffer: a list of losses is the last one, n times",
            "read each at once, loss.item(), or keep loss.clone().realize()",
        )
    ]


def _told(losses: Sequence[float]) -> str:
    return "[" + ", ".join(f"{loss:.4g}" for loss in losses) + "]"


STEP_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (
    finite,
    locked,
    told_loss,
    same_move,
    honest,
    every_image,
    results,
    rate_counts,
    weights_move,
    own_weights,
    statistics,
    rate,
    downhill,
)
