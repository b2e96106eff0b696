"""Weighted sums of losses, read from text or made of functions; their numbers are Tensors."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tinygrad import Tensor, dtypes

from tinyseg.common.spec import Call, Value, check_name, fill, parse_sum, write_value
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import ConfigError, StepError
from tinyseg.losses.functions import LOSSES, SMALL, Function

_RULES: dict[str, tuple[float, float, str]] = {
    "weight": (0, np.inf, "0 or more"),
    "alpha": (0, np.inf, "0 or more"),
    "beta": (0, np.inf, "0 or more"),
    "gamma": (0, np.inf, "0 or more"),
    "smoothing": (0, 0.999, "a fraction below 1"),
    "pos_weight": (SMALL, np.inf, "above 0"),
    "weights": (0, np.inf, "0 or more each"),
    "focal.alpha": (0, 1, "from 0 to 1"),
    "focal_tversky.gamma": (SMALL, np.inf, "above 0"),
}
"""Smallest and largest value of each number, for all losses or for one, and the rule in words."""
_ANY = (-np.inf, np.inf, "a finite number")

_TAKEN = {"loss", "gradient_norm", "loss_scale", "skipped", "train_dice", "learning_rate"}
_TAKEN |= {"kind", "step", "seconds"}
"""Names of other numbers in a step's measurements and in a run's log."""

Part = str | Function
"""A loss as text, or a function (logits, label) -> scalar Tensor."""


@dataclass(frozen=True)
class _Term:
    loss: str
    """Its name in LOSSES, or the name of a user's function."""
    function: Function
    numbers: dict[str, Value]
    """Arguments that live in the state, with their defaults."""
    options: dict[str, bool]
    """Arguments that shape the graph, with their values."""


