"""Checks of the optimizer's settings by what one step does to the weights."""

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import Check, error, finding, needs_loss, warning
from tinyseg.doctor.experiments.update_law import update_law
from tinyseg.doctor.project import Project

DAMPED, DROWNED = 0.2, 0.02
"""Share of Adam's step that eps leaves: a warning, an error."""
USUAL_EPS = 1e-6
"""An eps up to this is not too large: where it matters, the gradient is too small."""
FAST_DECAY, LARGE_DECAY = 0.002, 0.02
"""Share of a weight that decay takes in a step: too much where decay moves it further than the
gradient does, and in any case."""
CLIPPED = 0.01
"""Share of the stated step of SGD that is left of it."""
LONG_MEMORY = 0.995
"""Momentum from which a step averages over more than 200 steps before it."""


@needs_loss
def eps_is_small(project: Project) -> list[Finding]:
    """Adam's eps is small against the gradients."""
    law = project.once(update_law)
    if law is None or law.undamped >= DAMPED:
        return []
    stated, level = law.stated, "error" if law.undamped < DROWNED else "warning"
    what = f"the gradients (root mean square {law.gradient_rms:.1g}) are smaller than Adam's eps "
    what += f"({stated.eps:g}): a step is {law.undamped:.1g} of what the learning rate says"
    if stated.eps <= USUAL_EPS:
        why = "the loss, and with it the gradient, is scaled down, or the gradient vanishes"
        remedy = "remove the factor from the loss; a mean over pixels of logits needs none"
        return finding(level, "loss scale", what, why, remedy)
    why = "Adam divides the mean gradient by (its size + eps): a large eps stops the update"
    return finding(level, "eps", what, why, "set eps=1e-8, the default of Adam")


@needs_loss
def decay_is_small(project: Project) -> list[Finding]:
    """Weight decay takes little of the weights in a step."""
    law = project.once(update_law)
    if law is None or law.decay < FAST_DECAY:
        return []
    if law.decay < LARGE_DECAY and law.decayed < law.along:
        return []
    if law.stated.name and not law.stated.weight_decay:
        return []
    what = f"in one step, weight decay takes {law.decay:.1%} of each weight and moves weights "
    what += f"{law.decayed / max(law.along, 1e-30):.2g} times as far as the gradient does"
    why = f"after {max(1, round(0.7 / law.decay))} steps half of what was learned is forgotten: "
    why += "the weights shrink to 0"
    set_to = f" (now {law.stated.weight_decay:g})" if law.stated.weight_decay else ""
    remedy = f"lower weight_decay{set_to}: 1e-4 for SGD and Adam, 0.01 for AdamW"
    return error("weight decay", what, why, remedy)


@needs_loss
def clip_lets_steps_through(project: Project) -> list[Finding]:
    """Clipping leaves steps of the size that the learning rate says."""
    law = project.once(update_law)
    if law is None or not law.scale < CLIPPED:
        return []
    what = f"a step is {law.scale:.1g} of learning rate times gradient, as if the gradient (norm "
    what += f"{law.gradient_norm:.2g}) was clipped to {law.scale * law.gradient_norm:.1g}"
    why = "clipping leaves nearly nothing of the gradient: the weights hardly move"
    remedy = "raise the clip (train.grad_clip=1 is usual), or remove the factor that scales the "
    return error("clipping", what, why, f"{remedy}gradient down before the update")


@needs_loss
def momentum_forgets(project: Project) -> list[Finding]:
    """Momentum averages over few steps."""
    law = project.once(update_law)
    if law is None or law.stated.momentum < LONG_MEMORY:
        return []
    what = f"the momentum of {law.stated.name} is {law.stated.momentum:g}: a step is a mean over "
    what += f"{1 / max(1 - law.stated.momentum, 1e-6):.0f} steps before it"
    why = "the weights follow gradients of long ago, and overshoot"
    return warning("momentum", what, why, "set it to 0.9")


OPTIMIZER_CHECKS: tuple[Check, ...] = (
    eps_is_small,
    decay_is_small,
    clip_lets_steps_through,
    momentum_forgets,
)
