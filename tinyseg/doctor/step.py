"""Whether a step of training does what it is called for: with every batch, weight and rate."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tinyseg.doctor.project import Project
from tinyseg.doctor.trial import BATCHES, DESCENT, Moves, Trial, descend, move, try_step
from tinyseg.findings import Finding, listed
from tinyseg.nn import layers
from tinyseg.nonfinite import first_not_finite
from tinyseg.step import TrainStep

ALIKE = 1e-4
"""Relative difference of two losses that another order of sums may explain."""
NEAR, RISE = 1e-3, 0.02
"""Share by which a step's loss may differ from that of its batch, and rise in a few steps."""
TOO_SMALL, SMALL, TOO_LARGE = 1e-6, 1e-5, 3.0
"""What a step adds to a weight, as a share of its size: a thousand steps change nothing; ten
thousand; or each step throws away what those before have learned."""

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
            "mend the image that is named, or lower the learning rate, or set train.clip=1",
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
    trial = project.once(try_step)
    first, second, third = trial.again
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
    trial = project.once(try_step)
    idle = [slot for slot, loss in enumerate(trial.other_slots, 1) if loss == trial.losses[0]]
    if not idle or len(idle) == len(trial.other_slots) or trial.again[0] != trial.again[1]:
        return []
    places = ", ".join(map(str, idle))
    return [
        Finding(
            "error",
            "part of a batch",
            f"in a batch of {len(trial.other_slots)} the images at {places} do not count: others "
            "in their place give the same loss",
            "they are never learned, though they are loaded, and epochs take as long",
            "look for an index like [0] or [:1] where the step or the loss takes image and label",
        )
    ]


def own_weights(project: Project) -> list[Finding]:
    """The loss is that of the model's weights."""
    trial = project.once(try_step)
    if trial.other_weights != trial.losses[0] or not _differ(trial.losses):
        return []
    return [
        Finding(
            "error",
            "other weights",
            "the loss stays the same when all weights of the model are changed",
            "the step uses another network, or sets its weights anew in each call: nothing of what "
            "was learned before is kept",
            "make the network once, outside of the step, and use this very object in it",
        )
    ]


def same_move(project: Project) -> list[Finding]:
    """The same step from the same state moves weights by the same."""
    trial = project.once(try_step)
    if trial.drift <= ALIKE or trial.again[0] != trial.again[1]:
        return []
    return [
        Finding(
            "error",
            "gradients",
            "from the same weights and batch, with the same loss, a second step moves the weights "
            f"otherwise (by {trial.drift:.0%})",
            "gradients of the steps before are added to those of this one",
            "call optimizer.zero_grad() at the begin of each step",
        )
    ]


def downhill(project: Project) -> list[Finding]:
    """A few steps on one batch lower its loss."""
    if not project.knows_loss:
        return []
    found = project.once(descend)
    if found.after <= found.before + RISE * abs(found.before):
        return []
    seen = f"{DESCENT} steps on one batch raise its loss from {found.before:.4g} to "
    seen += f"{found.after:.4g}"
    if found.slower is not None and found.slower < found.before:
        seen += f"; at a tenth of the learning rate it comes to {found.slower:.4g}"
        why, remedy = "steps are too long to follow the gradient", f"lower it{_try(project)}"
        return [Finding("warning", "learning rate", seen, why, remedy)]
    why = "training makes worse what it is meant to make better"
    remedy = "look for a sign: of the loss, or of the update (weight - rate * gradient)"
    return [Finding("error", "uphill", seen, why, remedy)]


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


def rate_counts(project: Project) -> list[Finding]:
    """A learning rate of 0 moves nothing."""
    moves = project.once(move)
    if moves.still is None or moves.still <= ALIKE * max(moves.often.values(), default=0.0):
        return []
    return [
        Finding(
            "error",
            "frozen rate",
            "weights move as before when the learning rate is set to 0",
            "the JIT has baked in the number: a schedule or a lower rate has no effect",
            "hold the rate in a Tensor that the step takes as an argument, or as state that is "
            "assigned in place; or use tinyseg.TrainStep",
        )
    ]


