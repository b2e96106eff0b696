"""Checks of the weights that a training step changes: all of them, downhill, by a sane amount."""

from collections.abc import Sequence

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import Check, custom_only, error, finding, needs_loss, ok, warning
from tinyseg.doctor.experiments.step_probe import (
    BATCHES,
    DESCENT_STEPS,
    UpdateProbe,
    differ,
    probe_descent,
    probe_repeats,
    probe_step,
    probe_updates,
)
from tinyseg.doctor.project import Project
from tinyseg.nn import layers
from tinyseg.training.step import TrainStep

ROUNDING = 1e-4
"""Share of a move that another order of summation may explain."""
RISE = 0.02
"""Share by which a loss may rise in a few steps."""
TOO_SMALL, SMALL, TOO_LARGE = 1e-6, 1e-5, 3.0
"""Change of a weight in a step, as a share of its size: a thousand steps change nothing; ten
thousand do not; or each step discards what the steps before have learned."""
MAX_NAMES = 6
"""Parts of a network that are named in a finding."""


def learning_rate_counts(project: Project) -> list[Finding]:
    """A learning rate of 0 changes nothing."""
    updates = project.once(probe_updates)
    largest = max(updates.few_steps.values(), default=0.0)
    if updates.at_rate_0 is None or updates.at_rate_0 <= ROUNDING * largest:
        return []
    what = "the weights still change when the learning rate is set to 0"
    why = "TinyJit has stored the rate as a constant, so a schedule or another rate has no effect"
    remedy = "pass the rate to the compiled function as a Tensor, or use tinyseg.TrainStep"
    return error("frozen rate", what, why, remedy)


def all_weights_change(project: Project) -> list[Finding]:
    """A few steps change every weight."""
    updates = project.once(probe_updates)
    frozen = [name for name, change in updates.few_steps.items() if change == 0]
    if not frozen:
        return []
    if len(frozen) == len(updates.few_steps):
        what = f"{BATCHES} steps change no weight"
        remedy = (
            "pass the parameters of this model object to the optimizer, and assign new values in "
        )
        remedy += "place: weight.assign(new).realize()"
    else:
        what = f"{BATCHES} steps do not change {len(frozen)} of {len(updates.few_steps)} weights: "
        what += f"those of {_modules(frozen, updates)}"
        remedy = "pass all parameters to the optimizer, and do not call detach() before the loss"
    why = "frozen weights keep their random initial values, which limits what the others can learn"
    return error("frozen weights", what, why, remedy, frozen)


def _modules(frozen: Sequence[str], updates: UpdateProbe) -> str:
    """Return the shortest prefixes of names below which every weight is frozen."""
    modules = dict[str, None]()
    for name in frozen:
        parts = name.split(".")
        prefixes = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        below = {
            p: [n for n in updates.few_steps if n == p or n.startswith(p + ".")] for p in prefixes
        }
        modules[next(p for p in prefixes if all(n in frozen for n in below[p]))] = None
    rest = len(modules) - MAX_NAMES
    return ", ".join([*modules][:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


@custom_only
def loss_depends_on_weights(project: Project) -> list[Finding]:
    """The loss changes with the weights of the model."""
    repeats = project.once(probe_repeats)
    if repeats.other_weights != repeats.losses[0] or not differ(project.once(probe_step).losses):
        return []
    what = "the loss stays the same when all weights of the model are changed"
    why = "the step uses another network, or creates a new one in each call"
    remedy = "create the network once, outside the step, and pass the same object to the step"
    return error("unused weights", what, why, remedy)


def running_statistics(project: Project) -> list[Finding]:
    """BatchNorm's running statistics follow the batches at a sane pace."""
    changes = project.once(probe_updates).statistics
    fixed = [name for name, change in changes.items() if change == 0]
    if fixed:
        of = f"{len(fixed)} of {len(changes)}"
        what = f"{BATCHES} steps do not change {of} running statistics of BatchNorm"
        why = "evaluation normalizes by them, so even a well-trained network predicts badly"
        remedy = "call the network with training=True, set BatchNorm's momentum to 0.1, and end a "
        remedy += "step of your own with tinyseg.nn.update_running_stats(model)"
        return error("statistics", what, why, remedy, fixed)
    norms = [(n, layer) for n, layer in layers(project.model) if hasattr(layer, "running_mean")]
    odd = [f"{n}: {norm.momentum:g}" for n, norm in norms if not 1e-3 <= norm.momentum <= 0.9]
    if not odd:
        return []
    what = f"the momentum of {len(odd)} of {len(norms)} BatchNorm layers is outside 0.001 to 0.9"
    why = "running statistics then reflect the last batch only, or no batch for a long time"
    remedy = "set momentum=0.1: the weight of the new batch, as in PyTorch (Keras: 1 minus this)"
    return warning("statistics", what, why, remedy, odd)


def step_size(project: Project) -> list[Finding]:
    """A step changes a weight by more than nothing and by less than its size."""
    updates = project.once(probe_updates)
    # scales and shifts start at 1 and 0, which does not tell how large they should be
    shares = {
        name: updates.one_step[name] / size
        for name, size in updates.size.items()
        if size and name.endswith("weight") and "norm" not in name
    }
    if not shares:
        return []
    middle = float(np.median(list(shares.values())))
    at = "" if updates.rate is None else f" at learning rate {updates.rate:g}"
    what = f"one step{at} changes weights by {middle:.1g} of their size (median of the layers)"
    evidence = [f"{name}: {share:.1e}" for name, share in shares.items()]
    if middle > TOO_LARGE:
        why = "each step overwrites what earlier steps have learned"
        remedy = f"lower the learning rate{_example(project)}"
        return error("learning rate", what, why, remedy, evidence)
    if middle < SMALL:
        slow = middle < TOO_SMALL
        why = f"even {'a thousand' if slow else 'ten thousand'} steps change almost nothing"
        remedy = f"raise the learning rate{_example(project)}"
        level = "error" if slow else "warning"
        return finding(level, "learning rate", what, why, remedy, evidence)
    return ok("updates", what, evidence=evidence)


@needs_loss
def loss_falls(project: Project) -> list[Finding]:
    """A few steps on one batch lower its loss."""
    descent = project.once(probe_descent)
    before, after, slower = descent.before, descent.after, descent.slower
    if after <= before + RISE * abs(before):
        return []
    what = f"{DESCENT_STEPS} steps on one batch raise its loss from {before:.4g} to {after:.4g}"
    if slower is not None and slower < before:
        what += f"; at a tenth of the learning rate it falls to {slower:.4g}"
        why = "the steps are too large to follow the gradient"
        return warning("learning rate", what, why, f"lower the learning rate{_example(project)}")
    why = "each step makes the loss worse instead of better"
    remedy = "look for a wrong sign in the loss or in the update (weight - rate * gradient)"
    return error("uphill", what, why, remedy)


def _example(project: Project) -> str:
    if not isinstance(project.step, TrainStep):
        return ""
    sgd = project.config.train.optimizer.startswith("sgd")
    usual = "sgd(lr=0.01,momentum=0.9)" if sgd else "adam(lr=0.001)"
    return f', for example train.optimizer="{usual}"'


UPDATE_CHECKS: tuple[Check, ...] = (
    learning_rate_counts,
    all_weights_change,
    loss_depends_on_weights,
    running_statistics,
    step_size,
    loss_falls,
)
