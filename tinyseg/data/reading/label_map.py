"""Values in mask files to class ids: read from `data.labels`, or from a scan of all masks."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.reading.decode import COLOR
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

MOST_CLASSES = 64
"""Masks with more values than this do not hold classes."""
_SOFT_REMEDY = 'set data.labels="0-127:0,128-255:1"'
_PART = re.compile(r"(#[0-9a-fA-F]{6}|\d+)(?:-(\d+))?:(\d+|ignore)")
_FORM = 'data.labels is like "0:0,255:1", "0-127:0,128-255:1", "#ff0000:1" or "auto,3:ignore"'


def is_foreground(label: np.ndarray) -> np.ndarray:
    """Return where class ids (...) are neither background nor ignored."""
    return np.asarray((label > 0) & (label != IGNORE))


@dataclass(frozen=True)
class MaskFacts:
    """The values of one mask file, and how they lie."""

    path: Path
    counts: dict[int, int]
    """Value -> pixels; of a file with more than MOST_CLASSES values only the first 65."""
    between: int = 0
    """Pixels whose value is neither the smallest nor the largest of the file."""
    thin: int = 0
    """Those of them that differ from their left or upper neighbor."""


@dataclass(frozen=True)
class LabelMap:
    """Mask value -> class id (255 = ignored), with warnings from the scan."""

    table: dict[int, int]
    warnings: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """Number of classes, at least 2."""
        return max([c + 1 for c in self.table.values() if c != IGNORE] + [2])


def mask_facts(values_hw: np.ndarray, path: Path) -> MaskFacts:
    """Count the values of one mask, and the pixels that look like soft edges."""
    values, counts = count_values(values_hw)
    kept = slice(0, MOST_CLASSES + 1)
    table = dict(zip(values[kept].tolist(), counts[kept].tolist(), strict=True))
    if len(values) <= 2:
        return MaskFacts(path, table)
    inner = (values_hw > values[0]) & (values_hw < values[-1])
    same = values_hw[1:, 1:] == values_hw[1:, :-1]
    same &= values_hw[1:, 1:] == values_hw[:-1, 1:]
    inside = inner[1:, 1:]
    return MaskFacts(path, table, int(inside.sum()), int((inside & ~same).sum()))


def count_values(values_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a mask in order, and the pixels of each."""
    if values_hw.dtype != np.uint8:
        return np.unique(values_hw, return_counts=True)
    # most masks have two values, and these take a fiftieth of the time
    ends = np.unique([values_hw.min(), values_hw.max()])
    counts = np.array([np.count_nonzero(values_hw == value) for value in ends])
    if counts.sum() == values_hw.size:
        return ends, counts
    bins = np.bincount(values_hw.ravel())
    values = np.flatnonzero(bins)
    return values, bins[values]


