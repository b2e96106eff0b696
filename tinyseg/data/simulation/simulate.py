"""Simulate datasets: seeded, with exact labels, any number of images without files."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import floor
from typing import NamedTuple
from urllib.parse import parse_qsl

import numpy as np

from tinyseg.data.sample import Sample
from tinyseg.data.simulation.draw import Canvas, cells, membranes, shapes, ultrasound
from tinyseg.data.simulation.fields import between
from tinyseg.errors import DataError

KINDS: dict[str, Callable[[Canvas], tuple[np.ndarray, np.ndarray]]] = {
    "cells": cells,
    "ultrasound": ultrasound,
    "membranes": membranes,
    "shapes": shapes,
}


class Facts(NamedTuple):
    """What differs between the kinds."""

    classes: int
    channels: int
    foreground: float
    """The default of `Simulation.foreground`."""
    most: float
    """Its largest value."""
    empty: float
    """The default of `Simulation.empty`."""


FACTS = {
    "cells": Facts(2, 3, 0.12, 0.6, 0.1),
    "ultrasound": Facts(2, 1, 0.08, 0.3, 0.15),
    "membranes": Facts(2, 1, 0.22, 0.5, 0.0),
    "shapes": Facts(4, 3, 0.3, 0.6, 0.0),
}
_LIMITS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "n": (int, 1, 1_000_000),
    "size": (int, 16, 4096),
    "seed": (int, 0, 2**31 - 1),
    "foreground": (float, 0.005, 1),
    "contrast": (float, 0.05, 5),
    "noise": (float, 0, 10),
    "empty": (float, 0, 1),
}
"""Type, smallest and largest value of each argument."""


@dataclass(frozen=True)
class Simulation:
    """The arguments of a simulated dataset; equal ones give equal pixels everywhere."""

    kind: str
    n: int = 64
    """Number of images."""
    size: int = 128
    """Side in pixels, 16 to 4096."""
    seed: int = 0
    foreground: float | None = None
    """Mean share of foreground in the images that are not empty; None: the kind's own."""
    contrast: float = 1.0
    """Difference between objects and background, times the kind's own."""
    noise: float = 1.0
    """Strength of noise and speckle, times the kind's own; 0 for none."""
    empty: float | None = None
    """Share of the images without any object: round(n * empty) of them; None: the kind's own."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"unknown simulated kind {self.kind!r}; known: {', '.join(KINDS)}")
        facts = FACTS[self.kind]
        # frozen: the kind's own values take the place of None once, here
        for name in ("foreground", "empty"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(facts, name))
        for name, (kind, low, high) in _LIMITS.items():
            value, high = getattr(self, name), facts.most if name == "foreground" else high
            types = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
            if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
                number = "a whole number" if kind is int else "a number"
                raise DataError(
                    f"sim:{self.kind} {name}={value!r} must be {number} from {low:g} to {high:g}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the samples, in natural order."""
        return tuple(map(self._name, range(self.n)))

    @property
    def label_map(self) -> dict[int, int]:
        """The label map of the files that `write_pairs` writes."""
        classes = FACTS[self.kind].classes
        return {0: 0, 255: 1} if classes == 2 else {c: c for c in range(classes)}

    @property
    def empty_names(self) -> tuple[str, ...]:
        """The names of the samples without any object."""
        return tuple(self._name(index) for index in range(self.n) if self._is_empty(index))

    def fingerprint(self) -> str:
        """Return 16 hex digits over all arguments."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:16]

    def sample(self, index: int) -> Sample:
        """Draw a sample; it does not depend on n."""
        words = [self.seed, index, *self.kind.encode()]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        fraction = 0.0 if self._is_empty(index) else self._fraction(rng)
        canvas = Canvas(rng, self.size, fraction, self.contrast, self.noise)
        image, label = KINDS[self.kind](canvas)
        return Sample(self._name(index), image, label)

    def _name(self, index: int) -> str:
        return f"{self.kind}_{index:04d}"

    def _is_empty(self, index: int) -> bool:
        share = self.empty or 0.0
        return floor((index + 1) * share + 0.5) > floor(index * share + 0.5)

    def _fraction(self, rng: np.random.Generator) -> float:
        """Draw a share with the mean `foreground`; a quarter of the lesions is small."""
        mean = self.foreground or 0.0
        if self.kind != "ultrasound":
            return mean * between(rng, 0.6, 1.4)
        small = rng.random() < 0.25
        return mean * (between(rng, 0.05, 0.3) if small else between(rng, 0.7, 1.85))


def parse_simulation(text: str) -> Simulation:
    """Read "sim:cells?n=64&size=128&seed=0"; DataError names the known kinds and arguments."""
    kind, _, query = text.removeprefix("sim:").partition("?")
    arguments: dict[str, float] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _LIMITS:
            raise DataError(f"{text}: unknown argument {name!r}; known: {', '.join(_LIMITS)}")
        try:
            arguments[name] = _LIMITS[name][0](value)
        except ValueError:
            raise DataError(f"{text}: {name}={value!r} is not a number") from None
    return Simulation(kind, **arguments)  # type: ignore[arg-type]


def simulate(
    kind: str, n: int = 64, size: int = 128, seed: int = 0, **arguments: float | None
) -> list[Sample]:
    """Draw a simulated dataset in memory; `arguments` are the others of `Simulation`."""
    simulation = Simulation(kind, n, size, seed, **arguments)  # type: ignore[arg-type]
    return [simulation.sample(index) for index in range(n)]
