"""NumPy arrays as images and labels: pairs of .npy files, stacks of images, and .npz files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from tinyseg.data.annotations.folder import Folder, case_names
from tinyseg.data.annotations.found import Annotations, counted, digest_of, split_of
from tinyseg.data.annotations.numpy_file import Stored, list_arrays
from tinyseg.data.reading.annotation import Annotation, Size
from tinyseg.data.reading.case import Case, Layout
from tinyseg.data.reading.decode import PIXEL_LIMIT, plain_type
from tinyseg.data.reading.files import natural
from tinyseg.data.reading.mask_pixels import whole_numbers
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

_IMAGES = {"image", "images", "img", "imgs", "x", "data", "input", "inputs", "raw", "im"}
_LABELS = {
    *("label", "labels", "mask", "masks", "seg", "segs", "segmentation", "segmentations", "gt"),
    *("y", "target", "targets", "annotation", "annotations", "truth", "groundtruth", "msk"),
}
_WORD = re.compile(r"[a-z]+|\d+")


@dataclass(frozen=True)
class _Pair:
    name: str
    image: Stored | Path
    label: Stored


def find_numpy(folder: Folder, known: Sequence[str]) -> Annotations | None:
    """Return arrays called like images and labels; their values mean what those of masks do."""
    stored = [one for file in folder.ending(".npy", ".npz") for one in _list(folder, file)]
    pairs = list(_pairs(folder, stored))
    cases = [case for pair in pairs for case in _cases(folder, pair)]
    if not cases:
        _refuse(folder, stored)
        return None
    cases.sort(key=lambda case: natural(case.name))
    used = {id(one) for pair in pairs for one in (pair.image, pair.label)}
    others = [one for one in stored if id(one) not in used]
    first = pairs[0]
    text = (
        f"NumPy: {counted(len(cases), 'image')} in {counted(len(pairs), 'pair')} of arrays, such "
    )
    text += f"as {_short(folder, first.image)} with the label {_short(folder, first.label)}"
    warnings = []
    if others:
        names = name_some(_short(folder, one) for one in others)
        warnings.append(f"{counted(len(others), 'array')} without a partner left out: {names}")
    return Annotations("numpy", Layout(tuple(cases), tuple(warnings), taken=text), (), {})


def _list(folder: Folder, file: str) -> list[Stored]:
    return [one for one in list_arrays(folder.root / file) if one.kind in "buif"]


def _short(folder: Folder, one: Stored | Path) -> str:
    if isinstance(one, Path):
        return one.relative_to(folder.root).as_posix()
    file = one.path.relative_to(folder.root).as_posix()
    return f"{file}[{one.key!r}]" if one.key else file


def _role(text: str) -> tuple[bool | None, tuple[str, ...]]:
    """Return whether a name is that of a label (None: it does not say), and its other words."""
    words = _WORD.findall(text.casefold())
    rest = tuple(word for word in words if word not in _IMAGES | _LABELS)
    if _LABELS.intersection(words):
        return True, rest
    return (False if _IMAGES.intersection(words) else None), rest


def _pairs(folder: Folder, stored: Sequence[Stored]) -> Iterator[_Pair]:
    """Yield images with their labels: the names that are equal but for such words."""
    images: dict[tuple[str, ...], Stored | Path] = {}
    labels: dict[tuple[str, ...], Stored] = {}
    for one in stored:
        name = f"{one.path.relative_to(folder.root).with_suffix('')}/{one.key}"
        is_label, rest = _role(name)
        if is_label and one.key and _role(one.key)[0] is False:
            is_label = False  # masks.npz may hold "image" too
        if is_label:
            labels.setdefault(rest, one)
        else:
            images.setdefault(rest, one)
    for file in folder.images if labels else ():
        is_label, rest = _role(str(PurePosixPath(file).with_suffix("")))
        if not is_label:
            images.setdefault(rest, folder.root / file)
    found = [(images[rest], label) for rest, label in labels.items() if rest in images]
    files = [_short(folder, _file_of(image)) for image, _ in found]
    names = case_names(dict.fromkeys(files))
    for file, (image, label) in zip(files, found, strict=True):
        key = "" if isinstance(image, Path) or files.count(file) == 1 else f"/{image.key}"
        yield _Pair(names[file] + key, image, label)


def _file_of(one: Stored | Path) -> Path:
    return one if isinstance(one, Path) else one.path


def _cases(folder: Folder, pair: _Pair) -> Iterator[Case]:
    """Yield a case for each image of a pair, which may be stacks."""
    image, label = pair.image, pair.label
    path = _file_of(image)
    split = split_of(_short(folder, path)) or split_of(label.key)
    count = None if isinstance(image, Path) else _stack(image, label)
    for index in range(count) if count is not None else (None,):
        name = pair.name if index is None else f"{pair.name}_{index:04}"
        size = None if isinstance(image, Path) else partial(_image, image, label, index)
        key = digest_of([str(image), str(label), index])
        annotation = Annotation(partial(_label, label, index), key, image=size)
        yield Case(name, path, (label.path,), split, annotation=annotation)


def _stack(image: Stored, label: Stored) -> int | None:
    """Return the number of images in a pair of stacks; None for one image."""
    plain = tuple(side for side in label.shape if side != 1)
    if (len(plain) < 3 and image.shape[:1] != label.shape[:1]) or len(label.shape) < 3:
        return None
    same = len(label.shape) == 3 and image.shape[:2] == label.shape[:2]
    if same and label.shape[2] <= min(16, *label.shape[:2]) and len(image.shape) < 4:
        return None  # channels
    if image.shape[0] != label.shape[0]:
        raise DataError(
            f"{label} has the shape {label.shape} and {image} {image.shape}; stacks need one label "
            "for each image"
        )
    return image.shape[0]


def _image(image: Stored, label: Stored, index: int | None) -> np.ndarray:
    """Return an image (H, W, C) as stored; channels may come first."""
    array = image.load(index)
    plane = tuple(s for s in label.shape[index is not None :] if s != 1)
    if array.ndim == 3 and array.shape[:2] != plane and array.shape[1:] == plane:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or not array.size or array.shape[0] * array.shape[1] > PIXEL_LIMIT:
        raise DataError(f"{image}: the shape {array.shape} is not (H, W) or (H, W, channels)")
    if array.dtype.kind in "ui" and not np.can_cast(array.dtype, np.int32):
        small = -(1 << 31) <= int(array.min()) <= int(array.max()) < 1 << 31
        array = array.astype(np.int32 if small else np.float32)
    pixels = plain_type(array)
    if not np.isfinite(pixels).all():
        raise DataError(f"{image}: has values that are NaN or infinite; replace them")
    return pixels


def _label(label: Stored, index: int | None, size: Size) -> np.ndarray:
    """Return the values of a label (H, W)."""
    array = label.load(index)
    flat = array.reshape([side for side in array.shape if side != 1])
    if array.size == size[0] * size[1]:
        flat = array.reshape(size)
    if flat.ndim != 2 or not flat.size:
        raise DataError(
            f"{label}: the shape {array.shape} is not that of a label of {size[0]} x {size[1]} "
            "pixels; one class id a pixel is needed, e.g. numpy.argmax(label, axis=-1)"
        )
    try:
        values, _ = whole_numbers(flat, unsigned=False)
    except ValueError as error:
        raise DataError(f"{label}: {error}") from None
    return values.astype(np.uint8) if values.max() <= 255 else values


def _refuse(folder: Folder, stored: Sequence[Stored]) -> None:
    """Say what is there when a folder holds nothing but arrays."""
    if not stored or folder.images:
        return
    names = name_some((_short(folder, one) for one in stored), most=6)
    raise DataError(
        f"{folder.root}: no pair of image and label among its {len(stored)} arrays ({names}); call "
        "them NAME_image.npy and NAME_mask.npy, or image= and mask= in one .npz file"
    )
