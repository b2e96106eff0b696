"""YOLO segmentation: a text file for each image, each line a class and a polygon in parts of 1.

As Ultralytics writes them: `0 0.1 0.2 0.3 0.2 0.3 0.5`, names in data.yaml or classes.txt.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from tinyseg.data.annotations.folder import Folder
from tinyseg.data.annotations.found import (
    Annotations,
    Classes,
    Drawn,
    counted,
    gather,
    left_out,
    text_of,
)
from tinyseg.data.annotations.raster import fill_polygons
from tinyseg.data.reading.annotation import Size
from tinyseg.errors import DataError

_LINE = re.compile(r"\d{1,5}(?:[ \t]+[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)*")
_LISTS = ("classes.txt", "obj.names", "labels.txt")
_ENTRY = re.compile(r"""\s*(?:-|['"]?(\d{1,5})['"]?\s*:)\s*(.+?)\s*""")
Polygon = tuple[int, tuple[float, ...]]


def find_yolo(folder: Folder, known: Sequence[str]) -> Annotations | None:
    """Return the images that have a text file of polygons; an empty one means background."""
    files = {file: image for file in folder.ending(".txt") if (image := _image_of(folder, file))}
    read = {file: _read(folder, file) for file in files}
    polygons = {file: found for file, found in read.items() if found is not None}
    if not any(polygons.values()):
        return None
    others = [file for file, found in read.items() if found is None]
    if others:
        raise DataError(
            f"{folder.root / others[0]}: a line is not of a class and at least three points "
            f"({len(others)} such files; boxes of detection have two); export polygons, or move "
            "the file away"
        )
    listed = _names(folder)
    used = sorted({class_id for found in polygons.values() for class_id, _ in found})
    names = {k: listed[k] if k < len(listed) else f"{k}" for k in used}
    classes = Classes(names.values(), known, folder.root)
    drawn = []
    for file, found in polygons.items():
        objects = [(classes.id(names[class_id]), xy) for class_id, xy in found]
        draw = partial(_draw, str(folder.root / file), objects)
        drawn.append(Drawn(files[file], file, draw, objects))
    count = sum(map(len, polygons.values()))
    text = f"YOLO polygons: {counted(len(drawn), 'image')}, {counted(count, 'object')} of {classes}"
    text += ", the later of two objects on top"
    if not listed:
        text += "; data.yaml or classes.txt would name them"
    bare = left_out(folder, files.values(), "text file")
    bare = [f"{line}; an empty text file makes one background" for line in bare]
    return gather(folder, "yolo", drawn, classes.names, [text, *bare])


def _image_of(folder: Folder, file: str) -> str | None:
    path = PurePosixPath(file)
    return None if path.name.casefold() in _LISTS else folder.image_of(path.stem, file)


def _read(folder: Folder, file: str) -> list[Polygon] | None:
    """Return the polygons of a file; None when it has other lines."""
    found = []
    for line in folder.text(file).splitlines():
        if not line.strip():
            continue
        numbers = line.split() if _LINE.fullmatch(line.strip()) else []
        if len(numbers) < 7 or len(numbers) % 2 == 0:
            return None
        found.append((int(numbers[0]), tuple(map(float, numbers[1:]))))
    return found


def _draw(where: str, objects: Sequence[Polygon], size: Size) -> np.ndarray:
    label = np.zeros(size, np.uint8)
    for number, (class_id, numbers) in enumerate(objects):
        xy = np.array(numbers).reshape(-1, 2)
        if not ((xy >= -1) & (xy <= 2)).all():
            raise DataError(
                f"{where}, line {number + 1}: coordinates must be parts of the image, from 0 to 1; "
                "export it as normalized polygons"
            )
        try:
            fill_polygons([xy * (size[1], size[0])], size).paint(label, class_id)
        except ValueError as error:
            raise DataError(f"{where}, line {number + 1}: {error}; export it again") from None
    return label


def _names(folder: Folder) -> list[str]:
    """Return the names in data.yaml, or in a list with a name on each line."""
    for file in folder.ending(".yaml", ".yml"):
        if names := _yaml_names(folder.text(file)):
            return names
    for file in folder.files:
        if file.rpartition("/")[2].casefold() in _LISTS:
            return [text_of(line) for line in folder.text(file).splitlines() if line.strip()]
    return []


def _yaml_names(text: str) -> list[str]:
    """Read `names:` as Ultralytics and Roboflow write it: a list or numbers with names."""
    lines = [line.partition(" #")[0].rstrip() for line in text.splitlines()]
    start = next((i for i, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        return []
    inline = " ".join(lines[start:]).partition(":")[2].strip()
    if inline[:1] in ("[", "{"):
        inside = inline[1:].partition("]" if inline[0] == "[" else "}")[0]
        entries = [part if inline[0] == "{" else f"- {part}" for part in inside.split(",")]
    else:
        entries = lines[start + 1 :]
    names: dict[int, str] = {}
    for entry in filter(str.strip, entries):
        match = _ENTRY.fullmatch(entry)
        if not match:
            break
        number = int(match[1]) if match[1] else len(names)
        names[number] = text_of(match[2].strip("'\""))
    return [names.get(number, str(number)) for number in range(max(names, default=-1) + 1)]
