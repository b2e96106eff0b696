"""Faults of step, network, loss and learning, as people write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault import CONFIG, Fault, cells
from tinygrad import Tensor, TinyJit

from tinyseg.device.tensors import copy_, to_device
from tinyseg.doctor import Project
from tinyseg.losses import Loss
from tinyseg.models import UNet
from tinyseg.nn import BatchNorm, Up, layers, parameters
from tinyseg.training.optimizer import Optimizer

RATE = 0.01


def net(model: type[UNet] = UNet, channels: int = 1) -> UNet:
    return model(3, channels, base_channels=8, depth=1, seed=0)


class HandWritten:
    """The step as one writes it first, without guards."""

    def __init__(
        self,
        model: UNet,
        chosen: Callable[[str], bool] = lambda name: True,
        training: bool = True,
    ):
        self.model, self.training = model, training
        found = parameters(model.state_dict())
        self.weights = {name: tensor for name, tensor in found.items() if chosen(name)}
        self.loss, self.optimizer = Loss.parse("auto", 1), Optimizer("adam", self.weights)
        self.rate, self.yes = to_device(np.array([RATE], np.float32)), to_device(np.array([True]))
        self.jit = TinyJit(self.run)

    def run(self, image: Tensor, label: Tensor) -> Tensor:
        from tinyseg.nn import update_running_stats

        value = self.loss(self.model(image, training=self.training), label)["loss"]
        gradients = dict(zip(self.weights, value.gradient(*self.weights.values()), strict=True))
        self.optimizer.update(gradients, self.rate, self.yes)
        update_running_stats(self.model)
        return value.realize(*self.model.state_dict().values(), *self.optimizer.state.values())

    def __call__(self, image: Tensor, label: Tensor) -> Tensor:
        return self.jit(image, label)


class Pool(HandWritten):
    """All images lie on the device; a step gets an index into them."""

    SLOTS = 64

    def __init__(self, model: UNet):
        super().__init__(model)
        self.places: dict[bytes, int] = {}
        self.images = self.labels = None

    def place(self, image: Tensor, label: Tensor) -> int:
        x, y = image.numpy(), label.numpy()
        if self.images is None:
            self.images = to_device(np.zeros((self.SLOTS * len(x), *x.shape[1:]), x.dtype))
            self.labels = to_device(np.zeros((self.SLOTS * len(y), *y.shape[1:]), y.dtype))
        start = self.places.setdefault(x.tobytes() + y.tobytes(), len(self.places) * len(x))
        for pool, new in ((self.images, x), (self.labels, y)):
            whole = pool.numpy().copy()
            whole[start : start + len(x)] = new
            copy_(pool, whole)
        return start

    def __call__(self, image: Tensor, label: Tensor) -> Tensor:
        return self.call(self.place(image, label), len(image.numpy()))

    def call(self, start: int, count: int) -> Tensor:
        raise NotImplementedError

    def cut(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        assert self.images is not None
        assert self.labels is not None
        images, labels = (pool[start : start + count] for pool in (self.images, self.labels))
        return images.contiguous(), labels.contiguous()


class ByIndex(Pool):
    """The index goes into the jitted function, which bakes it in."""

    def __init__(self, model: UNet):
        super().__init__(model)
        self.jit = TinyJit(lambda start, count: self.run(*self.cut(start, count)))

    def call(self, start: int, count: int) -> Tensor:
        return self.jit(start, count)


class BySlice(Pool):
    """The known cure, a contiguous slice, which tinygrad 0.13 drops among a jit's inputs."""

    def call(self, start: int, count: int) -> Tensor:
        return self.jit(*self.cut(start, count))


class BakedRate(HandWritten):
    """The learning rate is a Python number when the JIT looks."""

    learning_rate = RATE

    def run(self, image: Tensor, label: Tensor) -> Tensor:
        self.rate = Tensor([self.learning_rate])
        return super().run(image, label)


class Aliased(HandWritten):
    """Nothing wrong with it but that its results share one buffer."""


class NoSkip(Up):
    def __call__(self, x_bchw: Tensor, skip_bchw: Tensor, training: bool) -> Tensor:
        return super().__call__(x_bchw, skip_bchw * 0, training)


