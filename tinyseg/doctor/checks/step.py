"""Checks of the losses that a training step returns: of its own batch, with JIT as without."""

from collections.abc import Sequence

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import Check, custom_only, error, note, ok, warning
from tinyseg.doctor.experiments.step_probe import (
    BATCHES,
    differ,
    probe_descent,
    probe_repeats,
    probe_step,
)
from tinyseg.doctor.project import Project
from tinyseg.training.nan_report import first_not_finite
from tinyseg.training.step import TrainStep

ROUNDING = 1e-4
"""Relative difference of two results that another order of summation may explain."""
SAME_LOSS = 1e-3
"""Relative difference up to which the reported loss counts as the loss of its batch."""

PASS_TENSORS = (
    "pass whole Tensors to the jitted function: Tensor(array), data[Tensor([i])] or "
    "data[i].clone(), never an index or a slice; or use tinyseg.TrainStep, which checks this"
)


def losses_are_finite(project: Project) -> list[Finding]:
    """The first losses are numbers."""
    losses = project.once(probe_step).jitted
    wrong = [number for number, loss in enumerate(losses) if not np.isfinite(loss)]
    if not wrong:
        return []
    tiles = project.fill(project.foreground_tiles, wrong[0])
    names = [project.name_of(tile) for tile in tiles]
    what = f"the loss is {losses[wrong[0]]} in step {wrong[0] + 1} of {BATCHES}; the first value "
    what += f"that is not finite is in {_source(project, wrong[0], names)}"
    why = "one NaN or infinity spreads to all weights, and the network stops learning"
    remedy = "fix or remove the named image, lower the learning rate, or set train.grad_clip=1"
    return error("not finite", what, why, remedy, names)


def _source(project: Project, number: int, names: Sequence[str]) -> str:
    image, label = project.batches(number + 1)[number]
    if isinstance(project.step, TrainStep):
        return first_not_finite(project.step, image, label, names)
    broken = [n for n, x in zip(names, image.numpy(), strict=True) if not np.isfinite(x).all()]
    return f"the image {broken[0]}" if broken else "the network or the loss; all images are finite"


def every_batch_counts(project: Project) -> list[Finding]:
    """Different batches have different losses once the step is compiled."""
    probe = project.once(probe_step)
    if not differ(probe.plain):
        return []  # they are equal without JIT too: another check says why
    if not differ(probe.losses):
        what = f"{BATCHES} different batches all have the loss {probe.losses[0]:.6g}"
    elif probe.ignored:
        what = f"a new {probe.ignored[0]} in a batch does not change its loss"
    else:
        losses = ", ".join(f"{loss:.4g}" for loss in probe.losses)
        return ok("locked step", f"{BATCHES} batches have {BATCHES} different losses: {losses}")
    why = "TinyJit has stored the batch of its second call, so training uses that batch only"
    return error("locked step", f"{what}, once the step is compiled", why, PASS_TENSORS)


@custom_only
def equal_steps_are_equal(project: Project) -> list[Finding]:
    """The same step from the same state changes the weights in the same way."""
    repeats = project.once(probe_repeats)
    if repeats.weight_difference <= ROUNDING or not repeats.repeatable:
        return []
    what = "a second step from the same weights, with the same batch and loss, changes the weights "
    what += f"differently (by {repeats.weight_difference:.0%})"
    why = "the gradients of earlier steps are added to the gradients of this step"
    return error("gradients", what, why, "call optimizer.zero_grad() at the start of each step")


