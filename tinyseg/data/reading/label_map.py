"""Values in mask files to class ids: read from text, or found by a scan of all masks."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.reading.decode import COLOR
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

MOST_CLASSES = 64
"""A scan that finds more values than this does not take them for classes."""
_SOFT_REMEDY = 'set data.labels="0-127:0,128-255:1"'
_PART = re.compile(r"(#[0-9a-fA-F]{6}|\d+)(?:-(\d+))?:(\d+|ignore)")
_FORM = 'data.labels is like "0:0,255:1", "0-127:0,128-255:1", "#ff0000:1" or "auto,3:ignore"'


def is_foreground(label: np.ndarray) -> np.ndarray:
    """Which pixels of class ids (...) are neither background nor ignored."""
    return np.asarray((label > 0) & (label != IGNORE))


@dataclass(frozen=True)
class MaskFacts:
    """What a scan keeps of one mask file."""

    path: Path
    counts: dict[int, int]
    """Value -> pixels; of a file with more than MOST_CLASSES values only the first 65."""
    between: int = 0
    """Pixels whose value is neither the smallest nor the largest of the file."""
    thin: int = 0
    """Those of them that differ from their left or upper neighbour."""


@dataclass(frozen=True)
class LabelMap:
    """Mask value -> class id (255 = ignored), with remarks from the scan."""

    table: dict[int, int]
    warnings: tuple[str, ...] = field(default=())

    @property
    def classes(self) -> int:
        """Number of classes, at least 2."""
        return max([c + 1 for c in self.table.values() if c != IGNORE] + [2])


def mask_facts(values_hw: np.ndarray, path: Path) -> MaskFacts:
    """Counts the values of one mask and how many of them look like soft edges."""
    if values_hw.dtype == np.uint8:
        bins = np.bincount(values_hw.ravel())
        values = np.flatnonzero(bins)
        counts = bins[values]
    else:
        values, counts = np.unique(values_hw, return_counts=True)
    kept = slice(0, MOST_CLASSES + 1)
    table = dict(zip(values[kept].tolist(), counts[kept].tolist(), strict=True))
    if len(values) <= 2:
        return MaskFacts(path, table)
    inner = (values_hw > values[0]) & (values_hw < values[-1])
    same = values_hw[1:, 1:] == values_hw[1:, :-1]
    same &= values_hw[1:, 1:] == values_hw[:-1, 1:]
    inside = inner[1:, 1:]
    return MaskFacts(path, table, int(inside.sum()), int((inside & ~same).sum()))


def parse_labels(text: str) -> dict[int, int] | None:
    """Reads "0:0,255:1" with ranges "0-127:0", colours "#ff0000:1" and "3:ignore" (= 255).

    None for "auto"; "auto,3:ignore" gives {3: 255} and leaves the other values to the scan.
    DataError when the text has another form or class ids are not 0, 1, 2 ... without a gap.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == ["auto"]:
        return None
    scan_rest = parts[:1] == ["auto"]
    table: dict[int, int] = {}
    for part in parts[scan_rest:]:
        for value, class_id in _parse_part(part, text).items():
            if table.setdefault(value, class_id) != class_id:
                raise DataError(f"data.labels={text!r} gives value {value} two classes; keep one")
    if not scan_rest:
        check_label_map(table, f"data.labels={text!r}")
    return table


def scans_rest(text: str) -> bool:
    """Whether values that the text does not name are found by a scan ("auto,3:ignore")."""
    return text.split(",")[0].strip() == "auto"


def check_label_map(table: Mapping[int, int], source: str) -> None:
    """Raises DataError unless the class ids are 0..K-1 (K from 2 to 255) and perhaps 255."""
    ids = sorted(set(table.values()) - {IGNORE})
    if len(ids) < 2 or ids != list(range(len(ids))):
        raise DataError(
            f"{source} has the classes {ids}; they must be 0, 1, 2 ... without a gap, at least two"
        )


