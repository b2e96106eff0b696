"""Laws that any loss of a mask obeys: its minimum is at the label, for each pixel on its own."""

from dataclasses import dataclass

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.config import IGNORE
from tinyseg.device.tensors import to_device
from tinyseg.doctor.experiments.loss_probe import confident
from tinyseg.doctor.project import Project

STEPS = 16
"""Steps of the descent; a loss of each pixel needs one."""
RATE = 0.5
"""Change of a logit in a step of the descent: Adam's without momentum."""
REACHED = 0.98
"""Share of pixels with their label at which the descent ends."""
SCALES = (1.0, 2.0, 4.0, 8.0)
"""Logits of right masks among which the lowest loss is looked for."""
EXTREME = 200.0
"""A logit whose sigmoid is 0 or 1 in float32."""
SUMMED = (1.9, 2.1)
"""Ratio of the losses of two copies and of one, for a sum."""
SAME = 1e-3
"""Change of a loss, relative to its value, that rounding may explain."""


@dataclass(frozen=True)
class Descent:
    """Gradient descent on the logits alone, from logits 0."""

    recall: dict[int, float]
    """Share of the pixels of each class that get their label."""
    silent: dict[str, float]
    """Share of pixels without gradient, of each class, image and half; the largest ones."""

    @property
    def reaches(self) -> bool:
        """Whether most pixels of each class have their label."""
        return min(self.recall.values(), default=1.0) >= 0.5


@dataclass(frozen=True)
class LossLaws:
    """What a loss does on the first batch of labels."""

    descent: Descent
    of_probabilities: Descent | None
    """With probabilities in place of logits, if the descent fails: the loss may expect them."""
    doubled_batch: float
    """Loss of each image twice, relative to the loss; nan if it cannot be computed."""
    doubled_image: float
    """Loss of images with a copy at their side."""
    lowest: float
    """Loss of a right mask, at the best scale of its logits, relative to that of logits 0."""
    bounded: bool
    """Whether the loss of a wrong mask does not grow with its logits."""
    finite: bool
    """Whether loss and gradient are numbers for very confident logits."""
    axis: str
    """Over what a softmax normalizes in place of the classes; "" if there is no such thing."""
    undecided: float
    """The loss of logits 0."""
    pixels: int

    @property
    def takes_probabilities(self) -> bool:
        """Whether its minimum is at the label for probabilities, but not for logits."""
        return self.of_probabilities is not None and self.of_probabilities.reaches

    @property
    def is_sum(self) -> bool:
        """Whether the loss is a sum over images or pixels."""
        ratios = (self.doubled_batch, self.doubled_image)
        return any(SUMMED[0] < ratio < SUMMED[1] for ratio in ratios)


def loss_laws(project: Project) -> LossLaws:
    """Measure a loss on labels of the first batch and logits of its own."""
    label = project.batches(1)[0][1].numpy()
    channels = project.out_channels
    right = confident(label, channels) / np.abs(confident(label, channels)).max()
    random = np.random.default_rng(0).normal(size=right.shape).astype(np.float32)
    value = _Value(project)
    descent = _descend(value, label, channels)
    other = None if descent.reaches else _descend(value, label, channels, as_probabilities=True)
    undecided = value(0 * right, label)
    base = value(random, label)
    twice = [
        value(np.concatenate([random] * 2, a), np.concatenate([label] * 2, b)) / (base or np.nan)
        for a, b in ((0, 0), (3, 2))
    ]
    lowest = min(value(scale * right, label) for scale in SCALES)
    wrong = [value(-scale * right, label) for scale in (10.0, 100.0)]
    extreme = [value.gradient(s * EXTREME * right, label) for s in (1, -1)]
    return LossLaws(
        descent,
        other,
        twice[0],
        twice[1],
        lowest / undecided if undecided > 0 else 0.0,
        wrong[1] <= 1.5 * abs(wrong[0]),
        all(np.isfinite(loss) and np.isfinite(g).all() for loss, g in extreme),
        _wrong_axis(value, random, label) if channels > 1 else "",
        undecided,
        label.size,
    )


