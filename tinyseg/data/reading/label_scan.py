"""Find the class of each mask value from all masks together, and say what was decided.

1. Where masks store colors, or the palettes of files disagree, one color is one class. 2. A few
values in a few pixels next to clear classes are annotation noise. 3. Soft edges between two values
are divided in the middle. 4. What is left becomes classes in ascending order.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tinyseg.config import IGNORE
from tinyseg.data.reading.label_map import (
    LabelMap,
    check_label_map,
    label_text,
    swapped_text,
    value_text,
    values_text,
)
from tinyseg.data.reading.mask_facts import MaskFacts
from tinyseg.data.reading.mask_pixels import COLOR, is_color
from tinyseg.data.reading.soft_masks import divide_soft_masks
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

MOST_CLASSES = 64
"""Masks with more values than this do not hold classes."""
NOISE, FEW, STRAY = 0.001, 8, 0.005
"""Noise holds less than the first share of all pixels, in at most one of so many masks; a value
that continues the class ids also holds less than the last share of each of its masks."""
MOST_NOISE = 8
"""More values than this are no noise but soft edges."""
VOID = COLOR + 0xE0E0C0
"""The color by which Pascal VOC ignores pixels: index 255 of its palette."""


@dataclass(frozen=True)
class _Scan:
    """All masks, by value or by color, and what was decided on the way."""

    masks: Sequence[MaskFacts]
    order: Mapping[int, int]
    """Color -> place in the palette that all files share; empty: colors are in ascending order."""
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def sorted(self, values: Iterable[int]) -> list[int]:
        """Return values as they become classes."""
        last = len(self.order) + 256
        return sorted(values, key=lambda value: (self.order.get(value, last), value))


def find_label_map(masks: Sequence[MaskFacts], preset: Mapping[int, int]) -> LabelMap:
    """Find the class of each mask value from all masks; `preset` values have theirs already.

    Two values: the smaller is background. 255 next to small class ids: ignored. 3 to 64 values:
    classes in ascending order. DataError for one value, soft edges of more than two values, and
    more than 64 values.
    """
    scan = _by_color(masks)
    values = scan.sorted({value for mask in scan.masks for value in mask.counts})
    if len(values) == 1:
        raise _single_value(values[0], len(masks))
    values = [value for value in values if value not in preset]
    noise = _noise(values, scan.masks)
    clear = [value for value in values if value not in noise]
    soft = divide_soft_masks([m.without(noise) for m in scan.masks], clear, MOST_CLASSES)
    if soft:
        table, warnings = soft.table, soft.warnings
    else:
        _refuse_many(scan.masks, clear)
        table, warnings = _classes(clear, scan.masks, preset)
        warnings += _noise_warning(noise, table, scan.masks)
        table |= dict.fromkeys(noise, IGNORE)
    table |= preset
    check_label_map(table, f"the label map {label_text(table)!r} found by the scan")
    table = {value: table[value] for value in scan.sorted(table)}
    return LabelMap(table, (*scan.warnings, *warnings), scan.notes)


def _single_value(value: int, count: int) -> DataError:
    where = "empty: they hold only 0" if value == 0 else f"{value_text(value)} everywhere"
    return DataError(
        f"all {count} masks are {where}; at least two values are needed: check that the "
        "masks are exported with their objects"
    )


def _by_color(masks: Sequence[MaskFacts]) -> _Scan:
    """Count colors instead of palette indices where the same colors, or other palettes, exist."""
    indexed = [mask for mask in masks if mask.palette]
    colored = [m for m in masks if not m.palette and any(map(is_color, m.counts))]
    first: dict[int, MaskFacts] = {}
    for mask in indexed:
        for index, color in mask.palette.items():
            other = first.setdefault(index, mask)
            if other.palette[index] != color:
                return _differing_palettes(masks, index, other, mask)
    if not (indexed and colored):
        return _Scan(masks, {})
    order = {mask.palette[index]: index for index, mask in sorted(first.items(), reverse=True)}
    note = f"{len(colored)} masks store colors and {len(indexed)} an index into a palette: one "
    return _Scan(_recolored(masks), order, notes=(f"{note}color is one class in both",))


def _differing_palettes(
    masks: Sequence[MaskFacts], index: int, one: MaskFacts, other: MaskFacts
) -> _Scan:
    recolored = _recolored(masks)
    colors = {value for mask in recolored for value in mask.counts}
    indices = {value for mask in masks for value in mask.counts}
    what = f"the palettes of the masks differ: {index} is {value_text(one.palette[index])} in "
    what += f"{one.path.name} but {value_text(other.palette[index])} in {other.path.name}; "
    if len(colors) > MOST_CLASSES:
        return _Scan(masks, {}, (f"{what}the index is taken for the class, not the color",))
    table = {value: place for place, value in enumerate(sorted(indices))}
    what += "each color is taken for a class; if the index is the class set "
    return _Scan(recolored, {}, (f'{what}data.labels="{label_text(table, 64)}"',))


def _recolored(masks: Sequence[MaskFacts]) -> list[MaskFacts]:
    return [
        replace(mask, counts=_in_colors(mask.counts, mask), thin=_in_colors(mask.thin, mask))
        for mask in masks
    ]


def _in_colors(counts: Mapping[int, int], mask: MaskFacts) -> dict[int, int]:
    colors = Counter[int]()
    for value, pixels in counts.items():
        colors[mask.palette.get(value, value)] += pixels
    return dict(sorted(colors.items()))


def _noise(values: Sequence[int], masks: Sequence[MaskFacts]) -> list[int]:
    """Return the values that are annotation noise, next to two clear ones or more."""
    total = sum(mask.pixels for mask in masks)
    files = Counter(value for mask in masks for value in mask.counts)
    pixels, thin = Counter[int](), Counter[int]()
    for mask in masks:
        pixels.update(mask.counts)
        thin.update(mask.thin)
    rare = {value for value in values if pixels[value] < NOISE * total}
    few = min(max(1, len(masks) // FEW), (len(masks) - 1) // 2)
    clear = [value for value in values if value not in rare]
    noise = {v for v in rare if files[v] <= few and not _next_class(v, values, clear, masks)}
    # of edges that were interpolated between class ids, some lie in every mask
    edges = {v for v in rare if min(clear) < v < max(clear) and thin[v] > 0.8 * pixels[v]}
    noise |= edges if len(edges) > 1 else set()
    clear = [value for value in values if value not in noise]
    return sorted(noise) if len(clear) > 1 and len(noise) <= MOST_NOISE else []


def _next_class(
    value: int, values: Sequence[int], clear: Sequence[int], masks: Sequence[MaskFacts]
) -> bool:
    """Return whether a rare value continues the ids 0, 1, 2 ... and is more than stray pixels."""
    if len(clear) < 3 or value >= MOST_CLASSES or not {*range(value)} <= {*values}:
        return False
    return any(mask.counts.get(value, 0) > STRAY * mask.pixels for mask in masks)


def _noise_warning(
    noise: Sequence[int], table: Mapping[int, int], masks: Sequence[MaskFacts]
) -> list[str]:
    if not noise:
        return []
    files = [mask.path.name for mask in masks if any(value in mask.counts for value in noise)]
    total = sum(mask.pixels for mask in masks)
    share = 100 * sum(mask.counts.get(value, 0) for mask in masks for value in noise) / total
    next_class = LabelMap(dict(table)).classes
    text = ",".join(f"{value_text(v)}:{next_class + i}" for i, v in enumerate(noise))
    return [
        f"mask values {values_text(noise)} hold {share:.2g} % of the pixels, in {len(files)} of "
        f"{len(masks)} masks ({name_some(files)}): ignored as annotation noise; to make them "
        f'classes set data.labels="auto,{text}"'
    ]


def _refuse_many(masks: Sequence[MaskFacts], values: Sequence[int]) -> None:
    if len(values) > MOST_CLASSES:
        worst = max(masks, key=lambda mask: len(mask.counts))
        raise DataError(
            f"{worst.path}: more than {MOST_CLASSES} mask values, {values_text(values)}; a mask "
            'needs one value per class: for numbered objects set data.labels="0:0,*:1"'
        )


def _classes(
    values: Sequence[int], masks: Sequence[MaskFacts], preset: Mapping[int, int]
) -> tuple[dict[int, int], list[str]]:
    """Return the classes of values in order, and warnings about unusual ones."""
    _refuse_two_conventions(values, masks)
    void = _void(values, masks)
    kept = [value for value in values if value not in void]
    table = {value: class_id for class_id, value in enumerate(kept)}
    warnings = [
        f"mask value {value_text(value)} is ignored; to make it a class set "
        f'data.labels="auto,{value_text(value)}:{len(kept)}"'
        for value in void
    ]
    if not preset:
        warnings += _unusual(kept, table, masks)
    return table | dict.fromkeys(void, IGNORE), warnings


def _void(values: Sequence[int], masks: Sequence[MaskFacts]) -> list[int]:
    """Return 255 where it lies apart from small class ids in the same masks; or VOC's color."""
    if VOID in values and len(values) > 3:
        return [VOID]
    ids = sorted(value for value in values if value < IGNORE)
    if IGNORE not in values or len(ids) < 2 or any(map(is_color, values)):
        return []
    with_void = [mask for mask in masks if IGNORE in mask.counts]
    if 2 * sum(any(value in mask.counts for value in ids[1:]) for mask in with_void) < len(
        with_void
    ):
        return []  # the object of most masks
    steps = [high - low for low, high in pairwise([*ids, IGNORE])]
    even = all(0.5 < step * len(steps) / IGNORE < 1.7 for step in steps)
    gapless = ids[-1] == len(ids) - 1
    return [IGNORE] if gapless or (len(ids) > 2 and (ids[-1] < MOST_CLASSES or not even)) else []