def _parse_part(part: str, text: str) -> dict[int, int]:
    found = _PART.fullmatch(part.replace(" ", ""))
    if not found:
        raise DataError(f"data.labels={text!r} is not understood at {part!r}; {_FORM}")
    first, last, class_text = found.groups()
    class_id = IGNORE if class_text == "ignore" else int(class_text)
    if first.startswith("#"):
        return {_colour_value(first): class_id}
    low, high = int(first), int(last or first)
    if class_id > IGNORE or not low <= high <= 65535:
        raise DataError(f"data.labels={text!r}: {part!r} exceeds values 0 to 65535, classes to 255")
    return dict.fromkeys(range(low, high + 1), class_id)


def _colour_value(text: str) -> int:
    number = int(text[1:], 16)
    red, green, blue = number >> 16, (number >> 8) & 255, number & 255
    return red if red == green == blue else COLOR + number


def value_text(value: int) -> str:
    """A mask value as label maps write it: a number, or "#rrggbb"."""
    return f"#{value - COLOR:06x}" if value >= COLOR else str(value)


def values_text(values: Sequence[int]) -> str:
    """The first values of a list, for messages."""
    return name_some((value_text(value) for value in values), most=8)


def find_label_map(masks: Sequence[MaskFacts], given: Mapping[int, int]) -> LabelMap:
    """Finds what the mask values mean from a scan of all masks; `given` values are settled before.

    Two values: the smaller is background. 0, 1, 2 ... and 255: 255 is ignored. 3 to 64 values:
    classes in ascending order. DataError for one value, soft edges, and more than 64 values.
    """
    totals: Counter[int] = Counter()
    for mask in masks:
        totals.update(mask.counts)
    values = sorted(set(totals) - set(given))
    _refuse_one_value(sorted(totals), len(masks))
    _refuse_soft(masks, values)
    table, warnings = _meaning(values, masks) if not given else (_ascending(values), [])
    table |= given
    check_label_map(table, f"the label map {label_text(table)!r} found by the scan")
    return LabelMap(dict(sorted(table.items())), tuple(warnings))


def label_text(table: Mapping[int, int]) -> str:
    """A label map as the text that `parse_labels` reads back, cut short when long."""
    parts = [f"{value_text(v)}:{'ignore' if c == IGNORE else c}" for v, c in table.items()]
    return ",".join(parts[:20]) + (",..." if len(parts) > 20 else "")


def _refuse_one_value(values: Sequence[int], count: int) -> None:
    if len(values) == 1:
        kind = "empty: they hold only 0" if values[0] == 0 else f"{values_text(values)} everywhere"
        raise DataError(
            f"all {count} masks are {kind}; at least two values are needed: check that the masks "
            "are exported with their objects"
        )


