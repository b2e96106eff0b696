"""Whether the loss asks for what is wanted, and from which pixels its gradient comes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding, listed
from tinyseg.config import IGNORE
from tinyseg.data import is_foreground
from tinyseg.device.tensors import to_device
from tinyseg.doctor.project import Project

DOMINATED = 0.95
"""Share of a term's gradient that comes from background pixels, from which it hardly sees more."""
PULLED = 0.5
"""Share of the foreground's pixels that a loss must pull the right way, from logits of 0."""
SURE = 6.0
"""A logit that is all but certain: probability 0.9975."""
FLAT = 1e-9
"""A gradient so small beside the largest that the term is constant."""


@dataclass(frozen=True)
class Anatomy:
    """What a loss makes of one batch, term by term, and of made-up logits."""

    value: dict[str, float]
    gradient: dict[str, float]
    """Sum of its absolute gradient by the logits; for the sum of all terms "loss"."""
    background: dict[str, float]
    """Share of that from background pixels; nan where there is no gradient."""
    pulled: float
    """Share of the foreground's pixels whose own logit is pulled up from 0."""
    right: float
    """The loss of logits that are right and sure."""
    wrong: float
    """And of their negatives."""
    shifted: float
    """How far the loss moves when all logits of a pixel are raised by one number."""
    empty: float
    """The loss of those sure of foreground where the label has none."""
    empty_right: float
    """And of those sure of background."""


def dissect(project: Project) -> Anatomy:
    """Takes the loss apart on the first batch."""
    image, label = project.batches(1)[0]
    logits = to_device(project.forward(image, training=True).numpy())
    value, gradients = dict[str, float](), dict[str, Any]()
    for name, term in project.loss(logits, label).items():
        value[name] = term.item()
        (gradient,) = term.gradient(logits)
        gradients[name] = np.absolute(gradient.numpy()).sum(axis=1)
    labels = label.numpy()
    total = {name: float(g.sum()) for name, g in gradients.items()}
    rest = {name: float(g[labels == 0].sum()) for name, g in gradients.items()}
    share = {n: rest[n] / total[n] if total[n] else float("nan") for n in total}
    pulled = _pulled(project, labels, logits.shape[1])
    return Anatomy(value, total, share, pulled, *_made_up(project, labels, logits.shape[1]))


def _pulled(project: Project, labels: Array, channels: int) -> float:
    logits = to_device(np.zeros((len(labels), channels, *labels.shape[1:]), np.float32))
    (gradient,) = project.loss(logits, to_device(labels))["loss"].gradient(logits)
    marked = is_foreground(labels)
    own = np.where(marked & (channels > 1), labels, 0)
    slopes = np.take_along_axis(gradient.numpy(), own[:, None].astype(int), axis=1)[:, 0]
    return float((slopes[marked] < 0).mean()) if marked.any() else 1.0


def _made_up(project: Project, labels: Array, channels: int) -> tuple[float, ...]:
    right, none = _sure(labels, channels), np.zeros_like(labels)
    everything = np.ones_like(labels)
    random = np.asarray(np.random.default_rng(0).normal(size=right.shape), np.float32)
    pairs = [(right, labels), (-right, labels), (random, labels), (random + 3, labels)]
    pairs += [(_sure(everything, channels), none), (_sure(none, channels), none)]
    right_, wrong, at, above, empty, empty_right = (
        project.loss(to_device(x), to_device(y))["loss"].item() for x, y in pairs
    )
    return right_, wrong, abs(above - at), empty, empty_right


def _sure(labels: Array, channels: int) -> Array:
    """Logits (B, K, S, S) that say the label, and are sure."""
    classes = np.where(labels == IGNORE, 0, labels)
    if channels == 1:
        return np.where(classes[:, None] > 0, SURE, -SURE).astype(np.float32)
    own = classes[:, None] == np.arange(channels)[None, :, None, None]
    return np.where(own, SURE, -SURE).astype(np.float32)


def shapes(project: Project) -> list[Finding]:
    """There are logits for every pixel of every image."""
    image, label = project.batches(1)[0]
    logits = project.forward(image, training=True)
    if logits.ndim == 4 and (logits.shape[0], *logits.shape[2:]) == label.shape:
        return []
    return [
        Finding(
            "error",
            "logits",
            f"the network gives logits {logits.shape} for labels {label.shape}",
            "a loss needs one for every pixel of the label; some broadcast others in silence",
            "give (B, K, H, W) in the size of the image: resize what is smaller at the network's "
            "end, add the axis of channels where it is missing",
        )
    ]


