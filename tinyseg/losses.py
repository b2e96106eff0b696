"""Segmentation losses on logits, and weighted sums of them read from text.

All take logits (B,K,H,W) and a label (B,H,W) of class indices or (B,1,H,W) of {0,1}, and return a
scalar. K = 1 is a sigmoid head, K >= 2 a softmax head; p is the probability, t the one-hot target.
Pixels labelled IGNORE count nowhere. Every number (alpha, weights, ...) may be a Tensor, so that
changing it needs no new graph. Value and gradient are finite for any finite logits and any label;
with every pixel ignored both are 0.

Overlap losses (dice, continuous_dice, jaccard, tversky, focal_tversky) compare soft areas per
class and take the mean over classes:
- `batch=True` adds up the areas of all images of the batch first, as nnU-Net does in 2-D, so an
  image without foreground still counts its false positives; False: per image, then the mean.
- `background=False` leaves class 0 of a softmax head out, as nnU-Net does (MONAI and SMP keep
  it); with two classes the value then equals that of a sigmoid head.
- A class without a single target pixel has no overlap to measure. Its loss is its false-positive
  share, sum(p) / pixels: 0 for an empty prediction, with a gradient that does not fade as the
  usual eps / (sum(p) + eps) does. (SMP sets it to 0: empty images then teach nothing.)
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor

from tinyseg.backend import backend, overwrite, upload
from tinyseg.config import IGNORE
from tinyseg.errors import ConfigError, StepError
from tinyseg.text import Call, Value, check_name, fill, parse_sum, write_value

Number: TypeAlias = "float | Tensor"
Function = Callable[..., Tensor]

_EPSILON = 1e-5  # in pixels, far below any real area: keeps 0/0 away
_ZERO = 1e-20  # a smaller probability is zero


class Targets(NamedTuple):
    """The canonical form: all float32, ready to be multiplied."""

    logits: Tensor
    """(B,K,H,W)"""
    target: Tensor
    """(B,K,H,W), 0 or 1; K = 1 holds the foreground. An ignored pixel is 0 in all classes."""
    valid: Tensor
    """(B,1,H,W), 0 where the pixel is ignored."""


def prepare(logits: Tensor, label: Tensor) -> Targets:
    """Brings both into canonical form; shapes that do not fit raise StepError.

    Label values are not looked at (that would cost a download): one that is no class counts as
    background (K = 1) or as no class (K >= 2). Label (B,1,H,W) is accepted for any K.
    """
    backend()
    if logits.ndim != 4 or not 1 <= logits.shape[1] <= IGNORE:
        raise StepError(f"logits have shape {logits.shape}; a loss needs (batch, classes, H, W)")
    batch, classes, height, width = logits.shape
    if label.shape not in ((batch, height, width), (batch, 1, height, width)):
        raise StepError(
            f"label has shape {label.shape}, logits {logits.shape}: the label must be "
            f"({batch}, {height}, {width}) or ({batch}, 1, {height}, {width})"
        )
    index = label.reshape(batch, 1, height, width).int()
    kinds = Tensor.arange(classes).reshape(1, classes, 1, 1) if classes > 1 else 1
    return Targets(logits.float(), (index == kinds).float(), (index != IGNORE).float())


# 1. Losses per pixel: the mean over the valid pixels


def bce(logits: Tensor, label: Tensor, pos_weight: Number = 1.0, smoothing: Number = 0.0) -> Tensor:
    """Binary cross-entropy, -[w t log p + (1 - t) log(1 - p)]; for K >= 2 one class against rest.

    `pos_weight` w > 0 weighs the foreground; `smoothing` s in [0,1) moves t to t (1 - s) + s / 2.
    For K >= 2 each channel is a sigmoid of its own and the mean runs over the channels too.
    """
    logits, target, valid = prepare(logits, label)
    target = target * (1 - smoothing) + smoothing / 2
    loss = logits.softplus() * (1 + (pos_weight - 1) * target) - pos_weight * target * logits
    return _mean(loss, valid)


def ce(
    logits: Tensor,
    label: Tensor,
    weights: Sequence[float] | Tensor = (),
    smoothing: Number = 0.0,
) -> Tensor:
    """Categorical cross-entropy, -sum_k w_k t_k log p_k, of a softmax head (K >= 2).

    `weights` (K,) >= 0 weigh the classes; the sum is divided by the weights of the pixels' classes
    (a weighted mean, as in PyTorch). `smoothing` s in [0,1) moves t to t (1 - s) + s / K
    (Szegedy et al. 2016).
    """
    logits, target, valid = prepare(logits, label)
    classes = logits.shape[1]
    if classes < 2:
        raise StepError("ce needs logits with 2 or more channels; use bce for a one-channel head")
    scale = _class_weights(weights, classes) * valid
    smooth = target * (1 - smoothing) + smoothing / classes
    total = (scale * target).sum()
    return -(scale * smooth * logits.log_softmax(1)).sum() / (total > 0).where(total, 1)


def focal(logits: Tensor, label: Tensor, alpha: Number = 0.25, gamma: Number = 2.0) -> Tensor:
    """Focal loss, -alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5); p_t: p of the label.

    alpha_t is `alpha` (0 to 1) on foreground and 1 - alpha on background, which is class 0 of a
    softmax head. `gamma` >= 0. The paper divides by the number of foreground anchors; here the
    mean runs over the valid pixels.
    """
    logits, target, valid = prepare(logits, label)
    if logits.shape[1] == 1:
        foreground, (log_wrong, surprise) = target, _sigmoid_surprise(logits, target)
    else:
        foreground, (log_wrong, surprise) = 1 - target[:, :1], _softmax_surprise(logits, target)
    weight = foreground * alpha + (1 - foreground) * (1 - alpha)
    return _mean(weight * (gamma * log_wrong).exp() * surprise, valid)


def _sigmoid_surprise(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 - p_t) and -log p_t of a sigmoid head: exact and finite at any logit."""
    signed = logits * (2 * target - 1)
    softplus = signed.softplus()
    return -softplus, softplus - signed


