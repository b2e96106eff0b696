"""Healthy set-ups of unusual kind: the doctor may not raise an alarm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from case import Case
from layers import NETWORKS
from parts import LOSSES
from program import HEALTHY_PROGRAMS, ByMode, Program, Step, at, everywhere, mutated
from runs import SETTINGS, finished
from tinygrad import Tensor, nn
from tinygrad.nn.state import get_parameters, get_state_dict

from tinyseg.config import Config
from tinyseg.data import simulate, write_pairs
from tinyseg.doctor import Project

SGD = HEALTHY_PROGRAMS["no norm, ReLU, SGD"]
SOFTMAX = HEALTHY_PROGRAMS["softmax, cross-entropy"]


def healthy(name: str, of: Program = Program(), **fields: Any) -> Case:  # noqa: B008 - frozen
    return Case(name, mutated(of, **fields).project)


def stock(
    name: str, *settings: str, kind: str = "cells", allowed: tuple[str, ...] = (), **simulation: Any
) -> Case:
    def make(folder: Path) -> Project:
        arguments = {"n": 24, "size": 32, "seed": 3, **simulation}
        write_pairs(simulate(kind, **arguments), folder)
        rate = "train.optimizer=adam(lr=0.01)"
        return Project(folder, Config().override([*SETTINGS, rate, *settings]))

    return Case(name, make, allowed=allowed)


def network(name: str) -> Case:
    """An own network with tinyseg's step, and with one of tinygrad's own in half of the cases."""

    def make(folder: Path) -> Project:
        write_pairs(simulate("cells", n=24, size=32, seed=3), folder)
        model = NETWORKS[name]()
        config = Config().override([*SETTINGS, "train.optimizer=adam(lr=0.01)"])
        if len(name) % 2:
            return Project(folder, config, model=model)
        step = Step(Program(), model)
        return Project(folder, config, model=model, step=step, loss=LOSSES["bce_dice"])

    return Case(f"network: {name}", make)


class Plain:
    """A step without JIT that ends with `optimizer.step()`."""

    def __init__(self, program: Program, optimizer: Callable[..., Any], **options: Any):
        self.program, self.optimizer, self.options = program, optimizer, options

    def __call__(self, folder: Path) -> Project:
        from tinygrad import TinyJit

        project = self.program.project(folder)
        model = project.model
        optimizer = self.optimizer(get_parameters(model), **self.options)

        @TinyJit
        def run(image: Tensor, label: Tensor) -> Tensor:
            with Tensor.train():
                optimizer.zero_grad()
                value = LOSSES["bce_dice"](model(image, True), label).backward()
                optimizer.step()
                others = [t for n, t in get_state_dict(model).items() if "running" in n]
                return value.realize(*others)

        return Project(
            folder / "data", project.config, model=model, step=run, loss=LOSSES["bce_dice"]
        )


class Reads(Program):
    """A program whose network has no argument for the mode."""


def by_mode(**fields: Any) -> Callable[[Path], Project]:
    program = mutated(Program(), mode="tensor", **fields)

    def make(folder: Path) -> Project:
        project = program.project(folder)
        model = ByMode(program)
        loss = LOSSES["bce_dice"]

        class Own(Step):
            def run(self, image: Tensor, label: Tensor) -> Tensor:
                with Tensor.train():
                    self.optimizer.zero_grad()
                    value = self.loss(self.model(image), label).backward()
                    changes = self.optimizer.schedule_step()
                    others = [t for n, t in get_state_dict(self.model).items() if "running" in n]
                    return value.realize(*changes, *others)

        return Project(
            folder / "data", project.config, model=model, step=Own(program, model), loss=loss
        )

    return make


UNUSUAL: list[Case] = [
    *(Case(f"program: {name}", program.project) for name, program in HEALTHY_PROGRAMS.items()),
    *(network(name) for name in NETWORKS),
    *(
        healthy(f"loss: {name}", loss=name)
        for name in (
            "dice",
            "focal",
            "tversky",
            "probability mse",
            "smoothed",
            "weighted",
            "log cosh dice",
        )
    ),
    healthy("loss: ce + Dice", SOFTMAX, loss="ce_dice"),
    healthy("two classes by softmax", classes=2, loss="ce"),
    *(
        healthy(f"activation: {name}", activations=(name,) * 3)
        for name in ("elu", "mish", "hardswish", "tanh")
    ),
    *(
        healthy(f"pipeline: {name}", pipeline=name)
        for name in ("flips", "brightness", "noise", "nothing")
    ),
    healthy("predictor: flip", predictor="flip"),
    healthy("predictor: all flips", predictor="all flips"),
    healthy("batch of 1", HEALTHY_PROGRAMS["GroupNorm, SiLU, Adam"], batch_size=1),
    healthy("5 images", images=6),
    healthy("dropout 0.3 in a jitted step", dropout=0.3),
    Case("dropout 0.5, mode by Tensor.training", by_mode(dropout=0.5)),
    Case("mode by Tensor.training", by_mode()),
    healthy("clipped to norm 1", clip=1.0),
    healthy("weight decay 0.05", optimizer="adamw", weight_decay=0.05),
    healthy("a small last layer", init=at(everywhere("he"), 3, ("normal", 0.001))),
    healthy("SGD, weight decay 5e-4", HEALTHY_PROGRAMS["no norm, ReLU, SGD"], weight_decay=5e-4),
    Case(
        "optimizer.step(), AdamW", Plain(Program(), nn.optim.AdamW, lr=0.01), allowed=("results",)
    ),
    Case("optimizer.step(), LAMB", Plain(Program(), nn.optim.LAMB, lr=0.02), allowed=("results",)),
    stock("all losses of two phases", "train.loss=0.3*bce+0.3*dice+0.4*focal"),
    stock("huge objects", foreground=0.7),
    stock("tiny objects", foreground=0.04),
    stock("depth 2, bilinear", "model.depth=2", "model.upsample=bilinear"),
    stock("instance norm", "model.norm=instance"),
    stock("attention", "model.attention=true"),
    stock("strong augmentation", "train.augment=strong"),
    stock("dropout setting", "model.dropout=0.3"),
    stock("clip 1", "train.grad_clip=1"),
    stock("inverted cells", kind="ultrasound", n=12),
    Case("finished run", finished("train.epochs=30", "train.optimizer=adam(lr=0.01)")),
    Case(
        "finished run, plateau",
        finished(
            "train.epochs=30",
            "train.optimizer=adam(lr=0.01)",
            "train.schedule=plateau(factor=0.5,patience=5)",
        ),
    ),
    Case(
        "finished run, patience 10",
        finished("train.epochs=40", "train.early_stopping=10", "train.optimizer=adam(lr=0.01)"),
    ),
]
_ = np