def direction(project: Project) -> list[Finding]:
    """What is right costs less than what is wrong, also where there is nothing to find."""
    if not project.knows_loss:
        return []
    found = project.once(dissect)
    if not found.right < found.wrong:
        seen = f"right logits cost {found.right:.4g}, wrong ones {found.wrong:.4g}"
        why = "what lowers the loss makes the masks worse, or nothing lowers it"
        remedy = (
            "look for a sign, swapped arguments (logits, label), or labels that are all ignored"
        )
        return [Finding("error", "loss direction", seen, why, remedy)]
    if found.pulled < PULLED:
        seen = f"only {found.pulled:.0%} of the foreground's pixels are pulled towards foreground"
        why = "the loss compares a pixel with the label of another one, or of another image"
        remedy = "look at the shapes: (B, 1, H, W) and (B, H, W) broadcast to (B, B, H, W) in "
        remedy += "silence; and at transpose, reshape and the order of rows and columns"
        return [Finding("error", "loss target", seen, why, remedy)]
    if not found.empty_right < found.empty:
        seen = "on an image without foreground a false mask costs no more than an empty one"
        why = "images without objects teach nothing, and get hallucinated ones"
        remedy = "use a loss that counts false positives there, as tinyseg's dice and tversky do"
        return [Finding("warning", "empty labels", seen, why, remedy)]
    return []


def head_fits(project: Project) -> list[Finding]:
    """A softmax does not see a number added to all channels; nor may a loss that goes with it."""
    if not project.knows_loss:
        return []
    found, channels = project.once(dissect), project.model_channels
    scale = max(abs(found.wrong - found.right), 1e-12)
    if channels < 2 or found.shifted <= 1e-3 * scale:
        return []
    return [
        Finding(
            "error",
            "head and loss",
            f"the head has {channels} channels, of which the largest wins, but the loss takes each "
            "for itself (it changes when all are raised alike)",
            "such a loss trains sigmoids; the softmax of prediction then reads other probabilities",
            "use ce, dice or focal with a softmax head (train.loss=auto), or for two classes "
            "model.head=sigmoid with bce",
        )
    ]


def terms(project: Project) -> list[Finding]:
    """Every term of the sum has something to say."""
    if not project.knows_loss:
        seen = "the loss of this step is not known, so it was not examined"
        return [Finding("note", "loss", seen, remedy="give Project(..., loss=function)")]
    found = project.once(dissect)
    names = [name for name in found.value if name != "loss"]
    largest = max(found.gradient.values())
    flat = [n for n in names if found.gradient[n] <= FLAT * max(largest, 1e-12)]
    if flat:
        return listed(
            "error" if len(flat) == len(names) else "warning",
            "constant loss",
            f"loss terms, of {len(names)}, without any gradient",
            [f"{name}: always {found.value[name]:.4g}" for name in flat],
            "a term that is constant teaches nothing, as ce does on a head of one channel",
            "give it the head that it is made for, or leave it away",
        )
    told = [
        f"{name}: value {found.value[name]:.4g}, gradient {found.gradient[name]:.3g}, of it "
        f"{found.background[name]:.0%} from background"
        for name in found.value
    ]
    return [Finding("ok", "loss terms", "each pulls on the logits", evidence=tuple(told))]


def balance(project: Project) -> list[Finding]:
    """At least one term looks at the foreground."""
    if not project.knows_loss:
        return []
    found = project.once(dissect)
    names = [name for name in found.value if name != "loss"]
    shares = {n: found.background[n] for n in names if np.isfinite(found.background[n])}
    if not shares or min(shares.values()) < DOMINATED:
        return []
    return [
        Finding(
            "warning",
            "loss balance",
            f"background gives {min(shares.values()):.0%} of the gradient; "
            f"{project.foreground:.2%} of the pixels are foreground",
            "to predict nothing is then nearly the best answer, and the first one to be learned",
            'train.loss=auto (half Dice), or "0.5*bce+0.5*tversky(alpha=0.3,beta=0.7)"; or start '
            f"the head's bias at log(f / (1 - f)) = {project.first_bias:.1f}",
            tuple(f"{name}: {value:.1%} from background" for name, value in shares.items()),
        )
    ]


LOSS_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (
    shapes,
    terms,
    direction,
    head_fits,
    balance,
)
