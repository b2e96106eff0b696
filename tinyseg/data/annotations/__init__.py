"""Annotations that are not masks: COCO and labelme JSON and others, found in a folder and drawn.

In comes a folder, out come cases whose labels are drawn when they are read, and the names of the
classes. Every file is untrusted: sizes are bounded, names are looked up in the folder and never
opened as paths, and what cannot be used is a DataError.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyseg.data.annotations.coco import find_coco, is_coco
from tinyseg.data.annotations.folder import Folder
from tinyseg.data.annotations.found import Annotations
from tinyseg.data.annotations.labelme import find_labelme, is_labelme, shorten
from tinyseg.errors import DataError

__all__ = ["Annotations", "find_annotations"]

_MARKS = (b'"segmentation"', b'"shapes"', b'"shape_type"')
"""What a damaged JSON file holds if it was meant as an annotation."""
_JSON: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Any]]] = {
    "coco": (is_coco, lambda content: content),
    "labelme": (is_labelme, shorten),
}
_FINDERS: dict[str, Callable[[Folder, Mapping[str, Any], Sequence[str]], Annotations | None]] = {
    "coco": find_coco,
    "labelme": find_labelme,
}
FORMATS = tuple(_FINDERS)


def find_annotations(
    root: Path, choice: str = "auto", names: Sequence[str] = ()
) -> Annotations | None:
    """Return the annotations of a folder; None when it has none, or masks are to be read.

    `choice` is "auto", "none", a format, or the path of a file in the folder; `names` are the
    class names of a run, whose class ids the labels get. DataError when annotations are there but
    cannot be used.
    """
    if choice == "none" or not root.is_dir():
        return None
    folder = Folder(root)
    documents = _documents(folder, choice)
    wanted = [choice] if choice in _FINDERS else list(_FINDERS)
    for name in wanted:
        files = documents.get(name, {})
        if choice == "auto" and name == "labelme" and _has_masks(folder, files):
            continue
        if found := _FINDERS[name](folder, files, names):
            return found
    if choice != "auto":
        raise DataError(
            f"data.annotations={choice}: nothing of the kind in {root}; choose auto, none, a file "
            f"in the folder, or one of {', '.join(FORMATS)}"
        )
    return None


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
    stems: dict[str, int] = {}
    for image in folder.images:
        stem = image.rpartition(".")[0]
        stems[stem] = stems.get(stem, 0) + 1
    twice = sum(stems.get(file.rpartition(".")[0], 0) > 1 for file in files)
    return twice > len(files) / 2
