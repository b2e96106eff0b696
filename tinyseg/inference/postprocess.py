"""Post-processing of class maps: small components removed, holes filled, chosen by validation."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tinyseg.common.spec import Call, Value, check_name, fill, parse_sum
from tinyseg.errors import ConfigError
from tinyseg.metrics.summary import ImageScores, evaluate_image, foreground_mean, summarize

Map = NDArray[Any]

STEPS: dict[str, dict[str, Value]] = {"largest": {}, "min_size": {"pixels": 64.0}, "fill_holes": {}}
EXAMPLE = "fill_holes+min_size(pixels=64)"
MIN_GAIN = 1e-3
"""Of the pooled validation Dice; less is chance."""
_TOUCHING = np.ones((3, 3), bool)
"""Pixels that touch at a corner are one component."""


class Postprocess:
    """Steps on class maps, from a text such as "fill_holes+min_size(pixels=64)"; "" does nothing.

    Each foreground class is processed by itself: `largest` keeps its largest component, `min_size`
    its components of at least so many pixels (the others become background), `fill_holes` adds the
    background that it encloses. Pixels that touch at a corner are connected.
    """

    def __init__(self, text: str = "") -> None:
        self.text = "" if text == "none" else text
        self.calls = (
            [_checked(*term) for term in parse_sum(self.text, EXAMPLE)] if self.text else []
        )

    def __call__(self, classes_hw: Map) -> Map:
        """Return the class ids (H, W) uint8 after all steps."""
        for call in self.calls:
            for class_id in filter(None, np.unique(classes_hw).tolist()):
                classes_hw = _apply(call, classes_hw, class_id)
        return classes_hw


def _checked(weight: float, call: Call) -> Call:
    check_name(call, STEPS, "post-processing")
    call = Call(call.name, fill(call, STEPS[call.name]))
    if weight != 1:
        raise ConfigError(f"{call}: a step has no weight; an example: {EXAMPLE}")
    pixels = call.arguments.get("pixels", 1.0)
    if not (isinstance(pixels, float) and pixels >= 1 and pixels.is_integer()):
        raise ConfigError(f"{call}: pixels must be a whole number, at least 1")
    return call


def _apply(call: Call, classes_hw: Map, class_id: int) -> Map:
    mine, pixels = classes_hw == class_id, call.arguments.get("pixels")
    if call.name == "fill_holes":
        holes = ndimage.binary_fill_holes(mine) & (classes_hw == 0)
        return np.where(holes, np.uint8(class_id), classes_hw)
    numbers, _ = ndimage.label(mine, _TOUCHING)
    areas = np.bincount(numbers.ravel())
    areas[0] = 0
    if call.name == "largest":  # of equal ones the first
        kept = numbers == areas.argmax()
    else:
        assert isinstance(pixels, float)
        kept = (areas >= pixels)[numbers]
    return np.where(mine & ~kept, np.uint8(0), classes_hw)


def candidates() -> list[str]:
    """Return the texts that are tried on the validation images."""
    sizes = ["largest", *(f"min_size(pixels={pixels})" for pixels in (16, 64, 256))]
    return ["fill_holes", *sizes, *(f"{a}+{b}" for a, b in product(["fill_holes"], sizes))]


def choose(pairs: Iterable[tuple[Map, Map]], classes: int) -> tuple[str, float, float]:
    """Return the best post-processing for predictions and labels, "" when none gains MIN_GAIN.

    Also return the pooled foreground Dice without any, and with the best one, kept or not.
    """
    tried = {text: Postprocess(text) for text in ("", *candidates())}
    scores: dict[str, list[ImageScores]] = {text: [] for text in tried}
    for classes_hw, label_hw in pairs:
        for text, clean in tried.items():
            scores[text].append(evaluate_image(clean(classes_hw), label_hw, classes, surface=False))
    dice = {
        text: float(np.nan_to_num(foreground_mean(summarize(images).pooled["dice"])))
        for text, images in scores.items()
    }
    best = max(candidates(), key=lambda text: dice[text])
    return best if dice[best] >= dice[""] + MIN_GAIN else "", dice[""], dice[best]
