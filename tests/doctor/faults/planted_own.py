"""Faults in parts that a user writes: networks and steps of tinygrad's own pieces, predictors."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from fault import CONFIG, Fault, Healthy
from planted_training import net, project, with_model
from tinygrad import Tensor, TinyJit, nn
from tinygrad.nn.state import get_parameters

from tinyseg.device.tensors import copy_
from tinyseg.doctor import Project
from tinyseg.inference.predictor import Predictor
from tinyseg.losses import Loss
from tinyseg.models import UNet
from tinyseg.nn import parameters, update_running_stats

Array = np.ndarray[Any, np.dtype[Any]]
DEFAULT = Loss.parse("auto", 1)


def loss(logits: Tensor, label: Tensor) -> Tensor:
    return DEFAULT(logits, label)["loss"]


# 1. Networks


class DoubleSigmoid(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, training).sigmoid()


class EndsWithReLU(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, training).relu()


class DoubleSoftmax(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, training).softmax(axis=1)


class Reshaped(UNet):
    """Meant to bring channels from the end to the front."""

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        b, c, h, w = x_bchw.shape
        return super().__call__(x_bchw.reshape(b, h, w, c).permute(0, 3, 1, 2), training)


class Mirrored(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, training).flip(-1)


class FreshLayer(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return nn.Conv2d(1, 1, 3, padding=1)(super().__call__(x_bchw, training))


class AlwaysDropout(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        logits = super().__call__(x_bchw, training)
        return logits * (Tensor.rand(*logits.shape) > 0.5) * 2


class HalfSize(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, training).avg_pool2d(2)


class ThroughNumPy(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return Tensor(super().__call__(x_bchw, training).numpy())


class Constant(UNet):
    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return super().__call__(x_bchw, training) * 0 + 0.3


class AlwaysTraining(UNet):
    def __call__(self, x_bchw: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x_bchw, True)


def of(kind: type[UNet], channels: int = 1) -> Callable[[Path], Project]:
    return with_model(lambda model: net(kind, channels))


def zero(model: UNet) -> None:
    for tensor in parameters(model.state_dict()).values():
        copy_(tensor, np.zeros(tensor.shape, np.float32))


# 2. Steps with an optimizer of tinygrad


class Own:
    """A step as tinygrad's own examples write it."""

    def __init__(self, model: Any, trained: Any = None, rate: float = 0.01):
        self.model = model
        self.optimizer = nn.optim.Adam(get_parameters(trained or model), lr=rate)
        self.jit = TinyJit(self.run)

    def value(self, image: Tensor, label: Tensor) -> Tensor:
        return loss(self.model(image, training=True), label)

    def update(self) -> list[Tensor]:
        return self.optimizer.schedule_step()

    def run(self, image: Tensor, label: Tensor) -> Tensor:
        with Tensor.train():
            self.optimizer.zero_grad()
            value = self.value(image, label).backward()
            update_running_stats(self.model)
            return value.realize(*self.update(), *get_parameters(self.model))

    def __call__(self, image: Tensor, label: Tensor) -> float:
        return self.jit(image, label).item()


class Accumulates(Own):
    def run(self, image: Tensor, label: Tensor) -> Tensor:
        with Tensor.train():
            value = self.value(image, label).backward()
            update_running_stats(self.model)
            return value.realize(*self.update(), *get_parameters(self.model))


class Uphill(Own):
    def value(self, image: Tensor, label: Tensor) -> Tensor:
        return -super().value(image, label)


class FirstOnly(Own):
    def value(self, image: Tensor, label: Tensor) -> Tensor:
        return super().value(image[:1], label[:1])


class NotAssigned(Own):
    def update(self) -> list[Tensor]:
        return [weight - 0.01 * weight.grad for weight in self.optimizer.params]


class DrawnAnew(Own):
    def __call__(self, image: Tensor, label: Tensor) -> float:
        rng = np.random.default_rng(0)
        for tensor in parameters(self.model.state_dict()).values():
            copy_(tensor, 0.1 * rng.normal(size=tensor.shape).astype(np.float32))
        return super().__call__(image, label)


class Late(Own):
    last: float | None = None

    def __call__(self, image: Tensor, label: Tensor) -> float:
        value = super().__call__(image, label)
        self.last, last = value, self.last
        return value if last is None else last


class Block:
    def __init__(self, in_channels: int, out_channels: int):
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm(out_channels)

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return self.norm(self.conv(x_bchw)).relu()