def jit_matches_eager(project: Project) -> list[Finding]:
    """Losses and weights are the same with and without JIT."""
    probe = project.once(probe_step)
    pairs = list(zip(probe.jitted, probe.plain, strict=True))
    apart = max(abs(a - b) / max(abs(a), abs(b), 1e-12) for a, b in pairs)
    if apart <= ROUNDING and probe.weight_difference <= ROUNDING:
        largest = max(apart, probe.weight_difference)
        how = f"to within {largest:.0e}" if largest else "bit for bit"
        return ok("jit", f"{BATCHES} steps with and without JIT give the same result {how}")
    what = "the step returns different losses with JIT and without"
    if apart <= ROUNDING:
        what = f"with JIT the weights change differently (by {probe.weight_difference:.1%})"
    why = "whatever is not passed as a Tensor keeps the value that it had in the second call"
    lines = [f"batch {i}: {a:.8g} with JIT, {b:.8g} without" for i, (a, b) in enumerate(pairs, 1)]
    return error("jit", what, why, PASS_TENSORS, lines)


@custom_only
def loss_is_of_its_batch(project: Project) -> list[Finding]:
    """The loss that a step returns is the loss of the batch that it was called with."""
    probe, repeats = project.once(probe_step), project.once(probe_repeats)
    first, second, third = repeats.losses
    if first != second == third and probe.losses[1] == second and differ(probe.plain):
        what = (
            f"a step returns the loss of the call before: {first:.6g}, then {second:.6g} for the "
            "same batch and weights"
        )
        why = "loss curves lag by one step, and their first value belongs to another batch"
        return error("stale loss", what, why, "return the loss that was computed in this call")
    if isinstance(project.step, TrainStep) or not project.loss_is_known or first != second:
        return []
    return _compare_reported(project)


def _compare_reported(project: Project) -> list[Finding]:
    descent = project.once(probe_descent)
    reported, before, after = descent.reported, descent.before, descent.after
    if abs(reported - before) <= SAME_LOSS * max(abs(before), 1e-12):
        return []
    if min(before, after) <= reported <= max(before, after):
        what = f"the step returns the loss {reported:.4g}; before its update it was {before:.4g}"
        why = "tinygrad is lazy: a loss realized after the update is computed with updated weights"
        remedy = "to compute both at once, replace optimizer.step() with "
        return note("reported loss", what, why, f"{remedy}loss.realize(*optimizer.schedule_step())")
    what = f"the step returns the loss {reported:.4g}, but the loss of its batch is {before:.4g}"
    why = "the reported loss, and perhaps the trained one, is not the loss you passed"
    remedy = (
        "look in the step for training=False, for only a part of the batch, for a sum instead of a "
        "mean, for another loss, or for labels that are prepared differently"
    )
    return warning("reported loss", what, why, remedy)


@custom_only
def every_image_counts(project: Project) -> list[Finding]:
    """Each image of a batch contributes to its loss."""
    repeats = project.once(probe_repeats)
    slots = repeats.other_slots
    idle = [slot for slot, loss in enumerate(slots, 1) if loss == repeats.losses[0]]
    if not idle or len(idle) == len(slots) or not repeats.repeatable:
        return []
    what = f"in a batch of {len(slots)} images, those at position {', '.join(map(str, idle))} do "
    what += "not change the loss"
    remedy = "look in the step and the loss for an index such as [0] or [:1] on images or labels"
    return error("partial batch", what, "they are loaded but never learned", remedy)


def results_are_kept(project: Project) -> list[Finding]:
    """A result keeps its value after the next call."""
    probe = project.once(probe_step)
    if probe.read_late == probe.losses or not differ(probe.losses):
        return []
    late, expected = (
        ", ".join(f"{loss:.4g}" for loss in losses) for losses in (probe.read_late, probe.losses)
    )
    what = f"losses that are read after later calls have changed: {late} instead of {expected}"
    why = "all calls of a TinyJit return the same buffer, so every earlier result is overwritten"
    remedy = "read each loss immediately with loss.item(), or keep loss.clone().realize()"
    return warning("results", what, why, remedy)


STEP_CHECKS: tuple[Check, ...] = (
    losses_are_finite,
    every_batch_counts,
    loss_is_of_its_batch,
    equal_steps_are_equal,
    jit_matches_eager,
    every_image_counts,
    results_are_kept,
)
