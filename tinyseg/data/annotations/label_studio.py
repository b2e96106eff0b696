"""Label Studio: its JSON export, drawn in parts of 100; and masks named by task, one an object.

Only the JSON says which image a task is. Without it, tasks can be taken in the order of the images.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from tinyseg.data.annotations.folder import Folder
from tinyseg.data.annotations.found import (
    Annotations,
    Classes,
    Drawn,
    counted,
    gather,
    left_out,
    points,
    size_of,
    text_of,
)
from tinyseg.data.annotations.label_studio_brush import brush_mask
from tinyseg.data.annotations.raster import fill_polygons
from tinyseg.data.reading.annotation import Size
from tinyseg.data.reading.decode import decode_mask
from tinyseg.data.reading.files import natural
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

Table = Mapping[str, Any]
SORTED = "label_studio_sorted"
MASK_LIMIT = 1 << 26
"""Largest file of a mask, in bytes."""
_TYPES = ("polygonlabels", "brushlabels", "rectanglelabels", "ellipselabels")
_MASK = re.compile(r"task-(\d+)-annotation-(\d+)-by-(?:[^@-]+@[^-]+|[^-]+)-[^-]+-(.+)-\d+")
_PREFIX = re.compile(r"^[0-9a-f]{8}-")
_CIRCLE = np.linspace(0, 2 * np.pi, 128, endpoint=False)


def is_label_studio(content: Any) -> bool:
    """Return whether the content of a JSON file is a list of Label Studio's tasks."""
    return isinstance(content, list) and any(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations"), list)
        for task in content
    )


def find_label_studio(
    folder: Folder, files: Mapping[str, Any], known: Sequence[str]
) -> Annotations | None:
    """Return the images of the tasks in JSON exports, with the first annotation of each."""
    tasks = [(file, task) for file, content in files.items() for task in _tasks(content)]
    results = [(file, task, _results(task)) for file, task in tasks]
    labels = {_label(one) for _, _, found in results or () for one in found or ()}
    if not labels:
        _refuse_names_alone(folder)
        return None
    classes = Classes(sorted(labels, key=natural), known, folder.root)
    drawn, absent, open_tasks = [], [], 0
    for file, task, found in results:
        image = _image(folder, file, task)
        if image is None or found is None:
            absent += [str(task.get("id"))] * (image is None)
            open_tasks += found is None
            continue
        objects = [(classes.id(_label(one)), one) for one in found]
        where = f"{folder.root / file}: task {text_of(task.get('id'))}"
        drawn.append(Drawn(image, file, partial(_draw, where, objects), objects))
    if not drawn:
        raise DataError(
            f"{folder.root / next(iter(files))}: none of its {len(tasks)} tasks has its image in "
            "the folder; put the images into it under the names in the JSON file"
        )
    count = sum(len(one.content) for one in drawn)
    text = f"Label Studio: {counted(len(drawn), 'image')}, {counted(count, 'object')} of {classes}"
    warnings = [text + ", the later of two objects on top, the first annotation of each task"]
    if absent:
        warnings.append(f"{counted(len(absent), 'task')} without image: {name_some(absent)}")
    if open_tasks:
        warnings.append(f"{counted(open_tasks, 'task')} without annotation left out")
    warnings += left_out(folder, (one.image for one in drawn), "task")
    return gather(folder, "label_studio", drawn, classes.names, warnings)


def find_sorted(folder: Folder, known: Sequence[str]) -> Annotations | None:
    """Pair the masks of tasks with the images, both in natural order."""
    tasks, images = _masks_by_task(folder)
    if not tasks or len(images) != len(tasks):
        return None
    labels = {label for one in tasks.values() for _, label in one}
    classes = Classes(sorted(labels, key=natural), known, folder.root)
    drawn = []
    for image, objects in zip(images, tasks.values(), strict=True):
        files = [(folder.root / file, classes.id(label)) for file, label in objects]
        content = [
            [hashlib.sha256(folder.bytes(file, MASK_LIMIT)).hexdigest(), classes.id(label)]
            for file, label in objects
        ]
        drawn.append(Drawn(image, objects[0][0], partial(_join, files), content))
    text = f"Label Studio: {counted(len(drawn), 'task')} in the order of the image names ("
    first = PurePosixPath(next(iter(tasks.values()))[0][0]).name
    text += f"{first} belongs to {images[0]}): {classes}"
    return gather(folder, SORTED, drawn, classes.names, [text])