class _Value:
    """The loss of arrays, nan where it raises an exception."""

    def __init__(self, project: Project):
        self._loss = project.loss

    def __call__(self, logits: Array, label: Array) -> float:
        try:
            result = self._loss(to_device(logits.astype(np.float32)), to_device(label))
            return float(result["loss"].item())
        except Exception:  # noqa: BLE001 - of the user's code, for shapes that it need not know
            return float("nan")

    def gradient(
        self, logits: Array, label: Array, as_probabilities: bool = False
    ) -> tuple[float, Array]:
        """Return the loss and its gradient by the logits."""
        x = to_device(logits.astype(np.float32))
        loss = self._loss(_probabilities(x) if as_probabilities else x, to_device(label))["loss"]
        (gradient,) = loss.gradient(x)
        Tensor.realize(loss, gradient)
        return float(loss.item()), gradient.numpy()


def _probabilities(x: Tensor) -> Tensor:
    return x.sigmoid() if x.shape[1] == 1 else x.softmax(axis=1)


def _descend(value: _Value, label: Array, channels: int, as_probabilities: bool = False) -> Descent:
    logits = np.zeros((len(label), channels, *label.shape[1:]))
    square, silent = np.zeros_like(logits), dict[str, float]()
    for step in range(1, STEPS + 1):
        gradient = value.gradient(logits, label, as_probabilities)[1].astype(np.float64)
        if step == 1:
            silent = _silent(gradient, label)
        square = 0.9 * square + 0.1 * gradient**2
        size = np.sqrt(square / (1 - 0.9**step))
        logits -= RATE * gradient / (size + 1e-3 * np.abs(gradient).max() + 1e-30)
        recall = _recall(logits, label)
        if min(recall.values(), default=1.0) >= REACHED:
            break
    return Descent(recall, silent)


def _recall(logits: Array, label: Array) -> dict[int, float]:
    own = label[:, None].astype(int)
    if logits.shape[1] == 1:
        right = np.where(own > 0, logits > 0, logits < 0)[:, 0]
    else:
        mine = np.take_along_axis(logits, np.where(own == IGNORE, 0, own), axis=1)
        right = (logits >= mine).sum(axis=1) == 1
    return {int(c): float(right[label == c].mean()) for c in np.unique(label) if c != IGNORE}


def _silent(gradient: Array, label: Array) -> dict[str, float]:
    """Return which parts of a batch have hardly any pixel with a gradient."""
    none, labeled = np.abs(gradient).max(axis=1) == 0, label != IGNORE
    half = label.shape[1] // 2
    rows, columns = np.indices(label.shape)[1:]
    parts = {f"class {c}": label == c for c in np.unique(label) if c != IGNORE}
    parts |= {
        f"image {i + 1} of the batch": np.arange(len(label))[:, None, None] == i
        for i in range(len(label))
    }
    parts |= {"the lower half": rows >= half, "the upper half": rows < half}
    parts |= {"the right half": columns >= half, "the left half": columns < half}
    shares = {
        name: float(none[labeled & part].mean())
        for name, part in parts.items()
        if (labeled & part).any()
    }
    return {name: share for name, share in shares.items() if share > 0.9}


def _wrong_axis(value: _Value, logits: Array, label: Array) -> str:
    """Return the axis over which a softmax normalizes, if that is not the axis of the classes.

    A softmax does not change when one number is added along its axis.
    """
    rng, base = np.random.default_rng(1), value(logits, label)

    def changes(axis: int) -> bool:
        shape = [n if i != axis else 1 for i, n in enumerate(logits.shape)]
        moved = value(logits + 2 * rng.normal(size=shape), label)
        return not abs(moved - base) <= SAME * abs(base)

    if not changes(1):
        return ""
    return next(
        (
            n
            for a, n in ((0, "the images of the batch"), (2, "rows"), (3, "columns"))
            if not changes(a)
        ),
        "",
    )
