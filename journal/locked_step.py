"""Trains on 8 images in three ways and shows which images were learned; see the entry beside."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tinygrad import Device, Tensor, TinyJit

from tinyseg.config import DataConfig
from tinyseg.data import InputPipeline, InputScale, simulate
from tinyseg.device.choose import backend
from tinyseg.device.tensors import to_device
from tinyseg.drawing.pictures import color_classes, color_image, save_grid
from tinyseg.inference.predictor import Predictor, to_classes
from tinyseg.losses import Loss
from tinyseg.metrics.summary import evaluate_image
from tinyseg.models import UNet
from tinyseg.nn import parameters
from tinyseg.training.optimizer import Optimizer
from tinyseg.training.step import TrainStep

SIZE, STEPS, RATE = 48, 480, "adam(lr=0.01)"
SAMPLES = simulate("cells", n=8, size=SIZE, seed=11, empty=0)
IMAGES = np.stack([sample.image for sample in SAMPLES])
LABELS = np.stack([sample.label for sample in SAMPLES])
PIPELINE = InputPipeline(DataConfig(size=SIZE), InputScale.of(list(IMAGES)))
PIXELS = PIPELINE.to_batch([PIPELINE.tile(image) for image in IMAGES])

Step = Callable[[int], None]


def hand_written(model: UNet) -> Callable[[Tensor, Tensor], Tensor]:
    """The step as one writes it first, without guards."""
    weights = parameters(model.state_dict())
    loss, optimizer = Loss.parse("auto", 1), Optimizer(RATE, weights)
    rate, yes = to_device(np.array([0.01], np.float32)), to_device(np.array([True]))

    def step(image: Tensor, label: Tensor) -> Tensor:
        value = loss(model(image, training=True), label)["loss"]
        gradients = dict(zip(weights, value.gradient(*weights.values()), strict=True))
        optimizer.update(gradients, rate, yes)
        return value.realize(*model.state_dict().values(), *optimizer.state.values())

    return step


def by_index(model: UNet) -> Step:
    """A Python index into the dataset, inside the jitted function."""
    step, images, labels = hand_written(model), to_device(PIXELS), to_device(LABELS)
    jit = TinyJit(lambda i: step(images[i : i + 1].contiguous(), labels[i : i + 1].contiguous()))
    return lambda i: jit(i)


def by_slice(model: UNet) -> Step:
    """The known cure `data[i].contiguous()` outside, which tinygrad 0.13 breaks again."""
    images, labels = to_device(PIXELS), to_device(LABELS)
    jit = TinyJit(hand_written(model))
    return lambda i: jit(images[i : i + 1].contiguous(), labels[i : i + 1].contiguous())


def ours(model: UNet) -> Step:
    """TrainStep, given the same slices."""
    images, labels = to_device(PIXELS), to_device(LABELS)
    step = TrainStep(model, "auto", RATE)
    return lambda i: step(images[i : i + 1].contiguous(), labels[i : i + 1].contiguous())


def stock_graphs() -> None:
    """Takes the cure of tinyseg.backend out again."""
    device = Device[backend().device]
    device.graph = device.graph.__bases__[0]


def learned(make: Callable[[UNet], Step]) -> tuple[list[float], list[np.ndarray]]:
    model = UNet(3, 1, base_channels=8, depth=2, seed=0)
    step = make(model)
    for number in range(STEPS):
        step(number % 8)
    maps = [to_classes(p) for p in Predictor(model, PIPELINE, batch=8)(list(IMAGES))]
    pairs = zip(maps, LABELS, strict=True)
    return [float(evaluate_image(p, y, 2).values["dice"][1]) for p, y in pairs], maps


if __name__ == "__main__":
    gc.disable()  # the stock graph hangs when it is collected in a thread of the device
    cured = Device[backend().device].graph
    rows = [[color_image(i) for i in IMAGES], [color_classes(y, 2) for y in LABELS]]
    captions = ["images", "labels"]
    for make in (by_index, by_slice, ours):
        if make is by_slice:
            stock_graphs()
        dice, maps = learned(make)
        Device[backend().device].graph = cured
        print(f"{make.__name__:9}", " ".join(f"{value:.3f}" for value in dice))
        rows.append([color_classes(p, 2) for p in maps])
        captions.append(f"{make.__name__}: Dice " + "  ".join(f"{value:.2f}" for value in dice))
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "locked-step.png")
    save_grid(out, rows, captions, [str(i) for i in range(8)], side=112)
