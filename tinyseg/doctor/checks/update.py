"""Whether a step moves weights as it should: all of them, downhill, and by a sane amount."""

from collections.abc import Sequence

import numpy as np

from tinyseg.common.findings import Finding, listed
from tinyseg.doctor.experiments.step_probe import (
    BATCHES,
    DESCENT,
    Moves,
    descend,
    move,
    try_habits,
    try_step,
)
from tinyseg.doctor.project import Project
from tinyseg.nn import layers
from tinyseg.training.step import TrainStep

ALIKE = 1e-4
"""Share of a move that another order of sums may explain."""
RISE = 0.02
"""Share by which a loss may rise in a few steps."""
TOO_SMALL, SMALL, TOO_LARGE = 1e-6, 1e-5, 3.0
"""What a step adds to a weight, as a share of its size: a thousand steps change nothing; ten
thousand; or each step throws away what those before have learned."""


def same_move(project: Project) -> list[Finding]:
    """The same step from the same state moves weights by the same."""
    if not project.foreign:
        return []
    found = project.once(try_habits)
    if found.drift <= ALIKE or found.again[0] != found.again[1]:
        return []
    return [
        Finding(
            "error",
            "gradients",
            "from the same weights and batch, with the same loss, a second step moves the weights "
            f"otherwise (by {found.drift:.0%})",
            "gradients of the steps before are added to those of this one",
            "call optimizer.zero_grad() at the begin of each step",
        )
    ]


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


def own_weights(project: Project) -> list[Finding]:
    """The loss is that of the model's weights."""
    if not project.foreign:
        return []
    found = project.once(try_habits)
    if found.other_weights != found.again[0] or len(set(project.once(try_step).losses)) == 1:
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


def _try(project: Project) -> str:
    text = project.config.train.optimizer
    usual = "sgd(lr=0.01,momentum=0.9)" if text.startswith("sgd") else "adam(lr=0.001)"
    return f' (train.optimizer="{usual}")' if isinstance(project.step, TrainStep) else ""
