"""A small training program of tinygrad's own layers; every part is a field that can go wrong."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from parts import ACTIVATIONS, LOSSES, PIPELINES, PREDICTORS
from tinygrad import Tensor, TinyJit, dtypes, nn
from tinygrad.nn.state import get_parameters, get_state_dict

from tinyseg.config import Config
from tinyseg.data import Sample, simulate, write_pairs
from tinyseg.device.tensors import copy_
from tinyseg.doctor import Project
from tinyseg.inference.predictor import Predictor

Array = np.ndarray[Any, np.dtype[Any]]
BLOCKS = 3
"""An encoder block, the deepest block, a decoder block."""


@dataclass(frozen=True)
class Program:
    """A program that memorizes and learns simulated images, until a field is changed."""

    # data
    kind: str = "cells"
    images: int = 24
    size: int = 32
    simulation: dict[str, float] = field(default_factory=dict)
    labels: Callable[[list[Sample]], list[Sample]] | None = None
    pipeline: str = ""
    batch_size: int = 4
    # network; `stock` is tinyseg's own network and step, with these settings
    stock: bool = False
    settings: tuple[str, ...] = ()
    widths: tuple[int, int] = (8, 16)
    activations: tuple[str, ...] = ("relu",) * BLOCKS
    final: str = "none"
    norm: str = "batch"
    norm_eps: float = 1e-5
    momentum: float = 0.1
    init: tuple[tuple[str, float], ...] = (("he", 1.0),) * (BLOCKS + 1)
    bias: float = 0.0
    dropout: float = 0.0
    block_detached: int = -1
    change: Callable[[Tensor], Tensor] | None = None
    """Done to the logits."""
    change_input: Callable[[Tensor], Tensor] | None = None
    mode: str = "argument"
    """How BatchNorm and dropout know the mode: argument, tensor (Tensor.training), train, eval."""
    classes: int = 1
    prepare: Callable[[Any], None] | None = None
    """Done to the network before training."""
    # loss and update
    loss: str = "bce_dice"
    optimizer: str = "adam"
    lr: float = 0.01
    eps: float = 1e-8
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    sgd_momentum: float = 0.9
    clip: float = 0.0
    trained: tuple[str, ...] = ()
    """Parts of names of trained weights; all of them if empty."""
    accumulates: bool = False
    change_update: Callable[[Any], None] | None = None
    """Done after each update."""
    jit: bool = True
    predictor: str = ""
    pass_loss: bool = True

    def project(self, folder: Path) -> Project:
        """Build the project, its files in an empty folder."""
        samples = simulate(self.kind, n=self.images, size=self.size, seed=3, **self.simulation)
        write_pairs(self.labels(samples) if self.labels else samples, folder / "data")
        config = Config().override(
            [f"data.size={self.size}", f"train.batch_size={self.batch_size}", *self._settings()]
        )
        pipeline = PIPELINES[self.pipeline] if self.pipeline else None
        if self.stock:
            return Project(folder / "data", config, pipeline=pipeline)
        model = Net(self)
        if self.prepare:
            self.prepare(model)
        parts: dict[str, Any] = {"model": model, "step": Step(self, model), "pipeline": pipeline}
        if self.pass_loss:
            parts["loss"] = LOSSES[self.loss]
        if self.predictor:
            plain = Predictor(model, Project(folder / "data", config).input_pipeline)
            parts["predictor"] = PREDICTORS[self.predictor](plain)
        return Project(folder / "data", config, **parts)

    def _settings(self) -> tuple[str, ...]:
        if not self.stock:
            return () if self.classes == 1 else ("model.head=softmax",)
        texts = ["model.base_channels=8", "model.depth=1", f"train.grad_clip={self.clip}"]
        decay = f"weight_decay={self.weight_decay}"
        adam = f"lr={self.lr},eps={self.eps},{decay},beta1={self.betas[0]},beta2={self.betas[1]}"
        sgd = f"lr={self.lr},momentum={self.sgd_momentum},{decay}"
        text = f"{self.optimizer}({sgd if self.optimizer == 'sgd' else adam})"
        return (*texts, f"train.optimizer={text}", *self.settings)


def everywhere(how: str, value: float = 1.0) -> tuple[tuple[str, float], ...]:
    """Return an initialization of all layers."""
    return ((how, value),) * (BLOCKS + 1)


def at(items: tuple[Any, ...], place: int, item: Any) -> tuple[Any, ...]:
    """Return a copy with another item at a place."""
    return (*items[:place], item, *items[place + 1 :])


def weights(how: str, value: float, shape: tuple[int, ...], seed: int) -> Array:
    """Draw the weights of a convolution."""
    if how == "constant":
        return np.full(shape, value, np.float32)
    fan_in = int(np.prod(shape[1:]))
    std = value * np.sqrt(2 / fan_in) if how == "he" else value
    return (np.random.default_rng(seed).normal(size=shape) * std).astype(np.float32)


class Block:
    """Convolution, normalization, activation."""

    def __init__(self, program: Program, place: int, channels_in: int, channels: int):
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.conv.weight = Tensor(
            weights(*program.init[place], self.conv.weight.shape, place)
        ).is_param_(True)
        self.conv.bias = Tensor(np.full(channels, program.bias, np.float32)).is_param_(True)
        self.norm = _norm(program, channels)
        self._act = ACTIVATIONS[program.activations[place]]

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self._act(self.norm(x) if self.norm else x)


def _norm(program: Program, channels: int) -> Any:
    if program.norm == "batch":
        return nn.BatchNorm(channels, eps=program.norm_eps, momentum=program.momentum)
    if program.norm == "group":
        return nn.GroupNorm(4, channels, eps=program.norm_eps)
    if program.norm == "instance":
        return nn.InstanceNorm(channels, eps=program.norm_eps)
    return None


class Net:
    """An encoder, a deepest block at half the resolution, a decoder with a skip connection."""

    def __init__(self, program: Program):
        self._program, (low, high) = program, program.widths
        self.out_channels = program.classes
        self.encoder = Block(program, 0, 3, low)
        self.deepest = Block(program, 1, low, high)
        self.decoder = Block(program, 2, low + high, low)
        self.head = nn.Conv2d(low, program.classes, 1)
        shape = self.head.weight.shape
        self.head.weight = Tensor(weights(*program.init[-1], shape, 9)).is_param_(True)
        self.head.bias = Tensor(np.zeros(program.classes, np.float32)).is_param_(True)

    def __call__(self, x: Tensor, training: bool | None = None) -> Tensor:
        modes = {"train": True, "eval": False, "tensor": bool(Tensor.training)}
        mode = modes.get(self._program.mode, bool(training))
        with Tensor.train(mode):
            return self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        program = self._program
        if program.change_input:
            x = program.change_input(x)
        skip = self._block(0, self.encoder, x)
        deep = self._block(1, self.deepest, skip.max_pool2d())
        deep = deep.interpolate(skip.shape[2:], mode="nearest")
        if program.dropout:
            deep = deep.dropout(program.dropout)
        logits = self.head(self._block(2, self.decoder, skip.cat(deep, dim=1)))
        logits = ACTIVATIONS[program.final](logits)
        return program.change(logits) if program.change else logits

    def _block(self, place: int, block: Block, x: Tensor) -> Tensor:
        y = block(x)
        return y.detach() if place == self._program.block_detached else y


class ByMode(Net):
    """The same without an argument for the mode."""

    def __call__(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x, None)


class Step:
    """A training step as tinygrad's own examples write it."""

    def __init__(self, program: Program, model: Any):
        self.model, self._program = model, program
        self.loss = LOSSES[program.loss]
        named = get_state_dict(model)
        chosen = program.trained or ("",)
        kept = {id(t) for n, t in named.items() if any(part in n for part in chosen)}
        params = [t for t in get_parameters(model) if id(t) in kept]
        self.optimizer = _optimizer(program, params)
        self.step = TinyJit(self.run) if program.jit else self.run

    def run(self, image: Tensor, label: Tensor) -> Tensor:
        program = self._program
        with Tensor.train():
            if not program.accumulates:
                self.optimizer.zero_grad()
            value = self.loss(self.model(image, True), label).backward()
            if program.clip:
                grads = [t.grad for t in self.optimizer.params]
                norm = sum((g.square().sum() for g in grads), Tensor([0.0])).sqrt()
                factor = (program.clip / (norm + 1e-6)).minimum(1.0)
                for tensor in self.optimizer.params:
                    tensor.grad = tensor.grad * factor
            changes = self.optimizer.schedule_step()
            others = [t for n, t in get_state_dict(self.model).items() if "running" in n]
            value = value.realize(*changes, *others)
        if program.change_update:
            program.change_update(self)
        return value

    def __call__(self, image: Tensor, label: Tensor) -> float:
        return float(self.step(image, label).item())


