"""Read an augmentation's text: names of transforms, their arguments and rules, and presets."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyseg.augment import field, geometry, intensity
from tinyseg.common.spec import Call, Value, check_name, fill, parse_sum, write_value
from tinyseg.errors import ConfigError

TRANSFORMS: dict[str, Callable[..., object]] = {
    "crop": field.crop,
    "flip": geometry.flip,
    "rotate90": geometry.rotate90,
    "rotate": geometry.rotate,
    "scale": geometry.scale,
    "shear": geometry.shear,
    "translate": geometry.translate,
    "elastic": field.elastic,
    "reflect": geometry.reflect,
    "blur": intensity.blur,
    "lowres": intensity.lowres,
    "gamma": intensity.gamma,
    "contrast": intensity.contrast,
    "brightness": intensity.brightness,
    "noise": intensity.noise,
    "cutout": intensity.cutout,
}
"""All transforms, in the order in which they draw and (but for the matrix) are applied."""

PRESETS = {
    "light": (
        "flip(vertical=false)+0.5*rotate(degrees=10)+0.5*scale(low=0.9,high=1.1)"
        "+0.5*brightness(amount=0.2)+0.5*contrast(low=0.9,high=1.1)"
    ),
    "medium": (
        "flip(vertical=false)+0.3*rotate(degrees=30)+0.3*scale(low=0.7,high=1.4)+0.3*elastic"
        "+0.2*blur+0.2*lowres+0.3*gamma+0.2*contrast+0.2*brightness+0.2*noise"
    ),
    "strong": (
        "0.5*crop+flip(vertical=false)+0.5*rotate(degrees=60)+0.5*scale(low=0.6,high=1.6)"
        "+0.3*shear(amount=0.2)+0.3*translate+0.5*elastic(std=0.03)"
        "+0.3*blur(high=1.5)+0.3*lowres(low=0.3)+0.5*gamma(low=0.5,high=2)"
        "+0.4*contrast(low=0.5,high=1.5)+0.4*brightness(amount=0.6)+0.4*noise(std=0.4)"
        "+0.3*cutout"
    ),
}
"""Names for a whole sum. None turns an image upside down: where there is no up or down, add
`+rotate90`, which with the flip makes all eight symmetries of the square."""

TRIVIAL = (
    "rotate(degrees=90)+scale(low=0.5,high=2)+shear(amount=0.4)+translate(fraction=0.3)"
    "+elastic(std=0.05)+blur(low=0,high=2)+lowres(low=0.2)+gamma(low=0.3,high=3)"
    "+contrast(low=0.2,high=2)+brightness(amount=1.5)+noise(std=0.8)+cutout(side=0.6)"
)
"""What `trivial` chooses from, or nothing: each at a strength uniform over a wide range."""

_RULES: dict[str, tuple[float, float, str]] = {
    "degrees": (0, 180, "0 to 180 degrees"),
    "low": (0.1, 1, "0.1 to 1"),
    "high": (1, 10, "1 to 10"),
    "shear.amount": (0, 1, "0 to 1"),
    "amount": (0, 100, "0 to 100 times the image's std"),
    "fraction": (0, 1, "a fraction, 0 to 1"),
    "foreground": (0, 1, "a probability, 0 to 1"),
    "elastic.std": (0, 0.2, "0 to 0.2 of the image's side"),
    "std": (0, 100, "0 to 100 times the image's std"),
    "grid": (2, 16, "a whole number of nodes, 2 to 16"),
    "blur.low": (0, 10, "0 to 10 pixels"),
    "blur.high": (0, 10, "0 to 10 pixels"),
    "side": (0, 1, "a fraction, 0 to 1"),
}
"""Smallest and largest value of each number, and the rule in words."""
_RENAMED = {"deviation": "std"}
"""Arguments of version 0.1, which saved runs may have."""


@dataclass(frozen=True)
class Term:
    """A transform, how often it is applied, and its arguments."""

    name: str
    probability: float
    """Share of the samples that get it."""
    options: dict[str, Value]
    choice: int = 0
    """With `trivial`, its number among those of which every sample gets one; else 0."""

    def __str__(self) -> str:
        weight = "" if self.probability == 1 else f"{write_value(self.probability)}*"
        return f"{weight}{self.alone}"

    @property
    def alone(self) -> str:
        """The transform as text, without its probability."""
        standard = defaults(self.name)
        options = {key: value for key, value in self.options.items() if value != standard[key]}
        return str(Call(self.name, options))


def parse(text: str) -> tuple[Term, ...]:
    """Read e.g. "flip+0.5*rotate(degrees=15)" as terms in the order of TRANSFORMS.

    A number before a transform is the probability that a sample gets it. A name of PRESETS is
    short for its sum, "none" for no transform. "trivial" is TrivialAugment (Mueller & Hutter
    2021): every sample gets one transform of TRIVIAL or none, all equally likely. Raises
    ConfigError.
    """
    if text.strip() == "none":
        return ()
    calls = parse_sum(text, example="flip+0.5*rotate(degrees=15)")
    terms = [term for weight, call in calls for term in _expand(weight, call)]
    names = [term.name for term in terms]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{text!r}: {name} is in it twice; give each transform once")
    return tuple(sorted(terms, key=lambda term: list(TRANSFORMS).index(term.name)))


def defaults(name: str) -> dict[str, Value]:
    """Return the default arguments of a transform."""
    parameters = list(inspect.signature(TRANSFORMS[name]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _expand(weight: float, call: Call) -> list[Term]:
    check_name(call, (*TRANSFORMS, *PRESETS, "trivial", "none"), "transform")
    if call.name == "none":
        raise ConfigError("'none' means no augmentation: give it alone")
    if call.name in TRANSFORMS:
        return [_term(weight, call)]
    if weight != 1:
        raise ConfigError(f"{call}: a preset has no probability; write its terms instead")
    fill(call, {})
    if call.name == "trivial":
        terms = [_term(*pair) for pair in parse_sum(TRIVIAL)]
        return [replace(term, choice=number) for number, term in enumerate(terms, start=1)]
    return [_term(inner, term) for inner, term in parse_sum(PRESETS[call.name])]


def _term(probability: float, call: Call) -> Term:
    if not 0 < probability <= 1:
        raise ConfigError(f"{probability:g}*{call}: a probability is above 0 and at most 1")
    if call.name == "reflect" and probability != 1:
        raise ConfigError("reflect is for the whole batch: it has no probability")
    arguments = {_RENAMED.get(name, name): value for name, value in call.arguments.items()}
    call = replace(call, arguments=arguments)
    options = fill(call, defaults(call.name))
    numbers = {name: value for name, value in options.items() if type(value) is float}
    for name, value in numbers.items():
        low, high, rule = _RULES.get(f"{call.name}.{name}") or _RULES[name]
        whole = name != "grid" or value.is_integer()
        if not (low <= value <= high and whole):
            raise ConfigError(f"{call}: {name}={write_value(value)} cannot be used: give {rule}")
    if numbers.get("low", 0.0) > numbers.get("high", math.inf):
        raise ConfigError(f"{call}: low={numbers['low']:g} is above high={numbers['high']:g}")
    return Term(call.name, probability, options)