def _refuse_names_alone(folder: Folder) -> None:
    tasks, images = _masks_by_task(folder)
    if not tasks or not images:
        return
    first = next(iter(tasks.values()))[0][0]
    way = ""
    if len(images) == len(tasks):
        way = f"; if tasks are in the order of the image names set data.annotations={SORTED}"
    raise DataError(
        f"{folder.root}: {counted(len(tasks), 'task')} of Label Studio ({first}) and "
        f"{counted(len(images), 'image')}, which only its JSON export joins: put that into the "
        f"folder{way}"
    )


def _masks_by_task(folder: Folder) -> tuple[dict[int, list[tuple[str, str]]], list[str]]:
    """Return (file, label) of the masks of each task, of its first annotation; and the images."""
    found: dict[int, dict[int, list[tuple[str, str]]]] = {}
    images = []
    if not any("-annotation-" in file for file in folder.files):
        return {}, []
    for file in folder.images:
        if match := _MASK.fullmatch(PurePosixPath(file).stem):
            by_annotation = found.setdefault(int(match[1]), {})
            by_annotation.setdefault(int(match[2]), []).append((file, text_of(match[3])))
        else:
            images.append(file)
    return {task: found[task][min(found[task])] for task in sorted(found)}, images


def _join(files: Sequence[tuple[Path, int]], size: Size) -> np.ndarray:
    label = np.zeros(size, np.uint8)
    for path, class_id in files:
        mask = decode_mask(path).pixels
        if mask.shape != size:
            raise DataError(f"{path}: another size than its image; is it of another task?")
        label[mask > 0] = class_id
    return label


def _tasks(content: Sequence[Any]) -> Iterator[Table]:
    for task in content:
        if isinstance(task, dict) and isinstance(task.get("data"), dict):
            yield task


def _results(task: Table) -> list[Table] | None:
    """Return the objects of a task's first annotation; None where it was skipped or not done."""
    entries = task.get("annotations")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and not entry.get("was_cancelled"):
            results = entry.get("result")
            found = results if isinstance(results, list) else []
            return [one for one in found if isinstance(one, dict) and _is_area(one)]
    return None


def _is_area(result: Table) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and result.get("type") in _TYPES


def _label(result: Table) -> str:
    labels = result["value"].get(result["type"])
    return text_of(labels[0]) if isinstance(labels, list) and labels else "object"


def _image(folder: Folder, file: str, task: Table) -> str | None:
    """Return the image in the task's data: a path, an address, or "?d=" and a local path."""
    for value in task["data"].values():
        if not isinstance(value, str):
            continue
        plain = unquote(value)
        name = plain.rpartition("?d=")[2] if "?d=" in plain else plain.partition("?")[0]
        short = _PREFIX.sub("", name.rpartition("/")[2])
        if image := folder.image(name, file) or folder.image(short, file):
            return image
    return None


def _draw(where: str, objects: Sequence[tuple[int, Table]], size: Size) -> np.ndarray:
    label = np.zeros(size, np.uint8)
    for number, (class_id, result) in enumerate(objects):
        name = f"{where}, object {number + 1}"
        try:
            if result["type"] == "brushlabels":
                own = size_of(result.get("original_height"), result.get("original_width"))
                if own not in (None, size):
                    raise ValueError(f"painted at {own}, but the image has {size} pixels")
                label[brush_mask(result["value"].get("rle"), size)] = class_id
            else:
                fill_polygons([_outline(name, result, size)], size).paint(label, class_id)
        except ValueError as error:
            raise DataError(f"{name}: {error}; export it again") from None
    return label


def _outline(where: str, result: Table, size: Size) -> np.ndarray:
    """Return the points (N, 2) of a shape in pixels."""
    value = result["value"]
    whole = np.array([size[1], size[0]]) / 100
    if result["type"] == "polygonlabels":
        xy = points(where, value.get("points"), (100, 100)) * whole
        if len(xy) < 3:
            raise ValueError(f"a polygon of {len(xy)} points encloses nothing")
        return xy
    ellipse = result["type"] == "ellipselabels"
    sides = ("radiusX", "radiusY") if ellipse else ("width", "height")
    numbers = [value.get(key, 0) for key in ("x", "y", *sides, "rotation")]
    corner, extent = points(where, numbers[:4], (100, 100)) * whole
    (angle, _), *_ = points(where, [numbers[4], 0], (360, 360)) * np.pi / 180
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    if ellipse:
        unit = np.stack([np.cos(_CIRCLE), np.sin(_CIRCLE)], axis=1)
    return np.asarray(corner + unit * extent @ turn)
