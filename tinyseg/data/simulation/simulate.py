"""Simulated datasets: seeded, exact labels, any number of images without files."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import floor
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np

from tinyseg.data.sample import Sample
from tinyseg.data.simulation.fields import between
from tinyseg.data.simulation.shapes import Canvas, cells, membranes, shapes, ultrasound
from tinyseg.errors import DataError

KINDS: dict[str, Callable[[Canvas], tuple[np.ndarray, np.ndarray]]] = {
    "cells": cells,
    "ultrasound": ultrasound,
    "membranes": membranes,
    "shapes": shapes,
}


class Kind(NamedTuple):
    """What the knobs are when not given, and how far the foreground can go."""

    classes: int
    channels: int
    foreground: float
    most: float
    empty: float


FACTS = {
    "cells": Kind(2, 3, 0.12, 0.6, 0.1),
    "ultrasound": Kind(2, 1, 0.08, 0.3, 0.15),
    "membranes": Kind(2, 1, 0.22, 0.5, 0.0),
    "shapes": Kind(4, 3, 0.3, 0.6, 0.0),
}


@dataclass(frozen=True)
class Simulation:
    """The arguments of a simulated dataset; the same ones give the same pixels everywhere."""

    kind: str
    n: int = 64
    """Number of images."""
    size: int = 128
    """Side in pixels, 16 to 4096."""
    seed: int = 0
    foreground: float | None = None
    """Mean foreground share of the images that are not empty."""
    contrast: float = 1.0
    """Difference between objects and background, times the kind's own."""
    noise: float = 1.0
    """Strength of noise and speckle, times the kind's own; 0 for none."""
    empty: float | None = None
    """Share of the images without any object: round(n * empty) of them."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"unknown simulated kind {self.kind!r}; known: {', '.join(KINDS)}")
        facts = FACTS[self.kind]
        # frozen: the kind's own values take the place of None once, here
        for knob in ("foreground", "empty"):
            if getattr(self, knob) is None:
                object.__setattr__(self, knob, getattr(facts, knob))
        for knob, low, high in (
            ("n", 1, 1_000_000),
            ("size", 16, 4096),
            ("seed", 0, 2**31 - 1),
            ("foreground", 0.005, facts.most),
            ("contrast", 0.05, 5),
            ("noise", 0, 10),
            ("empty", 0, 1),
        ):
            _check(self.kind, knob, getattr(self, knob), low, high)

    @property
    def names(self) -> tuple[str, ...]:
        """One name a sample, in natural order."""
        return tuple(f"{self.kind}_{index:04d}" for index in range(self.n))

    @property
    def label_map(self) -> dict[int, int]:
        """The map of the files that `write_pairs` makes of it."""
        classes = FACTS[self.kind].classes
        return {0: 0, 255: 1} if classes == 2 else {c: c for c in range(classes)}

    @property
    def empty_names(self) -> tuple[str, ...]:
        """Names of the samples without any object."""
        return tuple(name for index, name in enumerate(self.names) if self._is_empty(index))

    def fingerprint(self) -> str:
        """16 hex digits over all arguments."""
        return hashlib.sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:16]

    def sample(self, index: int) -> Sample:
        """Draws sample `index`; it does not depend on n."""
        words = [self.seed, index, *self.kind.encode()]
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))
        fraction = 0.0 if self._is_empty(index) else self._fraction(rng)
        canvas = Canvas(rng, self.size, fraction, self.contrast, self.noise)
        image, label = KINDS[self.kind](canvas)
        return Sample(f"{self.kind}_{index:04d}", image, label)

    def _is_empty(self, index: int) -> bool:
        share = self.empty or 0.0
        return floor((index + 1) * share + 0.5) > floor(index * share + 0.5)

    def _fraction(self, rng: np.random.Generator) -> float:
        """A share around `foreground` with exactly that mean; a quarter of the lesions is small."""
        mean = self.foreground or 0.0
        if self.kind != "ultrasound":
            return mean * between(rng, 0.6, 1.4)
        small = rng.random() < 0.25
        return mean * (between(rng, 0.05, 0.3) if small else between(rng, 0.7, 1.85))


def _check(kind: str, knob: str, value: Any, low: float, high: float) -> None:
    whole = knob in ("n", "size", "seed")
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        what = "a whole number" if whole else "a number"
        raise DataError(f"sim:{kind} {knob}={value!r} must be {what} from {low:g} to {high:g}")


_KNOBS = {
    "n": int,
    "size": int,
    "seed": int,
    "foreground": float,
    "contrast": float,
    "noise": float,
    "empty": float,
}


def parse_simulation(text: str) -> Simulation:
    """Reads "sim:cells?n=64&size=128&seed=0"; DataError names the known kinds and knobs."""
    kind, _, query = text.removeprefix("sim:").partition("?")
    knobs: dict[str, Any] = {}
    for knob, value in parse_qsl(query, keep_blank_values=True):
        if knob not in _KNOBS:
            raise DataError(f"{text}: unknown knob {knob!r}; known: {', '.join(_KNOBS)}")
        try:
            knobs[knob] = _KNOBS[knob](value)
        except ValueError:
            raise DataError(f"{text}: {knob}={value!r} is not a number") from None
    return Simulation(kind, **knobs)


def simulate(
    kind: str,
    n: int = 64,
    size: int = 128,
    seed: int = 0,
    foreground: float | None = None,
    contrast: float = 1.0,
    noise: float = 1.0,
    empty: float | None = None,
) -> list[Sample]:
    """Draws a simulated dataset in memory; the knobs are those of `Simulation`."""
    made = Simulation(kind, n, size, seed, foreground, contrast, noise, empty)
    return [made.sample(index) for index in range(n)]
