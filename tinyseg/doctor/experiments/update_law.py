"""What one step does to each weight, against what the stated optimizer would do to it."""

from dataclasses import dataclass

import numpy as np
from tinygrad import nn

from tinyseg.common.arrays import Array
from tinyseg.doctor.experiments.forward_backward import forward_backward
from tinyseg.doctor.experiments.step_probe import probe_updates, root_mean_square
from tinyseg.doctor.project import Project
from tinyseg.training.step import TrainStep


@dataclass(frozen=True)
class Stated:
    """An optimizer as it was set up."""

    name: str
    """adam, sgd, or "" if it is not known."""
    rate: float = 0.0
    eps: float = 0.0
    weight_decay: float = 0.0
    momentum: float = 0.0
    """Of SGD; beta1 of Adam."""
    clip: float = 0.0
    """The largest norm of the gradient; 0 if it is not known."""


@dataclass(frozen=True)
class UpdateLaw:
    """A step as a sum of a move along the gradient (or its sign) and a share of the weights."""

    stated: Stated
    gradient_norm: float
    """Of all weights together, before clipping."""
    gradient_rms: float
    """The median over the weights of the root mean square of their gradient."""
    along: float
    """Root mean square of the part that follows the gradient or its sign."""
    decay: float
    """Share of each weight that the step takes away."""
    decayed: float
    """Root mean square of that part."""
    undamped: float
    """Median of |g| / (|g| + eps): below 1 where eps makes Adam's steps smaller; 1 for others."""
    scale: float
    """Root mean square of the step over that of learning rate * gradient; nan if not SGD."""


def update_law(project: Project) -> UpdateLaw | None:
    """Fit the first step of the first batch; None if the gradients are not known."""
    gradients = project.once(forward_backward).gradients
    if not gradients:
        return None
    moves, stated = project.once(probe_updates).moves, _stated(project)
    names = [n for n, g in gradients.items() if g.ndim > 1 and g.any() and moves[n].any()]
    if not names:
        return None
    weights = {name: project.state.parameters[name].numpy() for name in names}
    w, g, d = (
        np.concatenate([part[n].ravel().astype(np.float64) for n in names])
        for part in (weights, gradients, moves)
    )
    if not (np.isfinite(g).all() and np.isfinite(d).all()):
        return None
    along, decay = min(_fit(d, w, direction) for direction in (g, np.sign(g)))[1:]
    size = np.abs(g[g != 0])
    adam = stated.name == "adam"
    return UpdateLaw(
        stated,
        float(np.sqrt(sum(np.square(x, dtype=np.float64).sum() for x in gradients.values()))),
        float(np.median([root_mean_square(gradients[n]) for n in names])),
        along,
        decay,
        decay * root_mean_square(w),
        float(np.median(size / (size + stated.eps))) if adam else 1.0,
        _ratio(d, stated.rate * g) if stated.name == "sgd" and stated.rate else float("nan"),
    )


def _fit(move: Array, weight: Array, direction: Array) -> tuple[float, float, float]:
    """Return the squared error of move = -a * direction - b * weight, the size of the first, b."""
    columns = np.stack([direction, weight], axis=1)
    (a, b), *_ = np.linalg.lstsq(columns, -move, rcond=None)
    error = float(np.square(move + columns @ np.array([a, b])).sum())
    return error, abs(float(a)) * root_mean_square(direction), float(b)


def _ratio(one: Array, other: Array) -> float:
    return root_mean_square(one) / max(root_mean_square(other), 1e-30)


def _stated(project: Project) -> Stated:
    if isinstance(project.step, TrainStep):
        own, clip = project.step.optimizer, project.step.grad_clip
        settings = getattr(own, "settings", None)
        if settings is not None:
            name = "sgd" if own.name == "sgd" else "adam"
            momentum = settings.get("momentum", settings.get("beta1", 0.0))
            rest = (settings.get("eps", 0.0), settings["weight_decay"], momentum, clip)
            return Stated(name, project.learning_rate or 0.0, *rest)
    optimizer, rate = project.optimizer, project.learning_rate or 0.0
    if isinstance(optimizer, nn.optim.LAMB) and optimizer.adam:
        return Stated("adam", rate, optimizer.eps, optimizer.wd, optimizer.b1)
    if isinstance(optimizer, nn.optim.LARS) and not optimizer.tcoef and not optimizer.ns_steps:
        return Stated("sgd", rate, 0.0, optimizer.wd, optimizer.momentum)
    return Stated("")
