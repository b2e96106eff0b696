"""COCO JSON: polygons and run lengths of all images in one file (cocodataset.org/#format-data)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.annotations.folder import Folder
from tinyseg.data.annotations.found import (
    Annotations,
    Classes,
    Drawn,
    counted,
    gather,
    left_out,
    points,
    scale,
    size_of,
    text_of,
)
from tinyseg.data.annotations.raster import Region, decode_runs, fill_polygons
from tinyseg.data.reading.annotation import Size
from tinyseg.data.reading.decode import PIXEL_LIMIT
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

Table = Mapping[str, Any]


def is_coco(content: Any) -> bool:
    """Return whether the content of a JSON file lists images with segmentations."""
    if not isinstance(content, dict):
        return False
    images, objects = content.get("images"), content.get("annotations")
    if not (isinstance(images, list) and isinstance(objects, list)):
        return False
    return any(isinstance(one, dict) and one.get("segmentation") for one in objects)


def find_coco(folder: Folder, files: Mapping[str, Any], known: Sequence[str]) -> Annotations | None:
    """Return the images of COCO files by name; those without an object are background."""
    if not files:
        return None
    by_file = {file: _Coco(folder, file, content) for file, content in files.items()}
    labels = [label for one in by_file.values() for label in one.used]
    classes = Classes(labels, known, folder.root / next(iter(files)))
    drawn = [entry for one in by_file.values() for entry in one.drawn(classes)]
    absent = [name for one in by_file.values() for name in one.absent]
    if not drawn:
        raise DataError(
            f"{folder.root / next(iter(files))}: none of its {len(absent)} images is in the folder "
            f"({name_some(absent)}); put them next to it, or below {folder.root}"
        )
    warnings = [_describe(by_file, drawn, classes)]
    if absent:
        warnings.append(
            f"{counted(len(absent), 'image')} of COCO not in the folder: {name_some(absent)}"
        )
    warnings += left_out(folder, (entry.image for entry in drawn), "annotation")
    warnings += [text for one in by_file.values() for text in one.warnings]
    return gather(folder, "coco", drawn, classes.names, warnings)


class _Coco:
    """One COCO file: categories by id, images by id, and the objects of each image."""

    def __init__(self, folder: Folder, file: str, content: Table) -> None:
        self.folder, self.file = folder, file
        self.where = str(folder.root / file)
        self._categories = self._read_categories(content)
        self._images = self._by_id(content["images"], "images")
        self.objects: dict[Any, list[Table]] = {key: [] for key in self._images}
        self.absent: list[str] = []
        self.warnings: list[str] = []
        self.crowds = 0
        self._read_objects(content["annotations"])
        counts = Counter(one["label"] for objects in self.objects.values() for one in objects)
        self.used = [label for label in self._categories.values() if counts[label]]

    def _by_id(self, entries: Sequence[Any], what: str) -> dict[Any, Table]:
        table: dict[Any, Table] = {}
        for entry in entries:
            key = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(key, int | str):
                raise DataError(f"{self.where}: {what} need an id each; export it again")
            if key in table:
                raise DataError(f"{self.where}: {what} have the id {key!r} twice; export it again")
            table[key] = entry
        return table

    def _read_categories(self, content: Table) -> dict[Any, str]:
        entries = content.get("categories")
        table = self._by_id(entries if isinstance(entries, list) else [], "categories")
        return {key: text_of(table[key].get("name", key)) for key in sorted(table, key=_by_number)}

    def _read_objects(self, entries: Sequence[Any]) -> None:
        lost, empty = 0, 0
        for entry in entries:
            if not isinstance(entry, dict):
                raise DataError(f"{self.where}: annotations need to be objects; export it again")
            image, category = entry.get("image_id"), entry.get("category_id")
            known = isinstance(image, int | str) and image in self.objects
            if not isinstance(category, int | str) or category not in self._categories:
                raise DataError(
                    f"{self.where}: the annotation {entry.get('id')!r} has the category "
                    f"{category!r}, which is not listed; export it again"
                )
            segmentation = entry.get("segmentation")
            if not known or not segmentation:
                lost, empty = lost + (not known), empty + (not segmentation)
                continue
            crowd = bool(entry.get("iscrowd"))
            self.crowds += crowd
            label = self._categories[category]
            self.objects[image].append({"label": label, "crowd": crowd, "of": segmentation})
        if lost:
            self.warnings.append(
                f"{self.file}: {counted(lost, 'object')} of images that it does not list left out"
            )
        if empty:
            self.warnings.append(
                f"{self.file}: {counted(empty, 'object')} without an outline left out"
            )

    def drawn(self, classes: Classes) -> list[Drawn]:
        """Return the images that are in the folder."""
        found = []
        for key, entry in self._images.items():
            name = str(entry.get("file_name") or entry.get("path") or key)
            image = self.folder.image(name, self.file)
            if image is None:
                self.absent.append(name)
                continue
            size = size_of(entry.get("height"), entry.get("width"))
            # a crowd lies below the objects that stand out of it
            objects = sorted(self.objects[key], key=lambda one: not one["crowd"])
            painted = [
                (IGNORE if one["crowd"] else classes.id(one["label"]), one["of"]) for one in objects
            ]
            draw = partial(_draw, f"{self.where}: {name}", painted, size)
            found.append(Drawn(image, self.file, draw, [painted, size], size))
        return found


def _by_number(key: Any) -> tuple[bool, Any]:
    return isinstance(key, str), key


def _describe(files: Mapping[str, _Coco], drawn: Sequence[Drawn], classes: Classes) -> str:
    count = sum(len(objects) for one in files.values() for objects in one.objects.values())
    bare = sum(not drawing.content[0] for drawing in drawn)
    text = f"COCO annotations {name_some(files)}: {counted(len(drawn), 'image')}, "
    text += f"{counted(count, 'object')} of {classes}, the later of two objects on top"
    crowds = sum(one.crowds for one in files.values())
    text += f"; {counted(crowds, 'crowd')} ignored" * bool(crowds)
    return text + f"; {counted(bare, 'image')} without objects: background" * bool(bare)


def _draw(
    where: str, objects: Sequence[tuple[int, Any]], own: Size | None, size: Size
) -> np.ndarray:
    factors = scale(where, own, size)
    label = np.zeros(size, np.uint8)
    for number, (class_id, segmentation) in enumerate(objects):
        try:
            region = _region(f"{where}, object {number + 1}", segmentation, own, size, factors)
        except ValueError as error:
            raise DataError(f"{where}, object {number + 1}: {error}; export it again") from None
        region.paint(label, class_id)
    return label


def _region(
    where: str, segmentation: Any, own: Size | None, size: Size, factors: tuple[float, float]
) -> Region:
    if isinstance(segmentation, dict):
        return Region(0, 0, _resized(_runs(segmentation, own or size), size))
    if not isinstance(segmentation, list):
        raise ValueError("its segmentation is neither polygons nor run lengths")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    outlines = [points(where, polygon, own or size) * factors for polygon in polygons]
    mask = np.zeros(size, bool) if len(outlines) > 1 else None
    for outline in outlines:
        if len(outline) < 3:
            raise ValueError(f"a polygon of {len(outline)} points encloses nothing")
        region = fill_polygons([outline], size)
        if mask is None:
            return region
        rows, columns = region.mask.shape
        mask[region.row :, region.column :][:rows, :columns] |= region.mask
    assert mask is not None
    return Region(0, 0, mask)


def _runs(segmentation: Table, own: Size) -> np.ndarray:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and size_of(*size) == own):
        raise ValueError(f"its run lengths are of the size {size!r}, the image's is {list(own)}")
    if own[0] * own[1] > PIXEL_LIMIT:
        raise ValueError(f"its run lengths make more than {PIXEL_LIMIT} pixels")
    if isinstance(counts, list):
        if not all(isinstance(n, int) and n <= PIXEL_LIMIT for n in counts):
            raise ValueError("its run lengths are not whole numbers within the image")
    elif not isinstance(counts, str):
        raise ValueError("its run lengths are neither a list of whole numbers nor a text")
    return decode_runs(counts, own)


def _resized(mask: np.ndarray, size: Size) -> np.ndarray:
    """Scale by the nearest neighbor."""
    if mask.shape == size:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return np.asarray(mask[rows[:, None], columns])
