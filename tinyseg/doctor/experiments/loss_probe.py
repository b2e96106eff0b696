"""What a loss asks for: its gradient by term and pixel, and its value for known logits."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE
from tinyseg.data import is_foreground
from tinyseg.device.tensors import to_device
from tinyseg.doctor.project import Project

CONFIDENT = 6.0
"""The logit of a confident prediction: probability 0.9975."""


@dataclass(frozen=True)
class LossProbe:
    """A loss on one batch, term by term, and its value for constructed logits."""

    value: dict[str, float]
    """By term; the sum of all terms is "loss", also below."""
    gradient: dict[str, float]
    """Sum of absolute gradients with respect to the logits."""
    background: dict[str, float]
    """Share of it from background pixels; nan without a gradient."""
    pulled: float
    """Share of the foreground pixels whose own logit is raised, starting from logits 0."""
    right: float
    """The loss of confident logits that agree with the label."""
    wrong: float
    """The loss of their negatives."""
    shifted: float
    """Change of the loss when one number is added to all logits."""
    empty: float
    """The loss of confident foreground where the label has none."""
    empty_right: float
    """The loss of confident background there."""
    undecided: float
    """The loss of logits 0."""

    @property
    def terms(self) -> list[str]:
        """The names of the terms."""
        return [name for name in self.value if name != "loss"]


def probe_loss(project: Project) -> LossProbe:
    """Measure the loss on the first batch."""
    image, label = project.batches(1)[0]
    logits = to_device(project.forward(image, training=True).numpy())
    value, gradients = dict[str, float](), dict[str, Any]()
    for name, term in project.loss(logits, label).items():
        value[name] = term.item()
        (gradient,) = term.gradient(logits)
        gradients[name] = np.absolute(gradient.numpy()).sum(axis=1)
    labels, channels = label.numpy(), logits.shape[1]
    total = {name: float(g.sum()) for name, g in gradients.items()}
    background = {
        name: float(g[labels == 0].sum()) / total[name] if total[name] else float("nan")
        for name, g in gradients.items()
    }
    known = _losses_of_known_logits(project, labels, channels)
    return LossProbe(value, total, background, _pulled(project, labels, channels), *known)


def _pulled(project: Project, labels: Array, channels: int) -> float:
    logits = to_device(np.zeros((len(labels), channels, *labels.shape[1:]), np.float32))
    (gradient,) = project.loss(logits, to_device(labels))["loss"].gradient(logits)
    foreground = is_foreground(labels)
    own = np.where(foreground & (channels > 1), labels, 0)
    slopes = np.take_along_axis(gradient.numpy(), own[:, None].astype(int), axis=1)[:, 0]
    return float((slopes[foreground] < 0).mean()) if foreground.any() else 1.0


def _losses_of_known_logits(project: Project, labels: Array, channels: int) -> tuple[float, ...]:
    right, nothing = confident(labels, channels), np.zeros_like(labels)
    everything = confident(np.ones_like(labels), channels)
    random = np.asarray(np.random.default_rng(0).normal(size=right.shape), np.float32)
    pairs = [(right, labels), (-right, labels), (random, labels), (random + 3, labels)]
    pairs += [(everything, nothing), (confident(nothing, channels), nothing), (0 * right, labels)]
    right_loss, wrong, before, after, empty, empty_right, undecided = (
        project.loss(to_device(x), to_device(y))["loss"].item() for x, y in pairs
    )
    return right_loss, wrong, abs(after - before), empty, empty_right, undecided


def confident(labels: Array, channels: int) -> Array:
    """Return logits (B, K, S, S) that predict the label with confidence."""
    classes = np.where(labels == IGNORE, 0, labels)
    if channels == 1:
        own = classes[:, None] > 0
    else:
        own = classes[:, None] == np.arange(channels)[None, :, None, None]
    return np.where(own, CONFIDENT, -CONFIDENT).astype(np.float32)
