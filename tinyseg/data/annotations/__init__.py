"""Annotations that are not masks: COCO and labelme JSON and others, found in a folder and drawn.

In comes a folder, out come cases whose labels are drawn when they are read, and the names of the
classes. Every file is untrusted: sizes are bounded, names are looked up in the folder and never
opened as paths, and what cannot be used is a DataError.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyseg.config import DataConfig
from tinyseg.data.annotations.coco import find_coco, is_coco
from tinyseg.data.annotations.folder import Folder
from tinyseg.data.annotations.found import Annotations
from tinyseg.data.annotations.imagej import find_imagej
from tinyseg.data.annotations.label_studio import (
    SORTED,
    find_label_studio,
    find_sorted,
    is_label_studio,
)
from tinyseg.data.annotations.labelme import find_labelme, is_labelme, shorten
from tinyseg.data.annotations.named_masks import find_labelme_folders, find_voc
from tinyseg.data.annotations.numpy_arrays import find_numpy
from tinyseg.data.annotations.yolo import find_yolo
from tinyseg.errors import DataError

__all__ = ["Annotations", "find_annotations"]

Documents = Mapping[str, Mapping[str, Any]]
"""Content of the JSON files by format and name."""
_MARKS = (b'"segmentation"', b'"shapes"', b'"shape_type"', b'"polygonlabels"', b'"brushlabels"')
"""What a damaged JSON file holds if it was meant as an annotation."""
_JSON: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]] = {
    "coco": (is_coco, lambda content: content),
    "labelme": (is_labelme, shorten),
    "label_studio": (is_label_studio, lambda content: content),
}
_FINDERS: dict[str, Callable[[Folder, Documents, Sequence[str]], Annotations | None]] = {
    "labelme_folders": lambda folder, _, names: find_labelme_folders(folder, names),
    "voc": lambda folder, _, names: find_voc(folder, names),
    "coco": lambda folder, files, names: find_coco(folder, files["coco"], names),
    "labelme": lambda folder, files, names: find_labelme(folder, files["labelme"], names),
    "label_studio": lambda folder, files, names: find_label_studio(
        folder, files["label_studio"], names
    ),
    "yolo": lambda folder, _, names: find_yolo(folder, names),
    "imagej": lambda folder, _, names: find_imagej(folder, names),
    "numpy": lambda folder, _, names: find_numpy(folder, names),
}
_ON_REQUEST = {SORTED: find_sorted}
"""Formats that are a guess, and taken only if they are asked for."""
FORMATS = tuple(_FINDERS)


def find_annotations(
    root: Path, config: DataConfig, names: Sequence[str] = ()
) -> Annotations | None:
    """Return the annotations of a folder; None when it has none, or masks are to be read.

    `data.annotations` is "auto", "none", a format, or the path of a file in the folder, and
    `data.labels` may give classes other ids by their names. `names` are the class names of a run,
    whose class ids the labels get. DataError when annotations are there but cannot be used.
    """
    choice = config.annotations
    if choice == "none" or not root.is_dir():
        return None
    folder, by_name = Folder(root), config.labels != "auto"
    names = () if by_name else names
    if choice in _ON_REQUEST:
        found = _ON_REQUEST[choice](folder, names)
    else:
        found = _first(folder, names, choice)
    if found is None and choice != "auto":
        raise DataError(
            f"data.annotations={choice}: nothing of the kind in {root}; choose auto, none, a file "
            f"in the folder, or one of {', '.join(FORMATS)}"
        )
    return found.relabeled(config.labels) if found and by_name else found


def _first(folder: Folder, names: Sequence[str], choice: str) -> Annotations | None:
    """Return the first format that the folder holds; it says which others are there."""
    documents = _documents(folder, choice)
    taken, others = None, []
    for name in [choice] if choice in _FINDERS else _FINDERS:
        if taken:
            with suppress(DataError):
                others += [name] if _FINDERS[name](folder, documents, names) else []
        elif choice != "auto" or name != "labelme" or not _has_masks(folder, documents["labelme"]):
            taken = _FINDERS[name](folder, documents, names)
    if not (taken and others):
        return taken
    choices = " or ".join(f"data.annotations={name}" for name in others)
    text = f"{taken.layout.taken}; to use others set {choices}"
    return replace(taken, layout=replace(taken.layout, taken=text))


def _documents(folder: Folder, choice: str) -> dict[str, dict[str, Any]]:
    """Return the JSON files by format."""
    found: dict[str, dict[str, Any]] = {name: {} for name in _JSON}
    for file in folder.ending(".json"):
        if choice not in ("auto", *FORMATS, file):
            continue
        try:
            content = folder.json(file)
        except DataError:
            data = (folder.root / file).read_bytes() if (folder.root / file).is_file() else b""
            if any(mark in data for mark in _MARKS):
                raise
            continue
        for name, (matches, shortened) in _JSON.items():
            if matches(content):
                found[name][file] = shortened(content)
                break
    return found


def _has_masks(folder: Folder, files: Mapping[str, Any]) -> bool:
    """Return whether most labelme files have an exported mask next to their image."""
    if not files:
        return False
    stems: dict[str, int] = {}
    for image in folder.images:
        stem = image.rpartition(".")[0]
        stems[stem] = stems.get(stem, 0) + 1
    twice = sum(stems.get(file.rpartition(".")[0], 0) > 1 for file in files)
    return twice > len(files) / 2
