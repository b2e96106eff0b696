"""Masks whose values or colors are named in a text file next to them.

labelme's folders (`label_names.txt`: values that mean other classes in each image) and exports of
CVAT and Pascal VOC (`labelmap.txt`: colors of all masks).
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.annotations.folder import Folder
from tinyseg.data.annotations.found import (
    BACKGROUND,
    Annotations,
    Classes,
    Drawn,
    counted,
    gather,
    left_out,
    text_of,
)
from tinyseg.data.reading.annotation import Size
from tinyseg.data.reading.decode import decode_image, decode_mask
from tinyseg.data.reading.files import natural
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

VOC_BORDER = 0xE0E0C0
"""The color around the objects of Pascal VOC, which is ignored."""
MOST_STRAY = 0.001
"""Largest part of a mask's pixels whose colors have no name; more of them are an error."""
_LABELMAP_LINE = re.compile(r"(.+?):(\d{1,3}),(\d{1,3}),(\d{1,3}):.*")


def find_labelme_folders(folder: Folder, known: Sequence[str]) -> Annotations | None:
    """Return NAME_json/img.png, whose label.png counts the lines of label_names.txt."""
    listings = {}
    for file in folder.files:
        home, _, name = file.rpartition("/")
        if name == "label_names.txt" and {f"{home}/img.png", f"{home}/label.png"} <= folder.known:
            lines = folder.text(file).splitlines()
            listings[home] = [text_of(line) for line in lines if line.strip()]
    if not listings:
        return None
    names = {name for listing in listings.values() for name in listing}
    classes = Classes(sorted(names, key=natural), known, folder.root)
    drawn = []
    for home, listing in listings.items():
        table = [classes.id(name) for name in listing]
        draw = partial(_by_value, folder.root / home / "label.png", table)
        drawn.append(Drawn(f"{home}/img.png", f"{home}/label.png", draw, table))
    text = f"folders of labelme: {counted(len(drawn), 'image')} with label.png, whose values mean "
    text += f"what label_names.txt of the image says: {classes}"
    return gather(folder, "labelme_folders", drawn, classes.names, [text])


def _by_value(path: Path, table: Sequence[int], size: Size) -> np.ndarray:
    values = decode_mask(path).pixels
    if int(values.max()) >= len(table):
        raise DataError(
            f"{path}: has the value {values.max()}, but label_names.txt has {len(table)} lines; "
            "export both again"
        )
    ids = np.array(table, np.uint8)
    return np.asarray(ids[values])


def find_voc(folder: Folder, known: Sequence[str]) -> Annotations | None:
    """Return JPEGImages/NAME with SegmentationClass/NAME.png, whose colors labelmap.txt names."""
    maps = [file for file in folder.ending(".txt") if file.casefold().endswith("labelmap.txt")]
    tables = {file: table for file in maps if (table := _read_labelmap(folder, file))}
    images = folder.images if tables else []
    masks = {file: "/".join(file.split("/")[:-2]) for file in images if _is_class(file)}
    if not masks:
        return None
    colors: dict[str, int] = {}
    for file, table in tables.items():
        for name, color in table.items():
            if colors.setdefault(name, color) != color:
                raise DataError(
                    f"{folder.root / file}: {name} has another color than in "
                    f"{next(iter(tables))}; open the two exports one by one"
                )
    # those that a run does not know may be listed, as long as no pixel has their color
    both = {name: color for name, color in colors.items() if name in known}
    colors = both if both.keys() - BACKGROUND else colors
    classes = Classes(colors, known, folder.root / next(iter(tables)))
    ids = {color: classes.id(name) for name, color in colors.items()}
    ids = {VOC_BORDER: IGNORE, **({} if BACKGROUND & {*colors} else {0: 0}), **ids}
    splits = _image_sets(folder)
    drawn, split_by_image, bare = [], {}, []
    for mask, home in masks.items():
        stem = PurePosixPath(mask).stem
        image = folder.image_of(stem, f"{home}/JPEGImages/".lstrip("/"))
        if image is None or _is_class(image):
            bare.append(mask)
            continue
        split_by_image[image] = splits.get((home, stem))
        draw = partial(_by_color, folder.root / mask, ids, next(iter(tables)))
        drawn.append(Drawn(image, mask, draw, sorted(ids.items())))
    warnings = [
        f"Pascal VOC or CVAT: {counted(len(drawn), 'image')} with SegmentationClass, whose colors "
        f"{name_some(tables)} names: {classes}"
    ]
    if bare:
        warnings.append(f"{counted(len(bare), 'mask')} without image left out: {name_some(bare)}")
    warnings += left_out(folder, (one.image for one in drawn), "mask")
    return gather(folder, "voc", drawn, classes.names, warnings, split_by_image.get)


def _is_class(file: str) -> bool:
    return file.split("/")[-2:-1] == ["SegmentationClass"]


def _read_labelmap(folder: Folder, file: str) -> dict[str, int]:
    """Return the color 0xRRGGBB of each class in lines such as "cat:48,112,32::"."""
    table = {}
    for line in folder.text(file).splitlines():
        match = _LABELMAP_LINE.fullmatch(line.strip())
        if match and not line.startswith("#"):
            red, green, blue = (min(int(text), 255) for text in match.groups()[1:])
            table[text_of(match[1])] = red << 16 | green << 8 | blue
    return table


def _image_sets(folder: Folder) -> dict[tuple[str, str], str | None]:
    """Return the split of each (folder, stem) in ImageSets/Segmentation; none if in several."""
    found: dict[tuple[str, str], str | None] = {}
    for file in folder.ending(".txt"):
        *home, sets, kind, name = ["", "", *file.split("/")][-max(3, len(file.split("/"))) :]
        split = PurePosixPath(name).stem
        if (sets, kind) == ("ImageSets", "Segmentation") and split in ("train", "val", "test"):
            for stem in folder.text(file).split():
                key = ("/".join(home), PurePosixPath(stem).name)
                found[key] = None if key in found else split
    return found


def _by_color(path: Path, ids: dict[int, int], listing: str, size: Size) -> np.ndarray:
    rgb = decode_image(path).pixels
    if rgb.dtype != np.uint8:
        raise DataError(f"{path}: has more than 8 bits per color; export it again")
    red, green, blue = (rgb[..., c].astype(np.int32) for c in (0, rgb.shape[2] // 2, -1))
    colors, places = np.unique(red << 16 | green << 8 | blue, return_inverse=True)
    areas = np.bincount(places.ravel())
    stray = [i for i, color in enumerate(colors.tolist()) if color not in ids]
    if areas[stray].sum() > MOST_STRAY * places.size:
        named = name_some(f"#{colors[i]:06x}" for i in stray)
        raise DataError(
            f"{path}: {areas[stray].sum() / places.size:.1%} of its pixels have colors of no class "
            f"({named}); name them in {listing}, and use masks saved as PNG with the run's classes"
        )
    table = np.array([ids.get(color, IGNORE) for color in colors.tolist()], np.uint8)
    return table[places].reshape(rgb.shape[:2])