def _optimizer(program: Program, params: list[Tensor]) -> Any:
    if program.optimizer == "sgd":
        momentum, decay = program.sgd_momentum, program.weight_decay
        return nn.optim.SGD(params, program.lr, momentum=momentum, weight_decay=decay)
    if program.optimizer == "adamw":
        return nn.optim.AdamW(params, program.lr, *program.betas, program.eps, program.weight_decay)
    # tinygrad's Adam has no decay: as PyTorch's L2, it is AdamW's here
    if program.weight_decay:
        return nn.optim.AdamW(params, program.lr, *program.betas, program.eps, program.weight_decay)
    return nn.optim.Adam(params, program.lr, *program.betas, program.eps)


HEALTHY_PROGRAMS: dict[str, Program] = {
    "BatchNorm, ReLU, Adam": Program(),
    "GroupNorm, SiLU, Adam": Program(norm="group", activations=("silu",) * 3),
    "no norm, ReLU, SGD": Program(norm="none", optimizer="sgd", lr=0.1),
    "softmax, cross-entropy": Program(kind="shapes", classes=4, loss="ce"),
    "leaky ReLU, AdamW": Program(
        activations=("leaky",) * 3, optimizer="adamw", weight_decay=0.01, kind="ultrasound"
    ),
    "tinyseg's own": Program(stock=True),
    "tinyseg's own, GroupNorm, AdamW": Program(
        stock=True, settings=("model.norm=group",), optimizer="adamw", weight_decay=0.01
    ),
    "tinyseg's own, SGD": Program(stock=True, optimizer="sgd", lr=0.1),
    "BatchNorm, GELU, membranes": Program(kind="membranes", activations=("gelu",) * 3),
    "InstanceNorm, ReLU, BCE": Program(norm="instance", loss="bce"),
}
"""Each memorizes its images; mutants are made of them."""


def mutated(program: Program, **fields: Any) -> Program:
    """Return a copy with other fields."""
    return replace(program, **fields)


__all__ = ["HEALTHY_PROGRAMS", "Net", "Program", "at", "copy_", "dtypes", "everywhere", "mutated"]
_ = Iterable
