"""What may stand in an augmentation's text: names, arguments, their rules, and ready-made sums."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

from tinyseg.augment import geometry
from tinyseg.errors import ConfigError
from tinyseg.text import Call, Value, check_name, fill, parse_sum, write_value

TRANSFORMS: dict[str, Callable[..., object]] = {
    "flip": geometry.flip,
    "rotate90": geometry.rotate90,
    "rotate": geometry.rotate,
    "scale": geometry.scale,
    "shear": geometry.shear,
    "translate": geometry.translate,
    "reflect": geometry.reflect,
}
"""All transforms, in the order in which they draw and (but for the matrix) are applied."""

PRESETS = {
    "light": "flip+0.5*rotate(degrees=10)+0.5*scale(low=0.9,high=1.1)",
}
"""Names that stand for a whole sum."""

_RULES: dict[str, tuple[float, float, str]] = {
    "degrees": (0, 180, "0 to 180 degrees"),
    "low": (0.1, 1, "0.1 to 1"),
    "high": (1, 10, "1 to 10"),
    "amount": (0, 1, "0 to 1"),
    "fraction": (0, 1, "a fraction, 0 to 1"),
}
"""Smallest and largest value of each number, and the rule in words."""


@dataclass(frozen=True)
class Term:
    """A transform, how often it is applied, and its arguments."""

    name: str
    probability: float
    """Share of the samples that get it."""
    options: dict[str, Value]

    def __str__(self) -> str:
        standard = defaults(self.name)
        options = {key: value for key, value in self.options.items() if value != standard[key]}
        weight = "" if self.probability == 1 else f"{write_value(self.probability)}*"
        return f"{weight}{Call(self.name, options)}"


def parse(text: str) -> tuple[Term, ...]:
    """Reads e.g. "flip+0.5*rotate(degrees=15)": terms in the order of TRANSFORMS.

    A number before a transform is the probability that a sample gets it. Names of PRESETS stand
    for their sums, "none" for no transform. Raises ConfigError.
    """
    if text.strip() == "none":
        return ()
    terms = [term for weight, call in parse_sum(text) for term in _expand(weight, call)]
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{text!r}: {name} is in it twice; give each transform once")
    return tuple(sorted(terms, key=lambda term: list(TRANSFORMS).index(term.name)))


def defaults(name: str) -> dict[str, Value]:
    """The arguments of a transform, as they are when they are not given."""
    parameters = list(inspect.signature(TRANSFORMS[name]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _expand(weight: float, call: Call) -> list[Term]:
    check_name(call, (*TRANSFORMS, *PRESETS, "none"), "transform")
    if call.name == "none":
        raise ConfigError("'none' stands alone: it means no augmentation")
    if call.name not in PRESETS:
        return [_term(weight, call)]
    if weight != 1:
        raise ConfigError(f"{call}: a ready-made sum has no probability; write its terms instead")
    fill(call, {})
    return [_term(inner, term) for inner, term in parse_sum(PRESETS[call.name])]


def _term(probability: float, call: Call) -> Term:
    if not 0 < probability <= 1:
        raise ConfigError(f"{probability:g}*{call}: a probability is above 0 and at most 1")
    if call.name == "reflect" and probability != 1:
        raise ConfigError("reflect is a rule for the whole batch: it has no probability")
    options = fill(call, defaults(call.name))
    for name, value in options.items():
        low, high, rule = _RULES.get(f"{call.name}.{name}") or _RULES.get(name, (0, math.inf, ""))
        if isinstance(value, float) and not isinstance(value, bool) and not low <= value <= high:
            raise ConfigError(f"{call}: {name}={write_value(value)} cannot be used: give {rule}")
    return Term(call.name, probability, options)