class Loss:
    """A weighted sum of losses; its numbers are Tensors, so changing them needs no new graph.

    Called as `loss(logits, label)` it returns {"loss": the sum, name: each term, unweighted}.
    """

    terms: tuple[str, ...]
    """Unique names of the terms, e.g. ("tversky", "tversky_2")."""
    state: dict[str, Tensor]
    """Every number as a float32 Tensor with a buffer of its own: "loss.focal.alpha", ..."""

    def __init__(self, terms: Sequence[tuple[_Term, dict[str, Value]]]) -> None:
        """Take the terms, each with the values of its numbers; use `parse` or `of` instead."""
        self._terms: dict[str, _Term] = {}
        self.state = {}
        for term, numbers in terms:
            count = sum(other.loss == term.loss for other in self._terms.values())
            name = f"{term.loss}_{count + 1}" if count else term.loss
            self._terms[name] = term
            for number, value in numbers.items():
                array = _array(f"{term.loss}.{number}", value)
                self.state[f"loss.{name}.{number}"] = to_device(array)
        self.terms = tuple(self._terms)

    @staticmethod
    def parse(text: str, out_channels: int) -> "Loss":
        """Read e.g. "0.7*focal(alpha=0.9,gamma=2)+0.3*bce" for a head of so many channels.

        "auto" is half cross-entropy, half Dice. What cannot be read, unknown names, wrong types
        and values that break a rule raise ConfigError.
        """
        return Loss(_terms_of(text, out_channels))

    @staticmethod
    def of(loss: "Loss | Part | Sequence[tuple[float, Part]]", out_channels: int) -> "Loss":
        """Return the Loss of a text, a function, or a list of (weight, text or function).

        E.g. `[(0.5, "bce"), (0.5, my_function)]`. A function takes (logits, label) and returns a
        scalar Tensor; its term has its name, or "custom" where that cannot be one. Python numbers
        that it reads are fixed when the step is compiled.
        """
        if isinstance(loss, Loss):
            return loss
        terms: list[tuple[_Term, dict[str, Value]]] = []
        for weight, part in _parts(loss):
            for term, numbers in _terms_of(part, out_channels):
                terms.append((term, {**numbers, "weight": weight * float(numbers["weight"])}))  # type: ignore[arg-type]
        return Loss(terms)

    def __call__(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        values = {name: self._value(name, logits, label) for name in self.terms}
        parts = [self.state[f"loss.{name}.weight"] * values[name] for name in self.terms]
        return {"loss": sum(parts[1:], parts[0]), **values}

    def _value(self, name: str, logits: Tensor, label: Tensor) -> Tensor:
        term = self._terms[name]
        numbers = {number: self.state[f"loss.{name}.{number}"] for number in term.numbers}
        value = term.function(logits, label, **numbers, **term.options)
        if not isinstance(value, Tensor):
            raise StepError(f"loss {name} gives a {type(value).__name__}: it must return a Tensor")
        if value.shape != ():
            raise StepError(f"loss {name} has shape {value.shape}: it must return a scalar")
        if not dtypes.is_float(value.dtype):
            raise StepError(
                f"loss {name} is of {value.dtype}, which has no gradient: return floats"
            )
        return value.float()

    def assign(self, name: str, value: float | Sequence[float]) -> None:
        """Change a number in place, e.g. ("focal.alpha", 0.5) or ("tversky_2.weight", 1)."""
        term, _, number = name.rpartition(".")
        tensor = self.state.get(f"loss.{name}")
        if tensor is None:
            known = ", ".join(key.removeprefix("loss.") for key in self.state)
            raise ConfigError(f"unknown number {name!r} of loss {self.text}; known: {known}")
        array = _array(f"{self._terms[term].loss}.{number}", value)
        if array.shape != tensor.shape:
            raise ConfigError(f"{name}={value!r} cannot be used: its shape is {tensor.shape}")
        copy_(tensor, array)

    @property
    def text(self) -> str:
        """The canonical text, with the numbers as they are now; defaults are omitted."""
        return "+".join(self._write(name, term) for name, term in self._terms.items())

    def _write(self, name: str, term: _Term) -> str:
        standard = term.numbers | (_options(term.function) if term.options else {})
        now = {number: _number(self.state[f"loss.{name}.{number}"]) for number in term.numbers}
        now |= term.options
        call = Call(term.loss, {key: now[key] for key in now if now[key] != standard[key]})
        weight = _number(self.state[f"loss.{name}.weight"])
        return str(call) if weight == 1 else f"{write_value(weight)}*{call}"


def _parts(loss: Any) -> list[tuple[float, Part]]:
    """Return a loss as weights and parts; ConfigError for what is no loss."""
    pairs = list(loss) if isinstance(loss, list | tuple) else [(1.0, loss)]
    try:
        parts = [(float(weight), part) for weight, part in pairs]
    except (TypeError, ValueError):
        parts = []
    if not parts or not all(isinstance(part, str) or callable(part) for _, part in parts):
        raise ConfigError(
            f"loss={loss!r} cannot be used: give a text, a function f(logits, label) or a list of "
            'weights and these, e.g. [(0.5, "bce"), (0.5, my_function)]'
        )
    return parts


def _terms_of(part: Part, out_channels: int) -> list[tuple[_Term, dict[str, Value]]]:
    """Return the terms of a text or a function, each with its numbers."""
    if not isinstance(part, str):
        name = getattr(part, "__name__", "")
        name = name if name.isidentifier() and name not in _TAKEN else "custom"
        return [(_Term(name, part, {}, {}), {"weight": 1.0})]
    if part.strip() == "auto":
        part = "0.5*bce+0.5*dice" if out_channels == 1 else "0.5*ce+0.5*dice"
    return [_term(weight, call, out_channels) for weight, call in parse_sum(part)]


def _term(weight: float, call: Call, out_channels: int) -> tuple[_Term, dict[str, Value]]:
    """Return one term of a sum, checked against the signature of its loss, and its numbers."""
    check_name(call, LOSSES, "loss")
    if call.name == "ce" and out_channels < 2:
        raise ConfigError("ce needs a head of 2 or more channels; use bce for one channel")
    function = LOSSES[call.name]
    numbers, options = _numbers(function, out_channels), _options(function)
    arguments = fill(call, numbers | options)
    for name, value in numbers.items():
        if isinstance(value, tuple) and np.shape(arguments[name]) != np.shape(value):
            raise ConfigError(f"{call}: give one number per class in {name}, {out_channels} in all")
    options = {name: bool(arguments[name]) for name in options}
    term = _Term(call.name, function, numbers, options)
    return term, {"weight": weight, **{name: arguments[name] for name in numbers}}


def _defaults(function: Function) -> dict[str, Value]:
    """Return the arguments after (logits, label); ConfigError for one that no text can set."""
    defaults = {}
    for parameter in list(inspect.signature(function).parameters.values())[2:]:
        value = parameter.default
        defaults[parameter.name] = float(value) if type(value) is int else value
        if type(defaults[parameter.name]) not in (float, bool, tuple):
            raise ConfigError(
                f"the argument {parameter.name} of the loss {function.__name__} needs a default "
                "that is a number, true or false, or () for one number per class"
            )
    return defaults


def _options(function: Function) -> dict[str, bool]:
    return {name: value for name, value in _defaults(function).items() if isinstance(value, bool)}


def _numbers(function: Function, classes: int) -> dict[str, Value]:
    """Return the other arguments; the default () stands for one number per class."""
    items = _defaults(function).items()
    return {
        name: (1.0,) * classes if value == () else value
        for name, value in items
        if not isinstance(value, bool)
    }


def _array(name: str, value: Value | Sequence[float]) -> NDArray[np.float32]:
    """Return a number such as "focal.alpha" as float32; ConfigError if it breaks its rule."""
    low, high, rule = _RULES.get(name) or _RULES.get(name.rpartition(".")[2], _ANY)
    array = np.asarray(value, np.float32)
    if not (np.isfinite(array) & (array >= low) & (array <= high)).all():
        raise ConfigError(f"{name}={value} cannot be used: it must be {rule}")
    return array


def _number(tensor: Tensor) -> Value:
    """Return a float32 as the shortest decimal number: 0.9, not 0.8999999761581421."""
    array = tensor.numpy()
    return tuple(float(str(x)) for x in array) if array.ndim else float(str(array))