def _softmax_surprise(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 - p_t) and -log p_t of a softmax head; 1 - p_t is a sum, so nothing cancels."""
    log_p = logits.log_softmax(1)
    wrong = ((1 - target) * log_p.exp()).sum(1, keepdim=True)
    return wrong.maximum(_ZERO).log(), -(target * log_p).sum(1, keepdim=True)


def _class_weights(weights: Sequence[float] | Tensor, classes: int) -> Tensor | float:
    if len(weights) == 0:
        return 1.0
    if len(weights) != classes:
        raise StepError(f"{len(weights)} class weights for {classes} classes: give one per class")
    tensor = weights if isinstance(weights, Tensor) else Tensor(list(weights))
    return tensor.reshape(1, classes, 1, 1)


def _mean(loss: Tensor, valid: Tensor) -> Tensor:
    count = valid.sum() * loss.shape[1]
    return (loss * valid).sum() / count.maximum(1)


# 2. Losses of overlap: the mean over classes (and images)


def dice(
    logits: Tensor,
    label: Tensor,
    squared: bool = False,
    background: bool = False,
    batch: bool = True,
) -> Tensor:
    """Soft Dice loss, 1 - 2 sum(p t) / (sum(p) + sum(t)).

    `squared` has p^2 and t^2 below, as in V-Net (Milletari et al. 2016); nnU-Net, MONAI and SMP do
    without by default, and so do we.
    """
    p, t, valid = _probability(logits, label, background)
    error = (p - t).square() if squared else p + t - 2 * p * t
    return _share(2 * p * t, error, t, valid, batch).mean()


def jaccard(logits: Tensor, label: Tensor, background: bool = False, batch: bool = True) -> Tensor:
    """Soft Jaccard (IoU) loss, 1 - I / (sum(p) + sum(t) - I) with I = sum(p t) (Rahman 2016)."""
    p, t, valid = _probability(logits, label, background)
    return _share(p * t, p + t - 2 * p * t, t, valid, batch).mean()


def tversky(
    logits: Tensor,
    label: Tensor,
    alpha: Number = 0.3,
    beta: Number = 0.7,
    background: bool = False,
    batch: bool = True,
) -> Tensor:
    """Tversky loss, 1 - TP / (TP + alpha FP + beta FN) (Salehi et al. 2017, eq. 3).

    TP = sum(p t), FP = sum(p (1 - t)), FN = sum((1 - p) t). `alpha` >= 0 weighs false positives,
    `beta` >= 0 false negatives; both 0.5 is Dice, both 1 is Jaccard.
    """
    return _tversky_share(logits, label, alpha, beta, background, batch).mean()


def focal_tversky(
    logits: Tensor,
    label: Tensor,
    alpha: Number = 0.3,
    beta: Number = 0.7,
    gamma: Number = 0.75,
    background: bool = False,
    batch: bool = True,
) -> Tensor:
    """Focal Tversky loss, (tversky loss of the class)^gamma (Abraham & Khan 2018, eq. 4).

    `gamma` > 0 is the exponent itself: the paper writes it 1/gamma with gamma = 4/3, our 0.75.
    The paper's alpha is our beta: here `alpha` weighs false positives, as in `tversky`.
    """
    share = _tversky_share(logits, label, alpha, beta, background, batch)
    # in the log domain: the gradient of share^gamma at 0 would be infinite for gamma < 1
    return (share > _EPSILON).where((gamma * share.maximum(_EPSILON).log()).exp(), 0).mean()


def continuous_dice(
    logits: Tensor,
    label: Tensor,
    hold: bool = False,
    background: bool = False,
    batch: bool = True,
) -> Tensor:
    """Continuous Dice loss, 1 - 2 sum(t p) / (c sum(t) + sum(p)) (Shamir et al., bioRxiv 306977).

    c = sum(t p) / sum(t sign(p)) is the mean probability on the target where it is not zero, and 1
    where that is empty (the paper's A is the target t, its B the probability p).

    Made for scoring. As a loss mind that a sigmoid is never 0: c sum(t) is then sum(t p), and what
    is left asks for soft precision only, not for the whole target. `hold` keeps the value but
    takes c as a constant in the gradient, which brings that pull back; or add another term.
    """
    p, t, valid = _probability(logits, label, background)
    hit, found = _total(p * t, valid, batch), _total((p > _ZERO) * t, valid, batch)
    c = (found > 0).where(hit / found.maximum(1), 1)
    target, area = _total(t, valid, batch), _total(valid, valid, batch)
    error = (c.detach() if hold else c) * target + _total(p, valid, batch) - 2 * hit
    return _divide(2 * hit, error, target, area).mean()


def _probability(logits: Tensor, label: Tensor, background: bool) -> Targets:
    """The canonical form with probabilities in place of logits, background left out or not."""
    logits, target, valid = prepare(logits, label)
    if logits.shape[1] == 1:
        # beyond the clip p is 0 or 1 to 1e-26; without it exp() overflows at -89, and only a
        # rewrite rule of tinygrad, within one kernel, keeps the gradient inf * 0 from being NaN
        return Targets(logits.clip(-60, 60).sigmoid(), target, valid)
    first = 0 if background else 1
    return Targets(logits.softmax(1)[:, first:], target[:, first:], valid)


def _tversky_share(
    logits: Tensor, label: Tensor, alpha: Number, beta: Number, background: bool, batch: bool
) -> Tensor:
    p, t, valid = _probability(logits, label, background)
    error = alpha * p * (1 - t) + beta * t * (1 - p)
    return _share(p * t, error, t, valid, batch, alpha)


def _share(
    hit: Tensor,
    error: Tensor,
    target: Tensor,
    valid: Tensor,
    batch: bool,
    false_positive: Number = 1.0,
) -> Tensor:
    """error / (hit + error) of each class (and image) from maps (B,K,H,W): 1 - overlap."""
    hit, error, target, area = (_total(x, valid, batch) for x in (hit, error, target, valid))
    return _divide(hit, error, target, area * false_positive)


def _divide(hit: Tensor, error: Tensor, target: Tensor, area: Tensor) -> Tensor:
    # without target, error is the false positives: compare them with the area
    return error / ((target > 0).where(hit + error, area) + _EPSILON)


def _total(x: Tensor, valid: Tensor, batch: bool) -> Tensor:
    return (x * valid).sum((0, 2, 3) if batch else (2, 3))


LOSSES: dict[str, Function] = {
    "bce": bce,
    "ce": ce,
    "focal": focal,
    "dice": dice,
    "continuous_dice": continuous_dice,
    "jaccard": jaccard,
    "tversky": tversky,
    "focal_tversky": focal_tversky,
}


# 3. Weighted sums

_RULES: dict[str, tuple[float, float, str]] = {
    "weight": (0, np.inf, "0 or more"),
    "alpha": (0, np.inf, "0 or more"),
    "beta": (0, np.inf, "0 or more"),
    "gamma": (0, np.inf, "0 or more"),
    "smoothing": (0, 0.999, "a fraction below 1"),
    "pos_weight": (_EPSILON, np.inf, "above 0"),
    "weights": (0, np.inf, "0 or more each"),
    "focal.alpha": (0, 1, "from 0 to 1"),
    "focal_tversky.gamma": (_EPSILON, np.inf, "above 0"),
}
"""Smallest and largest value of each number, for all losses or for one, and the rule in words."""


@dataclass(frozen=True)
class _Term:
    loss: str
    """Its name in LOSSES, or the name of a plain function."""
    function: Function
    numbers: dict[str, Value]
    """Arguments that live in the state, with their defaults."""
    options: dict[str, bool]
    """Arguments that shape the graph, as given."""


class Loss:
    """A weighted sum of losses; its numbers are Tensors, so changing them needs no new graph.

    Called as `loss(logits, label)` it returns {"loss": the sum, name: each term, unweighted}.
    """

    terms: tuple[str, ...]
    """Unique names of the terms, e.g. ("tversky", "tversky_2")."""
    state: dict[str, Tensor]
    """Every number as a float32 Tensor with a buffer of its own: "loss.focal.alpha", ..."""
    graph: str
    """What shapes the graph, apart from the numbers; empty when that cannot be told (`of`)."""

    def __init__(self, terms: Sequence[tuple[_Term, dict[str, Value]]], graph: str) -> None:
        """Terms, each with its numbers as they are at first: use `parse` or `of`."""
        self._terms: dict[str, _Term] = {}
        self.state, self.graph = {}, graph
        for term, numbers in terms:
            count = sum(other.loss == term.loss for other in self._terms.values())
            name = f"{term.loss}_{count + 1}" if count else term.loss
            self._terms[name] = term
            for number, value in numbers.items():
                array = _array(f"{term.loss}.{number}", value)
                self.state[f"loss.{name}.{number}"] = upload(array)
        self.terms = tuple(self._terms)

    @staticmethod
    def parse(text: str, out_channels: int) -> "Loss":
        """Reads e.g. "0.7*focal(alpha=0.9,gamma=2)+0.3*bce" for a head of so many channels.

        "auto" is half cross-entropy, half Dice. What cannot be read, unknown names, wrong types
        and values that break a rule raise ConfigError.
        """
        if text.strip() == "auto":
            text = "0.5*bce+0.5*dice" if out_channels == 1 else "0.5*ce+0.5*dice"
        terms = [_term(weight, call, out_channels) for weight, call in parse_sum(text)]
        return Loss(terms, "+".join(str(Call(term.loss, {**term.options})) for term, _ in terms))

    @staticmethod
    def of(function: Function) -> "Loss":
        """A Loss of a function (logits, label) -> scalar Tensor, named as the function."""
        name = getattr(function, "__name__", "")
        name = name if name.isidentifier() and name != "loss" else "custom"
        return Loss([(_Term(name, function, {}, {}), {"weight": 1.0})], "")

    def __call__(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        values = {name: self._value(name, logits, label) for name in self.terms}
        parts = [self.state[f"loss.{name}.weight"] * values[name] for name in self.terms]
        return {"loss": sum(parts[1:], parts[0]), **values}

    def _value(self, name: str, logits: Tensor, label: Tensor) -> Tensor:
        term = self._terms[name]
        numbers = {number: self.state[f"loss.{name}.{number}"] for number in term.numbers}
        value = term.function(logits, label, **numbers, **term.options)
        if value.shape != ():
            raise StepError(f"loss {name} has shape {value.shape}: it must return a scalar")
        return value

    def assign(self, name: str, value: float | Sequence[float]) -> None:
        """Changes a number in place, e.g. ("focal.alpha", 0.5) or ("tversky_2.weight", 1)."""
        term, _, number = name.rpartition(".")
        tensor = self.state.get(f"loss.{name}")
        if tensor is None:
            known = ", ".join(key.removeprefix("loss.") for key in self.state)
            raise ConfigError(f"unknown number {name!r} of loss {self.text}; known: {known}")
        array = _array(f"{self._terms[term].loss}.{number}", value)
        if array.shape != tensor.shape:
            raise ConfigError(f"{name}={value!r} cannot be used: its shape is {tensor.shape}")
        overwrite(tensor, array)

    @property
    def text(self) -> str:
        """The canonical text, with the numbers as they are now; defaults are left out."""
        return "+".join(self._write(name, term) for name, term in self._terms.items())

    def _write(self, name: str, term: _Term) -> str:
        standard = term.numbers | _options(term.function)
        now = {number: _number(self.state[f"loss.{name}.{number}"]) for number in term.numbers}
        now |= term.options
        call = Call(term.loss, {key: now[key] for key in now if now[key] != standard[key]})
        weight = _number(self.state[f"loss.{name}.weight"])
        return str(call) if weight == 1 else f"{write_value(weight)}*{call}"


def _term(weight: float, call: Call, out_channels: int) -> tuple[_Term, dict[str, Value]]:
    """Checks one term of a sum against the signature of its loss."""
    check_name(call, LOSSES, "loss")
    if call.name == "ce" and out_channels < 2:
        raise ConfigError("ce needs a head of 2 or more channels; use bce for one channel")
    function = LOSSES[call.name]
    numbers, options = _numbers(function, out_channels), _options(function)
    given = fill(call, numbers | options)
    for name, value in numbers.items():
        if isinstance(value, tuple) and np.shape(given[name]) != np.shape(value):
            raise ConfigError(f"{call}: give one number per class in {name}, {out_channels} in all")
    options = {name: bool(given[name]) for name in options}
    term = _Term(call.name, function, numbers, options)
    return term, {"weight": weight, **{name: given[name] for name in numbers}}


def _defaults(function: Function) -> dict[str, Value]:
    parameters = list(inspect.signature(function).parameters.values())[2:]
    return {parameter.name: parameter.default for parameter in parameters}


def _options(function: Function) -> dict[str, bool]:
    return {name: value for name, value in _defaults(function).items() if isinstance(value, bool)}


def _numbers(function: Function, classes: int) -> dict[str, Value]:
    """The other arguments; an empty list stands for one number per class."""
    items = _defaults(function).items()
    return {
        name: (1.0,) * classes if value == () else value
        for name, value in items
        if not isinstance(value, bool)
    }


def _array(name: str, value: Value | Sequence[float]) -> NDArray[np.float32]:
    """A number such as "focal.alpha" that keeps its rule, as float32; else ConfigError."""
    low, high, rule = _RULES.get(name) or _RULES[name.rpartition(".")[2]]
    array = np.asarray(value, np.float32)
    if not (np.isfinite(array) & (array >= low) & (array <= high)).all():
        raise ConfigError(f"{name}={value} cannot be used: it must be {rule}")
    return array


def _number(tensor: Tensor) -> Value:
    """A float32 as the shortest decimal number that names it: 0.9, not 0.8999999761581421."""
    array = tensor.numpy()
    return tuple(float(str(x)) for x in array) if array.ndim else float(str(array))
