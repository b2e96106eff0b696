"""labelme JSON: the shapes of one image in one file, drawn as labelme itself exports them."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

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
from tinyseg.data.reading.annotation import Size
from tinyseg.data.reading.decode import DAMAGED, FORMATS, PIXEL_LIMIT, plain_type
from tinyseg.data.reading.files import natural
from tinyseg.data.reading.mask_pixels import GRAY_MODES
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

LINE_WIDTH = 10
"""Pixels; what labelme gives to lines."""
POINT_RADIUS = 5
"""Pixels; what labelme gives to points."""
_NEEDED = {
    "circle": 2,
    "rectangle": 2,
    "line": 2,
    "linestrip": 2,
    "point": 1,
    "points": 1,
    "mask": 2,
}
_AREAS = ("polygon", "oriented_rectangle")


def is_labelme(content: Any) -> bool:
    """Return whether the content of a JSON file is a list of labelme's shapes."""
    shapes = content.get("shapes") if isinstance(content, dict) else None
    return isinstance(shapes, list) and all(
        isinstance(shape, dict) and {"label", "points"} <= shape.keys() for shape in shapes
    )


def shorten(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed of a file, without the picture inside it."""
    keys = ("imagePath", "imageHeight", "imageWidth")
    kept = ("label", "points", "shape_type", "mask")
    shapes = [{key: shape[key] for key in kept if key in shape} for shape in content["shapes"]]
    embedded = isinstance(content.get("imageData"), str) and bool(content["imageData"])
    return {**{key: content.get(key) for key in keys}, "shapes": shapes, "embedded": embedded}


def find_labelme(
    folder: Folder, files: Mapping[str, Any], known: Sequence[str]
) -> Annotations | None:
    """Return the images of labelme files: by `imagePath`, from inside, or by the file's name."""
    pairs = {file: _image_of(folder, file, content) for file, content in files.items()}
    if not any(pairs.values()):
        return None
    labels = {text_of(s["label"]) for content in files.values() for s in content["shapes"]}
    classes = Classes(sorted(labels, key=natural), known, folder.root)
    drawn, thin = [], []
    for file, image in pairs.items():
        if image is None:
            continue
        content = files[file]
        size = size_of(content["imageHeight"], content["imageWidth"])
        shapes = [(classes.id(text_of(s["label"])), s) for s in content["shapes"] if _drawable(s)]
        thin += [file] * (len(shapes) < len(content["shapes"]))
        draw = partial(_draw, str(folder.root / file), shapes, size)
        read = partial(_embedded, folder, file) if image == file else None
        drawn.append(Drawn(image, file, draw, [shapes, size], size, read))
    count = sum(len(drawing.content[0]) for drawing in drawn)
    warnings = [
        f"labelme annotations: {counted(len(drawn), 'image')}, {counted(count, 'shape')} of "
        f"{classes}, the later of two shapes on top"
    ]
    absent = [file for file, image in pairs.items() if image is None]
    if absent:
        warnings.append(
            f"{counted(len(absent), 'labelme file')} without image: {name_some(absent)}"
        )
    if thin:
        warnings.append(
            f"shapes of too few points, which enclose nothing, left out in {len(thin)} labelme "
            f"files: {name_some(thin)}"
        )
    warnings += left_out(folder, filter(None, pairs.values()), "labelme file")
    return gather(folder, "labelme", drawn, classes.names, warnings)


def _image_of(folder: Folder, file: str, content: Mapping[str, Any]) -> str | None:
    named = content["imagePath"]
    image = folder.image(named, file) if isinstance(named, str) else None
    if image is None and content["embedded"]:
        return file
    return image or folder.image_of(PurePosixPath(file).stem, file)


def _embedded(folder: Folder, file: str) -> np.ndarray:
    """Return the image (H, W, C) inside a labelme file."""
    try:
        data = base64.b64decode(str(folder.json(file).get("imageData")), validate=True)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ValueError(f"more than {PIXEL_LIMIT} pixels")
            upright = ImageOps.exif_transpose(image)
            gray = upright.mode in GRAY_MODES
            deep = upright.mode in ("I", "F") or upright.mode.startswith("I;16")
            pixels = np.asarray(upright if deep else upright.convert("L" if gray else "RGB"))
            return plain_type(pixels.reshape(upright.height, upright.width, -1))
    except (*DAMAGED, Image.DecompressionBombError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{folder.root / file}: its imageData is damaged ({text})") from None


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")


def _drawable(shape: Mapping[str, Any]) -> bool:
    """Return whether a shape has the points that its type needs; labelme stops at such a one."""
    count = len(shape["points"]) if isinstance(shape["points"], list) else 0
    return count >= (3 if _kind(shape) in _AREAS else _NEEDED.get(_kind(shape), 0))


def _draw(
    where: str, shapes: Sequence[tuple[int, Any]], own: Size | None, size: Size
) -> np.ndarray:
    x, y = scale(where, own, size)
    label = np.zeros(size, np.uint8)
    for number, (class_id, shape) in enumerate(shapes):
        name = f"{where}: shape {number + 1} ({text_of(shape['label'])})"
        xy = points(name, shape["points"], own or size) * (x, y)
        if _kind(shape) == "mask":
            _paint_mask(name, shape, xy, label, class_id)
        else:
            label[_shape_mask(name, _kind(shape), xy, size)] = class_id
    return label


def _shape_mask(where: str, kind: str, xy: np.ndarray, size: Size) -> np.ndarray:
    """Draw like `labelme.utils.shape_to_mask`: outlines belong to the shape."""
    mask = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(mask)
    corners = [(float(x), float(y)) for x, y in xy]
    if kind in _AREAS:
        draw.polygon(corners, outline=1, fill=1)
    elif kind == "rectangle":
        (left, top), (right, bottom) = xy.min(axis=0), xy.max(axis=0)
        draw.rectangle([left, top, right, bottom], outline=1, fill=1)
    elif kind == "circle":
        radius = math.dist(corners[0], corners[1])
        draw.ellipse(_around(corners[0], radius), outline=1, fill=1)
    elif kind in ("line", "linestrip"):
        draw.line(corners, fill=1, width=LINE_WIDTH)
    elif kind in ("point", "points"):
        for corner in corners:
            draw.ellipse(_around(corner, POINT_RADIUS), outline=1, fill=1)
    else:
        raise DataError(
            f"{where}: the shape type {kind[:40]!r} is not known; draw it as a polygon in labelme"
        )
    return np.asarray(mask)


def _around(center: tuple[float, float], radius: float) -> list[float]:
    x, y = center
    return [x - radius, y - radius, x + radius, y + radius]


def _paint_mask(
    where: str, shape: Mapping[str, Any], xy: np.ndarray, label: np.ndarray, class_id: int
) -> None:
    """Paint the PNG inside a shape between its two corners."""
    (left, top), (right, bottom) = (np.trunc(corner).astype(int).tolist() for corner in xy[:2])
    try:
        data = base64.b64decode(str(shape.get("mask")), validate=True)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (right - left + 1, bottom - top + 1):
                raise ValueError(f"its mask of {image.size} does not fill its rectangle")
            mask = np.asarray(image.convert("L")) > 0
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: its mask cannot be read ({error}); export it again") from None
    if min(left, top) < 0 or right >= label.shape[1] or bottom >= label.shape[0]:
        raise DataError(f"{where}: its mask reaches out of the image; export it again")
    label[top : bottom + 1, left : right + 1][mask] = class_id