def weights_move(project: Project) -> list[Finding]:
    """Every weight is changed by a few steps."""
    moves = project.once(move)
    still = [name for name, change in moves.often.items() if change == 0]
    if not still:
        return []
    share = f"{len(still)} of {len(moves.often)} weights"
    if len(still) == len(moves.often):
        seen = f"no weight is changed by {BATCHES} steps"
        remedy = "assign the new values: give the optimizer the parameters of this very model"
    else:
        seen = f"{share} are not changed by {BATCHES} steps, all of {_blocks(still, moves)}"
        remedy = "give all parameters to the optimizer, and detach nothing on the way to the loss"
    why = "what is frozen stays as it was drawn: random numbers that the rest must work around"
    return [Finding("error", "frozen weights", seen, why, remedy, tuple(still))]


def _blocks(still: Sequence[str], moves: Moves) -> str:
    """The shortest beginnings of names below which nothing moves."""
    blocks = dict[str, None]()
    for name in still:
        parts = name.split(".")
        heads = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        below = {h: [n for n in moves.often if n == h or n.startswith(h + ".")] for h in heads}
        blocks[next(h for h in heads if all(n in still for n in below[h]))] = None
    found = list(blocks)
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "")


def statistics(project: Project) -> list[Finding]:
    """Running statistics take up what the batches have, at a sane pace."""
    moves = project.once(move).statistics
    still = [name for name, change in moves.items() if change == 0]
    if still:
        return listed(
            "error",
            "statistics",
            f"running statistics, of {len(moves)}, that {BATCHES} steps of training do not move",
            still,
            "evaluation normalises by them: at 0 and 1 it does not normalise at all, and what was "
            "learned looks wrong",
            "call the network with training=True in the step, and give BatchNorm a momentum of 0.1 "
            "(the share of the new batch, as in PyTorch; 0 keeps what was); a step of your own "
            "calls tinyseg.nn.remember(model) after its update, for tinyseg's layers",
        )
    norms = [(n, x) for n, x in layers(project.model) if hasattr(x, "running_mean")]
    odd = [f"{n}: {x.momentum:g}" for n, x in norms if not 1e-3 <= x.momentum <= 0.9]
    return listed(
        "warning",
        "statistics",
        "momenta of BatchNorm outside 0.001 to 0.9",
        odd,
        "running statistics are then those of the last batch only, or of none for very long",
        "set 0.1: the share of the new batch, as in PyTorch (Keras' momentum is 1 minus that)",
    )


def rate(project: Project) -> list[Finding]:
    """A step adds to a weight neither nothing nor more than it is."""
    moves = project.once(move)
    shares = {
        n: moves.once[n] / size for n, size in moves.size.items() if size and n in _large(moves)
    }
    if not shares:
        return []
    middle = float(np.median(list(shares.values())))
    set_to = "" if moves.rate is None else f" at the learning rate {moves.rate:g}"
    seen = f"one step{set_to} changes a weight by {middle:.1g} of its size (median)"
    told = tuple(f"{name}: {share:.1e}" for name, share in shares.items())
    if middle > TOO_LARGE:
        why = "each step throws away what the steps before have learned"
        remedy = f"lower it{_try(project)}; `tinyseg doctor` then tells which rates learn"
        return [Finding("error", "learning rate", seen, why, remedy, told)]
    if middle < SMALL:
        level, steps = (
            ("error", "a thousand") if middle < TOO_SMALL else ("warning", "ten thousand")
        )
        why = f"{steps} steps change next to nothing"
        return [Finding(level, "learning rate", seen, why, f"raise it{_try(project)}", told)]
    return [Finding("ok", "updates", seen, evidence=told)]


def _large(moves: Moves) -> set[str]:
    """Scales and shifts begin at 1 and 0, which tells nothing of how large they should be."""
    return {name for name in moves.size if name.endswith("weight") and "norm" not in name}


def _try(project: Project) -> str:
    text = project.config.train.optimizer
    usual = "sgd(lr=0.01,momentum=0.9)" if text.startswith("sgd") else "adam(lr=0.001)"
    return f' (train.optimizer="{usual}")' if isinstance(project.step, TrainStep) else ""


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