def _unusual(
    values: Sequence[int], table: Mapping[int, int], masks: Sequence[MaskFacts]
) -> list[str]:
    low, high = value_text(values[0]), value_text(values[-1])
    if len(values) == 2:
        what = f"mask values {low} and {high}: {low} is taken for background; if it is the object "
        return [f"{what}set {swapped_text(table)}"] if values[0] != 0 else []
    warnings = []
    if values[0] != 0:
        warning = f"mask values {values_text(values)} became the classes 0 to {len(values) - 1}"
        trimap = '; of a trimap (3 = border) set data.labels="1:1,2:0,3:ignore"'
        warnings.append(warning + trimap * (list(values) == [1, 2, 3]))
    if 255 < values[-1] < COLOR or values[-1] >= 2 * COLOR:
        warnings.append(
            f"mask values {values_text(values)} became classes; if they number objects set "
            'data.labels="0:0,*:1"'
        )
    tops = {max(mask.counts) for mask in masks}
    gapless = all(list(mask.counts) == list(range(max(mask.counts) + 1)) for mask in masks)
    if gapless and (len(values) > 8 or (len(values) > 4 and len(tops) > 2)) and len(tops) > 1:
        warnings.append(
            f"each mask holds 0 to a number of its own, up to {max(values)}; if these number "
            'objects set data.labels="0:0,*:1"'
        )
    return warnings or _rare_values(values, masks)


def _refuse_two_conventions(values: Sequence[int], masks: Sequence[MaskFacts]) -> None:
    """Refuse 0/1 masks among 0/255 masks, which must not pass for a class and an ignored value."""
    if list(values) != [0, 1, IGNORE]:
        return
    ones = [mask.path for mask in masks if 1 in mask.counts and IGNORE not in mask.counts]
    full = [mask.path for mask in masks if IGNORE in mask.counts and 1 not in mask.counts]
    if ones and full and len(ones) + len(full) >= sum(len(mask.counts) > 1 for mask in masks):
        raise DataError(
            f"{ones[0]} has the mask values 0 and 1 but {full[0]} has 0 and 255; set "
            'data.labels="0:0,1:1,255:1" if both mean the object, else "0:0,1:1,255:ignore"'
        )


def _rare_values(values: Sequence[int], masks: Sequence[MaskFacts]) -> list[str]:
    files = Counter(value for mask in masks for value in mask.counts)
    rare = [value for value in values if files[value] * 20 <= len(masks)]
    if not rare:
        return []
    return [
        f"mask values in few of {len(masks)} masks became classes: {values_text(rare)}; if they "
        f'are stray set data.labels="auto,{value_text(rare[0])}:ignore"'
    ]
