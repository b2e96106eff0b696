"""Mutants: each operator changes one field of a healthy program, at a random place and strength."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from case import Case
from ported import random_labels, shuffled, wrong_statistics
from program import BLOCKS, HEALTHY_PROGRAMS, Program, at, everywhere, mutated

Rng = np.random.Generator
COUNT = 200


@dataclass(frozen=True)
class Operator:
    """A change that is wrong, the words for it, and the programs in which it makes sense."""

    name: str
    change: Callable[[Program, Rng], Program]
    cause: str
    remedy: str
    fits: Callable[[Program], bool] = lambda program: True


def own(program: Program) -> bool:
    return not program.stock


def binary(program: Program) -> bool:
    return own(program) and program.classes == 1


def many(program: Program) -> bool:
    return own(program) and program.classes > 1


def one_of(field: str, *values: Any) -> Callable[[Program, Rng], Program]:
    return lambda program, rng: mutated(program, **{field: values[int(rng.integers(len(values)))]})


def _rate(up: bool) -> Callable[[Program, Rng], Program]:
    def change(program: Program, rng: Rng) -> Program:
        factor = 10 ** (rng.uniform(3, 4.5) if up else -rng.uniform(4, 7))
        return mutated(program, lr=float(f"{program.lr * factor:.2g}"))

    return change


def _init(program: Program, rng: Rng) -> Program:
    scale = ("he", float(10 ** (rng.uniform(1.5, 2.5) * rng.choice([-1, 1]))))
    if rng.random() < 0.5:
        return mutated(program, init=everywhere(*scale))
    return mutated(program, init=at(program.init, int(rng.integers(BLOCKS + 1)), scale))


def _activation(*names: str) -> Callable[[Program, Rng], Program]:
    def change(program: Program, rng: Rng) -> Program:
        name = str(rng.choice(names))
        if rng.random() < 0.6 or name == "none":
            return mutated(program, activations=(name,) * BLOCKS)
        place = int(rng.integers(BLOCKS))
        return mutated(program, activations=at(program.activations, place, name))

    return change


def _scale(program: Program, rng: Rng) -> Program:
    factor = float(10 ** (rng.uniform(2.5, 4.5) * rng.choice([-1, 1])))
    return mutated(program, change_input=lambda x: x * factor)


def _roll(program: Program, rng: Rng) -> Program:
    shift, axis = int(rng.integers(4, 16)), int(rng.choice([-1, -2]))
    return mutated(program, change=lambda x: x.roll(shift, axis))


def _frozen(program: Program, rng: Rng) -> Program:
    parts = ["encoder", "deepest", "decoder", "head"]
    kept = [p for p in parts if rng.random() < 0.5] or ["decoder"]
    return mutated(program, trained=tuple(kept[:3]))


def _decay(program: Program, rng: Rng) -> Program:
    return mutated(program, weight_decay=float(np.round(10 ** rng.uniform(0.7, 2), 2)))


OPERATORS = (
    Operator("rate too high", _rate(True), "learning rate|too large|steps", "rate|lower"),
    Operator("rate too low", _rate(False), "learning rate|small", "rate|raise"),
    Operator(
        "activation",
        _activation("none", "sigmoid", "softmax", "exp", "pixel softmax"),
        "linear|activation|sigmoid|softmax|saturat|exp|vanish",
        "activation|relu|remove",
        own,
    ),
    Operator(
        "last activation",
        one_of("final", "relu", "sigmoid", "tanh", "minus relu"),
        "sigmoid|relu|negative|positive|one-sided|tanh|bounded",
        "remove|last",
        binary,
    ),
    Operator("last softmax", one_of("final", "softmax"), "softmax", "remove", many),
    Operator(
        "initialization", _init, "init|scale|vanish|explod|large|small|logits", "init|He", own
    ),
    Operator(
        "constant weights",
        one_of(
            "init",
            everywhere("constant", 0.0),
            everywhere("constant", 0.1),
            everywhere("constant", 1.0),
        ),
        "equal|init|zero",
        "init|random",
        own,
    ),
    Operator(
        "loss, binary",
        one_of(
            "loss",
            "uphill",
            "dice as loss",
            "inverted",
            "transposed",
            "next image",
            "logit mse",
            "logit dice",
            "on probabilities",
            "sigmoid before bce",
            "false positives",
            "false negatives",
            "mean probability",
            "first image",
            "upper half",
            "background ignored",
            "regularized to zero",
            "thresholded",
            "minus dice",
        ),
        "loss",
        "loss|sign|sigmoid|shape|pixel|index|term|weight",
        binary,
    ),
    Operator(
        "loss, classes",
        one_of("loss", "ce over the batch", "ce over rows", "softmax before ce", "class 2 ignored"),
        "loss|softmax|axis|class",
        "loss|softmax|axis|class",
        many,
    ),
    Operator(
        "summed loss",
        one_of("loss", "sum", "sum over pixels"),
        "sum",
        "mean",
        lambda p: binary(p) and p.optimizer == "sgd",
    ),
    Operator(
        "eps",
        lambda p, r: mutated(p, eps=float(10 ** r.uniform(0, 3))),
        "eps",
        "eps",
        lambda p: p.optimizer != "sgd",
    ),
    Operator("decay", _decay, "decay", "decay"),
    Operator(
        "clip",
        lambda p, r: mutated(p, clip=float(10 ** -r.uniform(5, 8))),
        "clip",
        "clip",
        lambda p: p.optimizer == "sgd",
    ),
    Operator(
        "dropout",
        lambda p, r: mutated(p, dropout=float(r.uniform(0.9, 0.98))),
        "dropout",
        "dropout",
        own,
    ),
    Operator("input scale", _scale, "input|scale|255", "normali|255|scale|divi", own),
    Operator(
        "detached",
        lambda p, r: mutated(p, block_detached=int(r.integers(2))),
        "gradient",
        "detach",
        own,
    ),
    Operator("frozen", _frozen, "frozen|not change|no weight", "optimizer|parameters", own),
    Operator(
        "mode",
        one_of("mode", "train", "eval"),
        "mode|BatchNorm|statistic",
        "mode|training",
        lambda p: own(p) and p.norm == "batch",
    ),
    Operator(
        "shifted output", _roll, "somewhere else|place|shift|corner", "roll|shift|flip|reshape", own
    ),
    Operator(
        "statistics",
        one_of("prepare", wrong_statistics),
        "statistic|running",
        "statistic|load",
        lambda p: own(p) and p.norm == "batch",
    ),
    Operator(
        "labels", one_of("labels", shuffled, random_labels), "label|mask|shuffl", "label|mask"
    ),
    Operator(
        "pipeline",
        one_of(
            "pipeline",
            "frozen",
            "overflow",
            "wraps around",
            "image only",
            "to 0..1",
            "black",
            "far too bright",
        ),
        "augment|pipeline",
        "pipeline|augment|random|range",
    ),
)


def mutants() -> Iterator[tuple[str, Case]]:
    """Yield COUNT mutants with the name of their program, always the same ones."""
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        title = list(HEALTHY_PROGRAMS)[number % len(HEALTHY_PROGRAMS)]
        program = HEALTHY_PROGRAMS[title]
        fitting = [one for one in OPERATORS if one.fits(program)]
        operator = fitting[int(rng.integers(len(fitting)))]
        mutant = operator.change(program, rng)
        name = f"mutant {number:03}: {operator.name} ({title})"
        yield title, Case(name, mutant.project, operator.cause, operator.remedy, "generated")


def is_held_out(title: str) -> bool:
    """Return whether the mutants of a program are kept for the end: those of half of them."""
    order = sorted(HEALTHY_PROGRAMS, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return order.index(title) >= len(order) // 2
