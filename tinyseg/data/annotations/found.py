"""What a format finds in a folder: images, a drawing for each, and the names of the classes."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.annotations.folder import Folder, case_names
from tinyseg.data.reading.annotation import Annotation, Size
from tinyseg.data.reading.case import Case, Layout
from tinyseg.data.reading.files import natural
from tinyseg.data.reading.label_map import check_label_map
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

BACKGROUND = frozenset({"background", "_background_", "__background__"})
IGNORED = frozenset({"__ignore__", "ignore"})
MOST_CLASSES = 255
_SPLIT = re.compile(
    r"(?:^|[^a-z])(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?))"
    r"(?:[^a-z]|$)"
)


@dataclass(frozen=True)
class Annotations:
    """The annotations of a folder in one format."""

    format: str
    """The value of data.annotations that chooses it."""
    layout: Layout
    """Its cases have an `annotation`; `taken` says what was found."""
    class_names: tuple[str, ...]
    """Background first; none where labels hold values whose classes a scan finds."""
    label_map: Mapping[int, int]
    """Value in a drawn label to class id; empty without class names."""

    def relabeled(self, text: str) -> "Annotations":
        """Return the classes by data.labels: "background:0,cell:1,dead cell:1,dirt:ignore".

        DataError unless it names all classes and their ids are 0, 1 ... without a gap.
        """
        if not self.class_names:
            return self
        names = ",".join(f"{name}:{number}" for number, name in enumerate(self.class_names))
        table: dict[int, int] = {IGNORE: IGNORE}
        for part in filter(str.strip, text.split(",")):
            name, _, to = (word.strip() for word in part.rpartition(":"))
            if name not in self.class_names or not (to == "ignore" or to.isdecimal()):
                raise DataError(
                    f"data.labels={text!r} is not understood at {part!r}; give each class of the "
                    f'annotations its id, as in "{names}"'
                )
            table[self.class_names.index(name)] = IGNORE if to == "ignore" else int(to)
        absent = [name for k, name in enumerate(self.class_names) if k not in table]
        if absent:
            raise DataError(
                f"data.labels={text!r} does not say what {name_some(absent)} is; add "
                f"{absent[0]}:0, or {absent[0]}:ignore"
            )
        check_label_map(table, f"data.labels={text!r}")
        count = max(k for k in table.values() if k != IGNORE) + 1
        merged = (
            "+".join(n for k, n in enumerate(self.class_names) if table[k] == class_id)
            for class_id in range(count)
        )
        return replace(self, label_map=table, class_names=tuple(merged))


class Classes:
    """Labels by name to class ids: background is 0, others follow in order."""

    def __init__(self, labels: Iterable[str], known: Sequence[str], where: object) -> None:
        """Number the labels; `known` are the class names of a run, which labels must be among.

        Names such as "class 1" of a run that knows none stand for the same number of any names.
        """
        special = BACKGROUND | IGNORED
        own = list(dict.fromkeys(label for label in labels if label.casefold() not in special))
        unnamed = [f"class {k}" for k in range(len(own) + 1)] == list(known)
        self.names = ("background", *own) if unnamed or not known else tuple(known)
        self._ids = {name: number for number, name in enumerate(self.names)}
        unknown = [label for label in own if label not in self._ids]
        if unknown:
            raise DataError(
                f"{where}: the classes {name_some(unknown)} are none of the run's classes "
                f"{', '.join(self.names)}; rename them, or evaluate other data"
            )
        if not own:
            raise DataError(f"{where}: no object of any class; annotate some, then export again")
        if len(self.names) > MOST_CLASSES:
            raise DataError(f"{where}: {len(own)} classes; at most {MOST_CLASSES - 1} are possible")

    def __str__(self) -> str:
        foreground = self.names[1:]
        return f"{counted(len(foreground), 'class')} ({name_some(foreground, most=8)})"

    def id(self, label: str) -> int:
        """Return the class id of a label, 255 where it is ignored."""
        plain = label.casefold()
        return 0 if plain in BACKGROUND else IGNORE if plain in IGNORED else self._ids[label]


@dataclass(frozen=True)
class Drawn:
    """An image and how its label is drawn; paths are relative to the folder."""

    image: str
    file: str
    """The annotation file."""
    draw: Callable[[Size], np.ndarray]
    content: Any
    """All that shapes the label, as JSON takes it."""
    size: Size | None = None
    read: Callable[[], np.ndarray] | None = None
    """Returns the image (H, W, C) where it is inside the annotation file, which `image` names."""


def gather(
    folder: Folder,
    format_name: str,
    drawn: Sequence[Drawn],
    names: Sequence[str],
    warnings: Iterable[str],
    splits: Callable[[str], str | None] | None = None,
) -> Annotations:
    """Make cases of what was found; DataError when an image has two annotations."""
    by_image: dict[str, Drawn] = {}
    for one in drawn:
        other = by_image.setdefault(one.image, one)
        if other is not one:
            files = sorted({one.file, other.file}, key=natural)
            way = f" or choose one by data.annotations={files[0]}" if len(files) > 1 else ""
            raise DataError(
                f"{folder.root}: {one.image} is annotated twice, in {' and in '.join(files)}; keep "
                f"one of them{way}"
            )
    cases = []
    for image, name in case_names(by_image).items():
        one = by_image[image]
        annotation = Annotation(one.draw, digest_of([list(names), one.content]), one.size, one.read)
        masks = (folder.root / one.file,)
        split = splits(image) if splits else split_of(one.file) or split_of(image, name_too=False)
        cases.append(Case(name, folder.root / image, masks, split, annotation=annotation))
    cases.sort(key=lambda case: natural(case.name))
    table = {**{k: k for k in range(len(names))}, IGNORE: IGNORE} if names else {}
    taken, *others = warnings
    layout = Layout(tuple(cases), tuple(others), taken=taken)
    return Annotations(format_name, layout, tuple(names), table)


def left_out(folder: Folder, used: Iterable[str], what: str) -> list[str]:
    """Return the warning that images of the folder are not annotated, if any.

    Files with the name of an annotated image, such as its mask, are not meant.
    """
    stems = {PurePosixPath(image).stem.casefold() for image in used}
    others = [i for i in folder.images if PurePosixPath(i).stem.casefold() not in stems]
    if not others:
        return []
    return [f"{counted(len(others), 'image')} without {what} left out: {name_some(others)}"]


def split_of(file: str, name_too: bool = True) -> str | None:
    """Return the split that a path names: "instances_train2017.json", "valid/a.jpg"."""
    *folders, name = file.casefold().split("/")
    for part in reversed([*folders, name] if name_too else folders):
        if match := _SPLIT.search(part):
            return match.lastgroup
    return None


def digest_of(content: Any) -> str:
    """Return a digest of what JSON can hold."""
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def scale(where: str, own: Size | None, size: Size) -> tuple[float, float]:
    """Return the factors of x and y from the annotated size to that of the image.

    DataError unless the sizes are equal, or the image was scaled as a whole.
    """
    if own is None or own == size:
        return 1.0, 1.0
    (rows, columns), (own_rows, own_columns) = size, own
    if min(own) < 1 or abs(own_columns * rows / own_rows - columns) > 1:
        turned = " (it lies on its side: is the photo turned by its EXIF tag?)" * (
            own == size[::-1]
        )
        raise DataError(
            f"{where}: annotated at {own_rows} x {own_columns} pixels, but the image has {rows} x "
            f"{columns}{turned}; annotate the image that is in the folder"
        )
    return columns / own_columns, rows / own_rows


def points(where: str, values: Any, size: Size) -> np.ndarray:
    """Return the points (N, 2) of x, y in [[x, y], ...] or [x, y, x, y, ...].

    DataError unless they are finite numbers within or near an image of this size.
    """
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf" or array.ndim not in (1, 2) or array.size % 2:
        raise DataError(f"{where}: its points are not pairs of numbers; export it again")
    if array.ndim == 2 and array.shape[1] != 2:
        raise DataError(f"{where}: its points are not pairs of numbers; export it again")
    array = array.reshape(-1, 2).astype(np.float64)
    side = max(size)
    far = ~((array >= -side) & (array <= 2 * side)).all(axis=1)
    if far.any():
        x, y = array[far][0]
        raise DataError(
            f"{where}: the point ({x:g}, {y:g}) lies far outside of the image of {size[0]} x "
            f"{size[1]} pixels; export it again"
        )
    return array


def counted(count: int, thing: str) -> str:
    """Return "1 class" or "3 classes"."""
    end = "es" if thing.endswith("s") else "s"
    return f"{count} {thing}{end if count != 1 else ''}"


def text_of(value: Any) -> str:
    """Return a name in a file as text of one line."""
    return " ".join(str(value).split())[:100]


def size_of(rows: Any, columns: Any) -> Size | None:
    """Return the size that a file gives, or None where it gives none."""
    numbers = (rows, columns)
    if all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return (int(rows), int(columns)) if all(0 < n < 1 << 31 for n in numbers) else None
    return None