class Stock:
    """A small U-Net of tinygrad's own layers."""

    out_channels = 1

    def __init__(self) -> None:
        self.down, self.deep, self.up = Block(3, 8), Block(8, 16), Block(24, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        with Tensor.train(training):
            down = self.down(x_bchw)
            deep = self.deep(down.max_pool2d()).interpolate(down.shape[2:], mode="nearest")
            return self.head(self.up(down.cat(deep, dim=1)))


class ByModeAlone(Stock):
    """The same as tinygrad's own examples have it: without an argument for the mode."""

    def __call__(self, x_bchw: Tensor) -> Tensor:  # type: ignore[override]
        down = self.down(x_bchw)
        deep = self.deep(down.max_pool2d()).interpolate(down.shape[2:], mode="nearest")
        return self.head(self.up(down.cat(deep, dim=1)))


class DropsOut(ByModeAlone):
    def __call__(self, x_bchw: Tensor) -> Tensor:  # type: ignore[override]
        down = self.down(x_bchw).dropout(0.1)
        deep = self.deep(down.max_pool2d()).interpolate(down.shape[2:], mode="nearest")
        return self.head(self.up(down.cat(deep, dim=1)).dropout(0.1))


class OwnByMode(Own):
    def value(self, image: Tensor, label: Tensor) -> Tensor:
        return loss(self.model(image), label)


def own(step: type[Own], model: Callable[[], Any] = net) -> Callable[[Path], Project]:
    def plant(folder: Path) -> Project:
        made = model()
        return project(folder, model=made, step=step(made), loss=loss)

    return plant


def with_model_of(model: Callable[[], Any]) -> Callable[[Path], Project]:
    return lambda folder: project(folder, model=model())


def of_another(folder: Path) -> Project:
    model = net()
    return project(folder, model=model, step=Own(model, trained=net()), loss=loss)


# 3. Predictors


def predicting(change: Callable[[list[Array]], Iterable[Array]]) -> Callable[[Path], Project]:
    """Results are changed behind a predictor that is right."""

    def plant(folder: Path) -> Project:
        model = net()
        right = Predictor(model, project(folder).input_pipeline)

        def predictor(images: Iterable[Array]) -> Iterator[Array]:
            return iter(change(list(right(images))))

        return Project(folder, CONFIG, model=model, predictor=predictor)

    return plant


def other_channels(folder: Path) -> Project:
    model = net()
    right = Predictor(model, project(folder).input_pipeline)

    def predictor(images: Iterable[Array]) -> Iterator[Array]:
        return right(np.ascontiguousarray(image[..., ::-1]) for image in images)

    return Project(folder, CONFIG, model=model, predictor=predictor)


HEALTHY = [
    Healthy("own step, our network", own(Own)),
    Healthy("own step, tinygrad's layers", own(Own, Stock)),
    Healthy("own step, mode by Tensor.train() alone", own(OwnByMode, ByModeAlone)),
    Healthy("own step with dropout", own(OwnByMode, DropsOut)),
    Healthy("our step, tinygrad's layers with dropout", with_model_of(DropsOut)),
    Healthy("own predictor", predicting(lambda results: results)),
]
FAULTS = [
    Fault("a sigmoid at the network's end", "one-sided output", of(DoubleSigmoid)),
    Fault("a ReLU at the network's end", "one-sided output", of(EndsWithReLU)),
    Fault("a softmax at the network's end", "softmax twice", of(DoubleSoftmax, 2)),
    Fault("pixels scrambled by a reshape", "places", of(Reshaped)),
    Fault("logits mirrored in the network", "places", of(Mirrored)),
    Fault("a layer made in each call", "random output", of(FreshLayer)),
    Fault("dropout in evaluation", "random output", of(AlwaysDropout)),
    Fault("logits of half the size", "logits", of(HalfSize)),
    Fault("a network that leaves the graph", "no gradient", of(ThroughNumPy)),
    Fault("a constant network", "ignores input", of(Constant)),
    Fault("a network that is always in training mode", "eval mode", of(AlwaysTraining)),
    Fault("all weights zero", "equal weights", with_model(zero)),
    Fault("gradients that add up", "gradients", own(Accumulates)),
    Fault("a step uphill", "uphill", own(Uphill)),
    Fault("only the first of a batch", "partial batch", own(FirstOnly)),
    Fault("updates that are not assigned", "frozen weights", own(NotAssigned)),
    Fault("weights drawn anew in each step", "unused weights", own(DrawnAnew)),
    Fault("a loss reported one step late", "stale loss", own(Late)),
    Fault("an optimizer of another network", "exception", of_another),
    Fault(
        "channels last in prediction",
        "prediction",
        predicting(lambda results: [p.transpose(1, 2, 0) for p in results]),
    ),
    Fault(
        "masks instead of probabilities",
        "prediction",
        predicting(lambda results: [255 * (p > 0.5).astype(np.uint8) for p in results]),
    ),
    Fault("predictions in another order", "prediction", predicting(lambda r: r[::-1])),
    Fault("a prediction too few", "prediction", predicting(lambda r: r[:-1])),
    Fault("BGR in prediction", "prediction", other_channels),
]
