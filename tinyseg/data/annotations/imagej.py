"""ImageJ and Fiji: selections saved as .roi files or as a RoiSet.zip for each image."""

import re
import struct
import zipfile
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
    points,
)
from tinyseg.data.annotations.imagej_file import ROI_LIMIT, Roi, parse_roi
from tinyseg.data.annotations.raster import fill_polygons
from tinyseg.data.reading.annotation import Size
from tinyseg.data.reading.decode import DAMAGED
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

ZIP_LIMIT = 1 << 28
"""Largest RoiSet, in bytes, when it is unpacked."""
MOST_ROIS = 200_000
_SET = re.compile(r"[ _.-]*(?:roi[ _-]*sets?|rois?)[ _.-]*", re.IGNORECASE)
_NUMBER = re.compile(r"(?:[ _-]+\d+)+$")
_BAD = (*DAMAGED, zipfile.BadZipFile)


def find_imagej(folder: Folder, known: Sequence[str]) -> Annotations | None:
    """Return the images with selections: by their name, or by being alone in the folder."""
    rois: dict[str, list[Roi]] = {}
    files: dict[str, str] = {}
    flat, absent = 0, []
    for file in folder.ending(".roi", ".zip"):
        contents = _contents(folder, file)
        if not contents:
            continue
        image = _image_of(folder, file)
        if image is None:
            absent.append(file)
            continue
        areas = [_parse(folder, file, name, data) for name, data in contents]
        flat += sum(area is None for area in areas)
        files.setdefault(image, file)
        rois.setdefault(image, []).extend(area for area in areas if area)
    if absent and not rois:
        raise DataError(
            f"{folder.root / absent[0]}: no image is called like it; name it NAME.roi or "
            "NAME_RoiSet.zip for the image NAME"
        )
    if not rois:
        return None
    groups = sorted({roi.group for areas in rois.values() for roi in areas})
    names = {group: f"group {group}" if group else "object" for group in groups}
    classes = Classes(names.values(), known, folder.root)
    drawn = [_drawn(folder, image, files[image], rois[image], classes) for image in rois]
    count = sum(map(len, rois.values()))
    text = f"ImageJ selections: {counted(len(drawn), 'image')}, {counted(count, 'area')} of "
    warnings = [f"{text}{classes}, the later of two areas on top"]
    if flat:
        warnings.append(f"{counted(flat, 'selection')} without an area left out (lines, points)")
    if absent:
        warnings.append(f"selections without image left out: {name_some(absent)}")
    warnings += left_out(folder, rois, "selections")
    return gather(folder, "imagej", drawn, classes.names, warnings)


def _drawn(folder: Folder, image: str, file: str, rois: Sequence[Roi], classes: Classes) -> Drawn:
    areas = [
        (classes.id(f"group {roi.group}" if roi.group else "object"), roi.oval, roi.outlines)
        for roi in rois
    ]
    plain = [[k, oval, [xy.tolist() for xy in outlines]] for k, oval, outlines in areas]
    return Drawn(image, file, partial(_draw, str(folder.root / file), areas), plain)


def _contents(folder: Folder, file: str) -> list[tuple[str, bytes]]:
    """Return the selections in a file by name; none for an archive of other things."""
    if file.casefold().endswith(".roi"):
        return [(file, folder.bytes(file, ROI_LIMIT))]
    try:
        with zipfile.ZipFile(folder.root / file) as archive:
            entries = [e for e in archive.infolist() if e.filename.casefold().endswith(".roi")]
            if len(entries) > MOST_ROIS or sum(e.file_size for e in entries) > ZIP_LIMIT:
                raise ValueError("it holds too much for selections")
            return [(entry.filename, _unpack(archive, entry)) for entry in entries]
    except _BAD as error:
        if "roi" not in file.casefold():
            return []
        raise DataError(
            f"{folder.root / file}: not a set of ImageJ selections ({error}); save it again"
        ) from None


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as packed:
        data = packed.read(ROI_LIMIT + 1)
    if len(data) > ROI_LIMIT:
        raise ValueError(f"{entry.filename} is too large for a selection")
    return data


def _parse(folder: Folder, file: str, name: str, data: bytes) -> Roi | None:
    try:
        return parse_roi(data)
    except (ValueError, struct.error, OverflowError) as error:
        inside = f", {name}" if name != file else ""
        raise DataError(f"{folder.root / file}{inside}: {error}; save it again") from None


def _image_of(folder: Folder, file: str) -> str | None:
    """Return the image NAME of NAME.roi, NAME_RoiSet.zip, NAME-1.roi, or NAME/anything.roi."""
    path = PurePosixPath(file)
    stem = _SET.sub("", path.stem)
    inner = PurePosixPath(stem).stem  # of "a.tif.zip"
    for name in (path.stem, stem, inner, _NUMBER.sub("", stem), _SET.sub("", path.parent.name)):
        if name and (image := folder.image_of(name, file)):
            return image
    home = str(path.parent)
    near = [image for image in folder.images if str(PurePosixPath(image).parent) == home]
    return near[0] if len(near) == 1 else None


def _draw(
    where: str, areas: Sequence[tuple[int, bool, list[np.ndarray]]], size: Size
) -> np.ndarray:
    label = np.zeros(size, np.uint8)
    for number, (class_id, oval, outlines) in enumerate(areas):
        name = f"{where}, selection {number + 1}"
        near = [points(name, outline, size) for outline in outlines]
        if oval:
            label[_inside_oval(near[0], size)] = class_id
        elif near:
            try:
                fill_polygons(near, size).paint(label, class_id)
            except ValueError as error:
                raise DataError(f"{name}: {error}; save it again") from None
    return label


def _inside_oval(corners: np.ndarray, size: Size) -> np.ndarray:
    """Return the pixels whose centers lie in the oval between two corners."""
    (left, top), (right, bottom) = corners
    width, height = max(right - left, 1e-9), max(bottom - top, 1e-9)
    rows = ((np.arange(size[0]) + 0.5 - top) / height - 0.5) ** 2
    columns = ((np.arange(size[1]) + 0.5 - left) / width - 0.5) ** 2
    return np.asarray(rows[:, None] + columns <= 0.25)
