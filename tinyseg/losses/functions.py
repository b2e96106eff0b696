"""Segmentation losses on logits.

All take logits (B,K,H,W) and a label (B,H,W) of class indices or (B,1,H,W) of {0,1}, and return a
scalar. K = 1 is a sigmoid head, K >= 2 a softmax head; p is the probability, t the one-hot target.
Pixels labeled IGNORE count nowhere. Every number (alpha, weights, ...) may be a Tensor, so that
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

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from tinygrad import Tensor

from tinyseg.config import IGNORE
from tinyseg.device.choose import backend
from tinyseg.errors import StepError

Number: TypeAlias = "float | Tensor"
Function = Callable[..., Tensor]

SMALL = 1e-5
"""In pixels, far below any real area: keeps 0/0 away."""
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
    """Return both in canonical form; StepError for shapes that do not fit.

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
    class_ids = Tensor.arange(classes).reshape(1, classes, 1, 1) if classes > 1 else 1
    return Targets(logits.float(), (index == class_ids).float(), (index != IGNORE).float())


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
    return (share > SMALL).where((gamma * share.maximum(SMALL).log()).exp(), 0).mean()


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
    """Return the canonical form with probabilities for logits, with or without background."""
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
    return error / ((target > 0).where(hit + error, area) + SMALL)


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