def parse_labels(text: str) -> dict[int, int] | None:
    """Read "0:0,255:1" with ranges "0-127:0", colors "#ff0000:1" and "3:ignore" (= 255).

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
    """Return whether other values than those in the text come from a scan ("auto,3:ignore")."""
    return text.split(",")[0].strip() == "auto"


def check_label_map(table: Mapping[int, int], source: str) -> None:
    """Raise DataError unless the class ids are 0..K-1 (K from 2 to 255) and perhaps 255."""
    ids = sorted(set(table.values()) - {IGNORE})
    if len(ids) < 2 or ids != list(range(len(ids))):
        raise DataError(
            f"{source} has the classes {ids}; they must be 0, 1, 2 ... without a gap, at least two"
        )


def _parse_part(part: str, text: str) -> dict[int, int]:
    match = _PART.fullmatch(part.replace(" ", ""))
    if not match:
        raise DataError(f"data.labels={text!r} is not understood at {part!r}; {_FORM}")
    first, last, class_text = match.groups()
    class_id = IGNORE if class_text == "ignore" else int(class_text)
    if first.startswith("#"):
        return {_color_value(first): class_id}
    low, high = int(first), int(last or first)
    if class_id > IGNORE or not low <= high <= 65535:
        raise DataError(f"data.labels={text!r}: {part!r} exceeds values 0 to 65535, classes to 255")
    return dict.fromkeys(range(low, high + 1), class_id)


def _color_value(text: str) -> int:
    number = int(text[1:], 16)
    red, green, blue = number >> 16, (number >> 8) & 255, number & 255
    return red if red == green == blue else COLOR + number


def value_text(value: int) -> str:
    """Return a mask value as label maps write it: a number, or "#rrggbb"."""
    return f"#{value - COLOR:06x}" if value >= COLOR else str(value)


def values_text(values: Sequence[int]) -> str:
    """Return the first values of a list, for messages."""
    return name_some((value_text(value) for value in values), most=8)


def find_label_map(masks: Sequence[MaskFacts], preset: Mapping[int, int]) -> LabelMap:
    """Find the class of each mask value from all masks; `preset` values have theirs already.

    Two values: the smaller is background. 0, 1, 2 ... and 255: 255 is ignored. 3 to 64 values:
    classes in ascending order. DataError for one value, soft edges, and more than 64 values.
    """
    all_values = sorted({value for mask in masks for value in mask.counts})
    if len(all_values) == 1:
        value = all_values[0]
        where = "empty: they hold only 0" if value == 0 else f"{value_text(value)} everywhere"
        raise DataError(
            f"all {len(masks)} masks are {where}; at least two values are needed: check that the "
            "masks are exported with their objects"
        )
    values = [value for value in all_values if value not in preset]
    _refuse_soft(masks, values)
    table, warnings = ({}, []) if preset else _special_values(values, masks)
    table = {**(table or {value: i for i, value in enumerate(values)}), **preset}
    check_label_map(table, f"the label map {label_text(table)!r} found by the scan")
    return LabelMap(dict(sorted(table.items())), tuple(warnings))


def label_text(table: Mapping[int, int]) -> str:
    """Return a label map as the text that `parse_labels` reads back, cut short when long."""
    parts = [f"{value_text(v)}:{'ignore' if c == IGNORE else c}" for v, c in table.items()]
    return ",".join(parts[:20]) + (",..." if len(parts) > 20 else "")


def _refuse_soft(masks: Sequence[MaskFacts], values: Sequence[int]) -> None:
    """Refuse masks with soft edges, or with more values than there can be classes."""
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


def _special_values(
    values: Sequence[int], masks: Sequence[MaskFacts]
) -> tuple[dict[int, int], list[str]]:
    """Return the table where 255 is ignored, else none; and warnings about unusual values."""
    low, high = value_text(values[0]), value_text(values[-1])
    if len(values) > 2 and list(values) == [*range(len(values) - 1), IGNORE]:
        _refuse_two_conventions(values, masks)
        table = {value: value for value in values}
        return table, ["mask value 255 is ignored"]
    if len(values) == 2:
        if values[0] == 0:
            return {}, []
        warning = f"mask values {low} and {high}: {low} is taken for background; "
        return {}, [f'{warning}if it is the object set data.labels="{low}:1,{high}:0"']
    warnings = []
    if values[0] != 0:
        warning = f"mask values {values_text(values)} became the classes 0 to {len(values) - 1}"
        trimap = '; of a trimap (3 = border) set data.labels="1:1,2:0,3:ignore"'
        warnings.append(warning + trimap * (list(values) == [1, 2, 3]))
    tops = {max(mask.counts) for mask in masks}
    gapless = all(list(mask.counts) == list(range(max(mask.counts) + 1)) for mask in masks)
    if len(values) > 8 and gapless and len(tops) > 1:
        warnings.append(
            f"each mask holds 0 to a number of its own, up to {max(values)}: if these number "
            'objects, set data.labels="0:0,1-65535:1"'
        )
    return {}, warnings or _rare_values(values, masks)


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


def check_known(values: Collection[int], table: Mapping[int, int], path: Path) -> None:
    """Raise DataError, with the name of the mask, when one of its values has no class."""
    unknown = sorted(set(values) - table.keys())
    if unknown:
        raise DataError(
            f"{path}: mask values {values_text(unknown)} have no class in the label map "
            f"{label_text(table)!r}; add them in data.labels, e.g. {value_text(unknown[0])}:ignore"
        )
