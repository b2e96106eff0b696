"""From mask values to class ids: what `data.labels` says, and how label maps are written."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.reading.mask_facts import MaskFacts
from tinyseg.data.reading.mask_pixels import COLOR, LARGEST, is_color, stored_number
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

ANY = -1
"""In a label map: all values that it does not name, "*" in `data.labels`."""
_PART = re.compile(r"(\*|#[0-9a-fA-F]{6}|\d{1,10})(?:-(\d{1,10}))?:(\d{1,3}|ignore)")
_FORM = 'data.labels is like "0:0,255:1", "0-127:0,128-255:1", "0:0,*:1", "#ff0000:1" or '
_FORM += '"auto,3:ignore"'


def is_foreground(label: np.ndarray) -> np.ndarray:
    """Return where class ids (...) are neither background nor ignored."""
    return np.asarray((label > 0) & (label != IGNORE))


@dataclass(frozen=True)
class LabelMap:
    """Mask value -> class id (255 = ignored), with warnings from the scan."""

    table: dict[int, int]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What was decided and is hardly ever wrong."""
    turned: frozenset[str] = frozenset()
    """Names of images whose labels are to be turned as EXIF turns the images."""

    @property
    def classes(self) -> int:
        """Number of classes, at least 2."""
        return max([c + 1 for c in self.table.values() if c != IGNORE] + [2])


def parse_labels(text: str) -> dict[int, int] | None:
    """Read "0:0,255:1" with ranges "0-127:0", colors "#ff0000:1", "3:ignore" (= 255), "*:1".

    "*" stands for all other values. None for "auto"; "auto,3:ignore" gives {3: 255} and leaves the
    other values to the scan. DataError when the text has another form or class ids are not 0, 1,
    2 ... without a gap.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if parts == ["auto"]:
        return None
    scan_rest = parts[:1] == ["auto"]
    table: dict[int, int] = {}
    for part in parts[scan_rest:]:
        for value, class_id in _parse_part(part, text).items():
            if table.setdefault(value, class_id) != class_id:
                named = value_text(value)
                raise DataError(f"data.labels={text!r} gives value {named} two classes; keep one")
    if scan_rest and ANY in table:
        raise DataError(f'data.labels={text!r}: "auto" and "*" both mean other values; keep one')
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
    if not match or (match[2] and not match[1].isdigit()):
        raise DataError(f"data.labels={text!r} is not understood at {part!r}; {_FORM}")
    first, last, class_text = match.groups()
    class_id = IGNORE if class_text == "ignore" else int(class_text)
    if not first.isdigit():
        low = high = ANY if first == "*" else _color_value(first)
    else:
        low, high = int(first), int(last or first)
        if not (low <= high <= LARGEST and high - low <= 65535):
            raise DataError(
                f"data.labels={text!r}: {part!r} exceeds values 0 to {LARGEST}, 65536 in one range;"
                ' all other values are "*"'
            )
    if class_id > IGNORE:
        raise DataError(f"data.labels={text!r}: {part!r} exceeds the classes 0 to 255")
    return {stored_number(v) if first.isdigit() else v: class_id for v in range(low, high + 1)}


def _color_value(text: str) -> int:
    number = int(text[1:], 16)
    red, green, blue = number >> 16, (number >> 8) & 255, number & 255
    return red if red == green == blue else COLOR + number


def value_text(value: int) -> str:
    """Return a mask value as label maps write it: a number, "#rrggbb" or "*"."""
    if is_color(value):
        return f"#{value - COLOR:06x}"
    return "*" if value == ANY else str(value if value < COLOR else value - COLOR)


def values_text(values: Iterable[int], most: int = 8) -> str:
    """Return the first values of a list, for messages."""
    return name_some((value_text(value) for value in values), most=most)


def label_text(table: Mapping[int, int], most: int = 20) -> str:
    """Return a label map as the text that `parse_labels` reads back, cut short when long."""
    parts = [f"{run}:{'ignore' if c == IGNORE else c}" for run, c in _runs(table)]
    return ",".join(parts[:most]) + (",..." if len(parts) > most else "")


def ranges_text(values: Collection[int], most: int = 4) -> str:
    """Return values as text, "0-127" where many follow each other: "0, 1, 2 ..."."""
    texts = [run for run, _ in _runs(dict.fromkeys(sorted(values), 0))]
    return ", ".join(texts[:most]) + " ..." * (len(texts) > most)


def _runs(table: Mapping[int, int]) -> list[tuple[str, int]]:
    """Return the values as they are written, each with its class; "*" comes last."""
    runs: list[list[int]] = []
    for value, class_id in sorted(table.items(), key=lambda pair: (pair[0] == ANY, 0)):
        if runs and value == runs[-1][1] + 1 and class_id == runs[-1][2] and 0 < value < COLOR:
            runs[-1][1] = value
        else:
            runs.append([value, value, class_id])
    texts = list[tuple[str, int]]()
    for low, high, class_id in runs:
        if high - low < 2:
            texts += [(value_text(value), class_id) for value in range(low, high + 1)]
        else:
            texts.append((f"{low}-{high}", class_id))
    return texts


def swapped_text(table: Mapping[int, int]) -> str:
    """Return the setting that swaps background and foreground of two classes."""
    return f'data.labels="{label_text({v: c if c == IGNORE else 1 - c for v, c in table.items()})}"'


def class_of(value: int, table: Mapping[int, int]) -> int:
    """Return the class id of a mask value; KeyError without one."""
    return table[value] if value in table else table[ANY]


def check_known(values: Collection[int], table: Mapping[int, int], path: object) -> None:
    """Raise DataError, with the name of the mask, when one of its values has no class."""
    unknown = sorted(set(values) - table.keys())
    if unknown and ANY not in table:
        raise DataError(
            f"{path}: mask values {values_text(unknown)} have no class in the label map "
            f"{label_text(table)!r}; add them in data.labels, e.g. {value_text(unknown[0])}:ignore"
        )


def in_colors(masks: Sequence[MaskFacts], table: Mapping[int, int]) -> dict[int, int]:
    """Return the palette of masks whose colors a label map names all; else nothing.

    So one color is one class, whether a file stores it or an index into a palette.
    """
    palette = {index: color for mask in masks for index, color in mask.palette.items()}
    colored = any(map(is_color, table)) and all(color in table for color in palette.values())
    return palette if colored else {}