class EvalOnly(UNet):
    """Takes the flag and does not pass it on."""

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, False)


class Detached(UNet):
    """The deepest level is cut off from the gradient."""

    def _forward(self, x: Tensor, training: bool) -> Tensor:
        return super()._forward(x.detach(), training)


def project(folder: Path, *settings: str, **parts: Any) -> Project:
    return Project(cells(folder), CONFIG.override(settings), **parts)


def with_step(make: Callable[[UNet], Any]) -> Callable[[Path], Project]:
    def plant(folder: Path) -> Project:
        model = net()
        return project(folder, model=model, step=make(model))

    return plant


def with_model(change: Callable[[UNet], UNet | None]) -> Callable[[Path], Project]:
    def plant(folder: Path) -> Project:
        model = net()
        return project(folder, model=change(model) or model)

    return plant


def settings(*texts: str) -> Callable[[Path], Project]:
    return lambda folder: project(folder, *texts)


def dead(model: UNet) -> None:
    """As after one far too large step: all shifts are far below zero."""
    for name, layer in layers(model):
        if isinstance(layer, BatchNorm) and "down" in name:
            copy_(layer.bias, np.full(layer.bias.shape, -20, np.float32))


def without_skip(model: UNet) -> None:
    model.up[-1].__class__ = NoSkip


def still_statistics(model: UNet) -> None:
    for _, layer in layers(model):
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.0


def sparse(folder: Path) -> Project:
    data = cells(folder, foreground=0.012, empty=0)
    return Project(data, CONFIG.override(["train.loss=bce"]))


def is_decoder(name: str) -> bool:
    return not name.startswith("down")


def broadcast(logits: Tensor, label: Tensor) -> Tensor:
    """(B, 1, H, W) against (B, H, W)."""
    return (logits.softplus() - label.float() * logits).mean()


def transposed(logits: Tensor, label: Tensor) -> Tensor:
    target = label.transpose(-1, -2).reshape(logits.shape).float()
    return (logits.softplus() - target * logits).mean()


FAULTS = [
    Fault(
        "a loss of false positives alone", "loss", settings("train.loss=tversky(alpha=1,beta=0)")
    ),
    Fault(
        "a network of one channel", "capacity", settings("model.base_channels=1", "model.depth=1")
    ),
    Fault("a loss that broadcasts", "loss target", lambda folder: project(folder, loss=broadcast)),
    Fault("a loss that transposes", "loss target", lambda folder: project(folder, loss=transposed)),
    Fault("index-locked step", "locked step", with_step(ByIndex)),
    Fault("slice-locked step", "locked step", with_step(BySlice)),
    Fault("threshold at 0.99", "threshold", settings("train.threshold=0.99")),
    Fault("learning rate 1e-8", "learning rate", settings("train.optimizer=adam(lr=1e-8)")),
    Fault("learning rate 10", "learning rate", settings("train.optimizer=adam(lr=10)")),
    Fault("learning rate frozen by the JIT", "frozen rate", with_step(BakedRate)),
    Fault("frozen encoder", "frozen weights", with_step(lambda m: HandWritten(m, is_decoder))),
    Fault("dead ReLUs", "dead channels", with_model(dead)),
    Fault("zeroed skip", "skips", with_model(without_skip)),
    Fault(
        "BatchNorm in evaluation while training", "eval mode", with_model(lambda m: net(EvalOnly))
    ),
    Fault(
        "a step that evaluates",
        "statistics",
        with_step(lambda m: HandWritten(m, training=False)),
    ),
    Fault("momentum that keeps the statistics", "statistics", with_model(still_statistics)),
    Fault("softmax and BCE", "head and loss", settings("model.head=softmax", "train.loss=bce")),
    Fault("background-dominated loss", "loss balance", sparse),
    Fault("results that alias", "results", with_step(Aliased)),
    Fault(
        "loss upside down",
        "loss direction",
        lambda folder: project(folder, loss=lambda p, y: -Loss.parse("bce", 1)(p, y)["loss"]),
    ),
    Fault(
        "cross-entropy on one channel",
        "constant loss",
        lambda folder: project(folder, loss=lambda p, y: -(p.log_softmax(1) * y[:, None]).mean()),
    ),
]
