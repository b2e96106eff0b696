"""Masks whose edges are soft, by JPEG, resizing or anti-aliasing: two values, or refused."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tinyseg.data.reading.label_map import label_text, values_text
from tinyseg.data.reading.mask_facts import MaskFacts
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

EDGES = 0.7
"""Share of the pixels between the ends that differ from a neighbor: of more they are edges."""
BETWEEN = 0.2
"""Share of a mask's pixels that may lie between two values."""
MARGIN, SPAN = 0.1, 64
"""Share of the span between two values that is near each of them; and the least span."""
ALIKE = 2
"""Values by which a lossy format changes flat regions."""
MOST_THIN = 8
"""More values than this that lie along edges only are no classes."""


class Division(NamedTuple):
    """Soft masks as two classes."""

    table: dict[int, int]
    warnings: list[str]


def divide_soft_masks(
    masks: Sequence[MaskFacts], values: Sequence[int], most_values: int
) -> Division | None:
    """Divide soft masks between their two values; None for hard ones.

    DataError when masks are soft but hold more than two values.
    """
    usual = sorted(len(mask.counts) for mask in masks)[len(masks) // 2]
    soft = [m for m in masks if m.edges > EDGES * m.between and len(m.counts) > 2 * usual]
    edges = sum(m.edges for m in masks) > EDGES * sum(m.between for m in masks)
    edges = (edges and len(values) > 4) or _edge_values(masks) > MOST_THIN
    if not (soft or edges or len(values) > most_values):
        return None
    ends = _two_values(masks)
    others = [mask for mask in masks if not (ends and _is_divided(mask, *ends))]
    if ends and not others:
        return _divide(masks, *ends)
    if not (soft or edges):
        return None
    suspects = [m for m in others if len(m.counts) > 2 * usual] or soft or others
    worst = max(suspects, key=lambda mask: len(mask.counts))
    remedy = ' or set data.labels="0-127:0,128-255:1"' * (max(values) <= 255)
    raise DataError(
        f"{worst.path}: the mask has soft edges (anti-aliased or JPEG), values "
        f"{values_text(sorted(worst.counts))}; a mask needs one value per class: save it as "
        f"PNG without smoothing{remedy}"
    )


def _edge_values(masks: Sequence[MaskFacts]) -> int:
    """Return the number of values whose pixels nearly all differ from a neighbor."""
    pixels, thin = Counter[int](), Counter[int]()
    for mask in masks:
        pixels.update({value: mask.counts[value] for value in mask.thin})
        thin.update(mask.thin)
    return sum(thin[value] > EDGES * pixels[value] for value in thin)


def _two_values(masks: Sequence[MaskFacts]) -> tuple[int, int] | None:
    """Return the most frequent value of the lower and of the upper half, far enough apart."""
    pixels = Counter[int]()
    for mask in masks:
        pixels.update(mask.counts)
    middle = (min(pixels) + max(pixels)) / 2
    low = max((v for v in pixels if v <= middle), key=pixels.__getitem__)
    high = max((v for v in pixels if v >= middle), key=pixels.__getitem__)
    return (low, high) if max(pixels) <= 255 and high - low >= SPAN else None


def _is_divided(mask: MaskFacts, low: int, high: int) -> bool:
    """Return whether all but the edges of a mask lies near two values."""
    if list(mask.counts) == [0, 1]:
        return False  # the object, in another convention
    margin = MARGIN * (high - low)
    middle = [value for value in mask.counts if low + margin < value < high - margin]
    others = [v for v in mask.counts if min(abs(v - low), abs(v - high)) > ALIKE]
    between = sum(mask.counts[value] for value in middle)
    if between > BETWEEN * mask.pixels:
        return False
    return all(_are_edges(mask, some) for some in (middle, others))


def _are_edges(mask: MaskFacts, values: Sequence[int]) -> bool:
    """Return whether pixels of these values are edges, or so few that it does not matter."""
    pixels = sum(mask.counts[value] for value in values)
    thin = sum(mask.thin.get(value, 0) for value in values)
    return pixels <= 0.005 * mask.pixels or thin >= EDGES * pixels


def _divide(masks: Sequence[MaskFacts], low: int, high: int) -> Division:
    top = (low + high) // 2
    table = {value: int(value > top) for value in range(256)}
    files = [mask.path.name for mask in masks if len(mask.counts) > 2]
    return Division(
        table,
        [
            f"soft edges (JPEG, resized or anti-aliased) in {len(files)} of {len(masks)} masks "
            f"({name_some(files)}), divided in the middle between {low} and {high}: "
            f'data.labels="{label_text(table)}"; to keep more values as classes name them there'
        ],
    )