def _refuse_soft(masks: Sequence[MaskFacts], values: Sequence[int]) -> None:
    worst = max(masks, key=lambda mask: len(mask.counts))
    usual = sorted(len(mask.counts) for mask in masks)[len(masks) // 2]
    soft = [m for m in masks if m.thin > 0.7 * m.between and len(m.counts) > 2 * usual]
    edges = sum(m.thin for m in masks) > 0.7 * sum(m.between for m in masks)
    if soft or (edges and len(values) > 4):
        worst = max(soft or masks, key=lambda mask: len(mask.counts))
        raise DataError(
            f"{worst.path}: the mask has soft edges (anti-aliased or JPEG), values "
            f"{values_text(sorted(worst.counts))}; a mask needs one value per class: save it as "
            f"PNG without smoothing or {_SOFT_REMEDY}"
        )
    if len(values) > MOST_CLASSES:
        raise DataError(
            f"{worst.path}: more than {MOST_CLASSES} mask values, {values_text(values)}; a mask "
            'needs one value per class: for numbered objects set data.labels="0:0,1-65535:1"'
        )


def _ascending(values: Sequence[int]) -> dict[int, int]:
    return {value: class_id for class_id, value in enumerate(values)}


def _meaning(values: Sequence[int], masks: Sequence[MaskFacts]) -> tuple[dict[int, int], list[str]]:
    if len(values) == 2:
        unusual = [_two_values_warning(values)] if values[0] != 0 else []
        return _ascending(values), unusual
    if values[-1] == IGNORE and list(values[:-1]) == list(range(len(values) - 1)):
        _refuse_two_customs(values, masks)
        return {**_ascending(values[:-1]), IGNORE: IGNORE}, ["mask value 255 is ignored"]
    warnings = [_no_zero_warning(values)] if values[0] != 0 else []
    warnings += _instances_warning(values, masks)
    return _ascending(values), warnings or _rare_warning(values, masks)


def _two_values_warning(values: Sequence[int]) -> str:
    low, high = (value_text(value) for value in values)
    return (
        f"mask values {low} and {high}: {low} is taken for background; "
        f'if it is the object set data.labels="{low}:1,{high}:0"'
    )


def _refuse_two_customs(values: Sequence[int], masks: Sequence[MaskFacts]) -> None:
    """0/1 masks among 0/255 ones must not pass for one class and an ignored value."""
    if list(values) != [0, 1, IGNORE]:
        return
    ones = [mask.path for mask in masks if 1 in mask.counts and IGNORE not in mask.counts]
    full = [mask.path for mask in masks if IGNORE in mask.counts and 1 not in mask.counts]
    if ones and full and len(ones) + len(full) >= sum(len(mask.counts) > 1 for mask in masks):
        raise DataError(
            f"{ones[0]} has the mask values 0 and 1 but {full[0]} has 0 and 255; set "
            'data.labels="0:0,1:1,255:1" if both mean the object, else "0:0,1:1,255:ignore"'
        )


def _rare_warning(values: Sequence[int], masks: Sequence[MaskFacts]) -> list[str]:
    found = Counter(value for mask in masks for value in mask.counts)
    rare = [value for value in values if found[value] * 20 <= len(masks)]
    if not rare:
        return []
    return [
        f"mask values in few of {len(masks)} masks became classes: {values_text(rare)}; if they "
        f'are stray set data.labels="auto,{value_text(rare[0])}:ignore"'
    ]


def _no_zero_warning(values: Sequence[int]) -> str:
    warning = f"mask values {values_text(values)} became the classes 0 to {len(values) - 1}"
    if list(values) == [1, 2, 3]:
        warning += '; of a trimap (3 = border) set data.labels="1:1,2:0,3:ignore"'
    return warning


def _instances_warning(values: Sequence[int], masks: Sequence[MaskFacts]) -> list[str]:
    tops = {max(mask.counts) for mask in masks}
    gapless = all(list(mask.counts) == list(range(max(mask.counts) + 1)) for mask in masks)
    if len(values) <= 8 or not gapless or len(tops) < 2:
        return []
    return [
        f"each mask holds 0 to a number of its own, up to {max(values)}: if these number objects, "
        'set data.labels="0:0,1-65535:1"'
    ]


def apply_label_map(values_hw: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
    """Mask values to (H, W) uint8 class ids; DataError names the file and the unknown values."""
    values = np.fromiter(table, np.int64, len(table))
    order = np.argsort(values)
    values, ids = values[order], np.fromiter(table.values(), np.uint8, len(table))[order]
    label: np.ndarray
    if values_hw.dtype == np.uint8:
        levels = np.arange(256)
        index = np.minimum(np.searchsorted(values, levels), len(values) - 1)
        known, lookup = values[index] == levels, ids[index]
        label, bad = lookup[values_hw], ~known[values_hw]
    else:
        index = np.minimum(np.searchsorted(values, values_hw), len(values) - 1)
        label, bad = ids[index], values[index] != values_hw
    if bad.any():
        raise unknown_values(path, np.unique(values_hw[bad]).tolist(), table)
    return label


def unknown_values(path: Path, values: Sequence[int], table: Mapping[int, int]) -> DataError:
    """Return the error that these values of a mask have no class."""
    return DataError(
        f"{path}: mask values {values_text(values)} have no class in the label map "
        f"{label_text(table)!r}; add them in data.labels, e.g. {value_text(values[0])}:ignore"
    )
