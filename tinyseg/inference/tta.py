"""Averaged probabilities: test-time augmentation, and ensembles of runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product, tee
from typing import Protocol

import numpy as np

from tinyseg.augment.transforms import defaults, parse
from tinyseg.common.arrays import Array
from tinyseg.data import resize_planes
from tinyseg.errors import ConfigError, RunError
from tinyseg.inference.run import Run

Monitor = Callable[[Array], None]
SCALES = (0.75, 1.0, 1.25)
VIEWS = {
    "hflip": ("hflip",),
    "vflip": ("vflip",),
    "rot90": ("rot90",),
    "flips": ("hflip", "vflip"),
    "rotations": ("rot90",),
    "scales": ("scales",),
}
"""Names of views, and what they stand for: left-right, upside down, quarter turns, sizes."""


class PredictFunction(Protocol):
    """A function of images (H, W, C) that yields probabilities (K, H, W), a batch read ahead."""

    def __call__(
        self, images: Iterable[Array], monitor: Monitor | None = None
    ) -> Iterator[Array]: ...


@dataclass(frozen=True)
class View:
    """A transform of an image, with its inverse on probabilities."""

    turns: int = 0
    """Quarter turns."""
    mirrored: bool = False
    scale: float = 1.0

    def of(self, image_hwc: Array) -> Array:
        """Return the transformed image (H, W, C)."""
        shown = np.rot90(image_hwc[:, ::-1] if self.mirrored else image_hwc, self.turns)
        rows, cols = (max(1, round(self.scale * side)) for side in shown.shape[:2])
        return resize_planes(shown.transpose(2, 0, 1), rows, cols).transpose(1, 2, 0)

    def back(self, p_khw: Array, height: int, width: int) -> Array:
        """Return the probabilities (K, ...) of the transformed image in the image's own frame."""
        sides = (width, height) if self.turns % 2 else (height, width)
        turned = np.rot90(resize_planes(p_khw, *sides), -self.turns, axes=(1, 2))
        return turned[..., ::-1] if self.mirrored else turned


def parse_tta(text: str) -> tuple[View, ...]:
    """Read names of VIEWS, several joined with "+"; ConfigError for others."""
    names = {name for part in text.split("+") for name in _view_names(part, text)}
    flips = names & {"hflip", "vflip"}
    turns = range(4) if "rot90" in names else (0, 2) if len(flips) == 2 else (0,)
    views = [(turn, False) for turn in turns]
    if flips:  # upside down is left to right, turned by 180 degrees
        views += [((turn + 2 * (flips == {"vflip"})) % 4, True) for turn in turns]
    scales = SCALES if "scales" in names else (1.0,)
    return tuple(View(*view, scale) for view, scale in product(views, scales))


def _view_names(name: str, text: str) -> tuple[str, ...]:
    if name not in VIEWS:
        known = ", ".join([*VIEWS, "auto"])
        raise ConfigError(
            f"--tta {text!r}: unknown {name!r}; known: {known}; join several with '+'"
        )
    return VIEWS[name]


def trained_views(augment: str) -> set[str]:
    """Return which of hflip, vflip and rot90 the training images were shown in."""
    options = {term.name: defaults(term.name) | term.options for term in parse(augment)}
    flip = options.get("flip", {})
    views = {
        name for name, key in (("hflip", "horizontal"), ("vflip", "vertical")) if flip.get(key)
    }
    degrees = options.get("rotate", {}).get("degrees", 0)
    if "rotate90" in options or (isinstance(degrees, int | float) and degrees >= 90):
        views |= {"rot90"} | ({"hflip", "vflip"} if views else set())
    return views


def choose_views(text: str, runs: Sequence[Run], say: Callable[[str], None]) -> str:
    """Return the views to average over; for "auto" those that all runs were trained with.

    Warns of other flips and turns: a network that never saw an organ upside down may fail there.
    """
    if not text:
        return ""
    trained = set.intersection(*(_trained_views(run) for run in runs))
    if text == "auto":
        chosen = "+".join(sorted(trained))
        say(f"--tta auto: {chosen or 'no view, because train.augment has no flip or quarter turn'}")
        return chosen
    names = {name for part in text.split("+") for name in _view_names(part, text)}
    unknown = names & {"hflip", "vflip", "rot90"} - trained
    if unknown:
        say(
            f"warning: --tta {text}: training never showed images as {', '.join(sorted(unknown))} "
            "(see train.augment), so Dice may fall; --tta auto takes only views that it showed"
        )
    return text


def _trained_views(run: Run) -> set[str]:
    own = "augment" in run.facts.custom  # of a user's own augmentation nothing is known
    return set() if own else trained_views(run.config.train.augment)


class AveragedViews:
    """Average the probabilities of a predictor over several views of each image."""

    def __init__(self, predict: PredictFunction, views: Sequence[View]) -> None:
        self.predict, self.views = predict, views

    def __call__(self, images: Iterable[Array], monitor: Monitor | None = None) -> Iterator[Array]:
        """Yield mean probabilities; `monitor` is called once for each image."""
        sizes: deque[tuple[int, int]] = deque()

        def shown() -> Iterator[Array]:
            for image in images:
                sizes.append(image.shape[:2])
                for view in self.views:
                    yield view.of(image)

        predictions = self.predict(shown(), monitor and _every(monitor, len(self.views)))
        for first in predictions:
            size = sizes.popleft()
            total = np.array(self.views[0].back(first, *size))
            for view in self.views[1:]:
                total += view.back(next(predictions), *size)
            yield total / len(self.views)


class Ensemble:
    """Average the probabilities of several predictors."""

    def __init__(self, members: Sequence[PredictFunction]) -> None:
        self.members = members

    def __call__(self, images: Iterable[Array], monitor: Monitor | None = None) -> Iterator[Array]:
        """Yield mean probabilities; `monitor` is called with the input of the first predictor."""
        copies = tee(images, len(self.members))
        monitors = (monitor, *[None] * (len(self.members) - 1))
        triples = zip(self.members, copies, monitors, strict=True)
        streams = [member(copy, each) for member, copy, each in triples]
        for probabilities in zip(*streams, strict=True):
            yield np.asarray(np.mean(probabilities, axis=0, dtype=np.float32))


def combine_runs(runs: Sequence[Run], tta: str = "") -> PredictFunction:
    """Return one predictor of one or more runs, with test-time augmentation if any is named.

    RunError when the runs do not agree in channels and label map.
    """
    views = parse_tta(tta) if tta else ()
    for run in runs:
        _check(run, runs[0])
        if any(view.scale != 1 for view in views) and run.config.data.fit != "tile":
            raise ConfigError(
                f"--tta {tta}: scales change nothing with data.fit={run.config.data.fit} of "
                f"{run.folder}, which has one scale; omit them"
            )
    members: list[PredictFunction] = [run.predictor for run in runs]
    members = [AveragedViews(member, views) for member in members] if views else members
    return Ensemble(members) if len(members) > 1 else members[0]


def _check(run: Run, first: Run) -> None:
    for name in ("channels", "label_map"):
        mine, other = (getattr(one.facts, name) for one in (run, first))
        if mine != other:
            raise RunError(
                f"{run.folder}: its {name.replace('_', ' ')} is {mine}, that of {first.folder} is "
                f"{other}; only runs that agree can be averaged"
            )


def _every(monitor: Monitor, views: int) -> Monitor:
    calls = count()

    def monitor_first(x_bchw: Array) -> None:
        if next(calls) % views == 0:
            monitor(x_bchw)

    return monitor_first
