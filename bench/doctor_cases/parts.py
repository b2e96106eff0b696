"""Activations, losses, pipelines and predictors of the programs, right ones and wrong ones."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from tinygrad import Tensor

Array = np.ndarray[Any, np.dtype[Any]]

# 1. Activations

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": Tensor.relu,
    "leaky": Tensor.leaky_relu,
    "silu": Tensor.silu,
    "gelu": Tensor.gelu,
    "elu": Tensor.elu,
    "mish": Tensor.mish,
    "hardswish": Tensor.hardswish,
    "tanh": Tensor.tanh,
    "sigmoid": Tensor.sigmoid,
    "softmax": lambda x: x.softmax(axis=1),
    "pixel softmax": lambda x: x.flatten(2).softmax(axis=-1).reshape(x.shape),
    "exp": Tensor.exp,
    "square": Tensor.square,
    "sign": lambda x: x.sign(),
    "minus relu": lambda x: (-x).relu() * -1,
}


# 2. Losses


def _target(logits: Tensor, label: Tensor) -> Tensor:
    return label.reshape(logits.shape[0], 1, *logits.shape[2:]).float()


def _bce(logits: Tensor, label: Tensor) -> Tensor:
    return logits.softplus() - _target(logits, label) * logits


def _dice(probability: Tensor, label: Tensor) -> Tensor:
    target = _target(probability, label)
    both, size = (probability * target).sum(), probability.sum() + target.sum()
    return 1 - (2 * both + 1) / (size + 1)


def _one_hot(logits: Tensor, label: Tensor) -> Tensor:
    return (
        label.reshape(len(logits.numpy()) if False else logits.shape[0], *logits.shape[2:])
        .one_hot(logits.shape[1])
        .permute(0, 3, 1, 2)
    )


def _ce(logits: Tensor, label: Tensor, axis: int = 1) -> Tensor:
    return -(logits.log_softmax(axis) * _one_hot(logits, label)).sum(1)


def _focal(logits: Tensor, label: Tensor) -> Tensor:
    target, p = _target(logits, label), logits.sigmoid()
    right = p * target + (1 - p) * (1 - target)
    return ((1 - right).square() * _bce(logits, label)).mean()


def _tversky(logits: Tensor, label: Tensor, fp: float, fn: float) -> Tensor:
    p, y = logits.sigmoid(), _target(logits, label)
    tp = (p * y).sum()
    return 1 - (tp + 1) / (tp + fp * (p * (1 - y)).sum() + fn * ((1 - p) * y).sum() + 1)


def _multi_dice(logits: Tensor, label: Tensor) -> Tensor:
    p, y = logits.softmax(1), _one_hot(logits, label)
    both, size = (p * y).sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    return 1 - ((2 * both + 1) / (size + 1))[1:].mean()


def _log_of_probability(logits: Tensor, label: Tensor) -> Tensor:
    p, y = logits.sigmoid(), _target(logits, label)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


def _on_probabilities(logits: Tensor, label: Tensor) -> Tensor:
    """As if the network had returned probabilities."""
    p, y = logits.clip(1e-7, 1 - 1e-7), _target(logits, label)
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # right ones
    "bce": lambda x, y: _bce(x, y).mean(),
    "bce_dice": lambda x, y: 0.5 * _bce(x, y).mean() + 0.5 * _dice(x.sigmoid(), y),
    "dice": lambda x, y: _dice(x.sigmoid(), y),
    "focal": _focal,
    "tversky": lambda x, y: _tversky(x, y, 0.3, 0.7),
    "probability mse": lambda x, y: (x.sigmoid() - _target(x, y)).square().mean(),
    "smoothed": lambda x, y: (x.softplus() - (0.9 * _target(x, y) + 0.05) * x).mean(),
    "weighted": lambda x, y: (_bce(x, y) * (1 + 4 * _target(x, y))).mean(),
    "log cosh dice": lambda x, y: _dice(x.sigmoid(), y).cosh().log(),
    "ce": lambda x, y: _ce(x, y).mean(),
    "ce_dice": lambda x, y: 0.5 * _ce(x, y).mean() + 0.5 * _multi_dice(x, y),
    # wrong ones
    "sum": lambda x, y: _bce(x, y).sum(),
    "sum over pixels": lambda x, y: _bce(x, y).sum((1, 2, 3)).mean(),
    "ce sum": lambda x, y: _ce(x, y).sum(),
    "ce over the batch": lambda x, y: _ce(x, y, 0).mean(),
    "ce over rows": lambda x, y: _ce(x, y, 2).mean(),
    "softmax before ce": lambda x, y: _ce(x.softmax(1), y).mean(),
    "sigmoid before bce": lambda x, y: _bce(x.sigmoid(), y).mean(),
    "logit mse": lambda x, y: (x - _target(x, y)).square().mean(),
    "logit dice": lambda x, y: _dice(x, y),
    "log of probability": _log_of_probability,
    "on probabilities": _on_probabilities,
    "uphill": lambda x, y: -_bce(x, y).mean(),
    "dice as loss": lambda x, y: 1 - _dice(x.sigmoid(), y),
    "minus dice": lambda x, y: _bce(x, y).mean() - _dice(x.sigmoid(), y),
    "inverted": lambda x, y: _bce(x, 1 - y).mean(),
    "false positives": lambda x, y: _tversky(x, y, 1.0, 0.0),
    "false negatives": lambda x, y: _tversky(x, y, 0.0, 1.0),
    "mean probability": lambda x, y: (x.sigmoid().mean() - _target(x, y).mean()).square(),
    "count": lambda x, y: (x.sigmoid().sum((1, 2, 3)) - _target(x, y).sum((1, 2, 3))).abs().mean(),
    "first image": lambda x, y: _bce(x[:1], y[:1]).mean(),
    "upper half": lambda x, y: _bce(x[:, :, :16], y[:, :16]).mean(),
    "transposed": lambda x, y: _bce(x, y.transpose(-1, -2).contiguous()).mean(),
    "next image": lambda x, y: _bce(x, y.roll(1, 0)).mean(),
    "thresholded": lambda x, y: _dice((x.sigmoid() > 0.5).float(), y) + 0 * x.sum(),
    "hard plus tiny": lambda x, y: 1e-9 * _bce(x, y).mean(),
    "huge": lambda x, y: 1e6 * _bce(x, y).mean(),
    "class 2 ignored": lambda x, y: (_ce(x, y) * (y != 2)).mean(),
    "background ignored": lambda x, y: (_bce(x, y) * _target(x, y)).mean(),
    "regularized to zero": lambda x, y: _bce(x, y).mean() + 10 * x.square().mean(),
}


# 3. Augmentation

_draws = np.random.default_rng(0)


def _flip(image: Array, label: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    if rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    if rng.random() < 0.5:
        image, label = image[::-1], label[::-1]
    return image.copy(), label.copy()


def _brightness(image: Array, label: Array) -> tuple[Array, Array]:
    factor, shift = _draws.uniform(0.8, 1.2), _draws.uniform(-20, 20)
    return np.clip(image * factor + shift, 0, 255).astype(image.dtype), label


def _frozen(image: Array, label: Array) -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    image, label = _flip(image, label, rng)
    top = rng.integers(1, 5)
    return np.roll(image, top, 0), np.roll(label, top, 0)


PIPELINES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    # right ones
    "flips": lambda image, label: _flip(image, label, _draws),
    "brightness": _brightness,
    "noise": lambda image, label: (
        np.clip(image + _draws.normal(size=image.shape) * 8, 0, 255).astype(image.dtype),
        label,
    ),
    "nothing": lambda image, label: (image, label),
    # wrong ones
    "frozen": _frozen,
    "to 0..1": lambda image, label: ((image / 255).astype(np.float32), label),
    "far too bright": lambda image, label: (
        np.clip(image.astype(float) + 120, 0, 255).astype(image.dtype),
        label,
    ),
    "overflow": lambda image, label: (image.astype(np.float32) * 4 + 300, label),
    "wraps around": lambda image, label: (
        ((image.astype(float) + _draws.uniform(60, 120)) % 256).astype(image.dtype),
        label,
    ),
    "image only": lambda image, label: (_flip(image, label, _draws)[0], label),
    "label to 255": lambda image, label: (
        image,
        np.where(label > 0, 255, label).astype(label.dtype),
    ),
    "black": lambda image, label: (image * 0, label),
    "strong noise": lambda image, label: (
        np.clip(image + _draws.normal(size=image.shape) * 150, 0, 255).astype(image.dtype),
        label,
    ),
    "drops labels": lambda image, label: (image, label * int(_draws.random() < 0.3)),
}


# 4. Predictors

Predict = Callable[[Iterable[Array]], Iterator[Array]]


def _tta(back: bool) -> Callable[[Predict], Predict]:
    def make(plain: Predict) -> Predict:
        def predict(images: Iterable[Array]) -> Iterator[Array]:
            images = list(images)
            flipped = plain([np.ascontiguousarray(image[:, ::-1]) for image in images])
            for one, other in zip(plain(images), flipped, strict=True):
                yield (one + (other[..., ::-1] if back else other)) / 2

        return predict

    return make


def _each(change: Callable[[Array], Array]) -> Callable[[Predict], Predict]:
    return lambda plain: lambda images: plain(change(image) for image in images)


def _all_flips(plain: Predict) -> Predict:
    def predict(images: Iterable[Array]) -> Iterator[Array]:
        images = list(images)
        total: list[Any] = [0] * len(images)
        for rows in (1, -1):
            for columns in (1, -1):
                turned = [np.ascontiguousarray(image[::rows, ::columns]) for image in images]
                for i, p in enumerate(plain(turned)):
                    total[i] = total[i] + p[:, ::rows, ::columns] / 4
        return iter(total)

    return predict


PREDICTORS: dict[str, Callable[[Predict], Predict]] = {
    "flip": _tta(True),
    "all flips": _all_flips,
    "flip not undone": _tta(False),
    "divided by 255": _each(lambda image: (image / 255).astype(np.float32)),
    "inverted images": _each(lambda image: 255 - image),
    "shifted": lambda plain: lambda images: (np.roll(p, 3, -1) for p in plain(images)),
    "sigmoid twice": lambda plain: lambda images: (1 / (1 + np.exp(-p)) for p in plain(images)),
}
