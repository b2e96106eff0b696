"""Finds images and masks in a folder and pairs them; folder names give role and split."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

from tinyseg.data.reading.annotation import Annotation
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

SUFFIXES = frozenset([
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".pgm",
    ".ppm", ".pbm", ".pnm", ".webp",
])  # fmt: skip
_SPLITS = {
    word: split
    for split, words in {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation"),
        "test": ("test", "testing"),
    }.items()
    for word in words
}
_IMAGE = "images?|imgs?|inputs?|photos?|pictures?|jpegimages|originals?"
_MASK = (
    "masks?|labels?|annots?|annotations?|trimaps?|targets?|gts?|groundtruths?|ground[ _-]truths?"
    "|segs?|segmentations?|segmentationclass|segmaps?"
)
_FOLDER = re.compile(rf"(?P<role>(?P<image>{_IMAGE})|(?P<mask>{_MASK}))?", re.IGNORECASE)
_SPLIT = "|".join(sorted(_SPLITS, key=len, reverse=True))
_MASK_STEM = re.compile(rf"(?P<base>.+?)[ _.-]+(?:{_MASK})(?:[ _-]*\d+)?", re.IGNORECASE)
_IMAGE_STEM = re.compile(r"(?P<base>.+?)[ _.-]+(?:image|img)", re.IGNORECASE)
_HIDDEN = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_LAYOUT = "put images in images/ and masks of the same name in masks/, or name masks NAME_mask.png"


@dataclass(frozen=True)
class Case:
    """The files of one sample."""

    name: str
    image: Path
    masks: tuple[Path, ...] = ()
    split: str | None = None
    labels: Mapping[int, int] | None = None
    """Mask value to class id where this case has its own, as a cat's trimap next to a dog's."""
    page: int | None = None
    """Of a TIFF stack, in the image and in the masks; None reads the first one."""
    annotation: Annotation | None = None
    """Draws the label; then `masks` is the one file that it comes from."""


@dataclass(frozen=True)
class Layout:
    """The cases of a folder in natural order, and warnings about files that are left out."""

    cases: tuple[Case, ...]
    warnings: tuple[str, ...]
    bare: tuple[str, ...] = ()
    """Images without a mask, when pairs were not enforced."""
    orphans: tuple[str, ...] = ()
    """Masks without an image, when pairs were not enforced."""


@dataclass
class _File:
    """A file, and what the names of its folders mean."""

    path: Path
    relative: str
    folders: tuple[str, ...]
    """Those that stand for neither a role nor a split."""
    stem: str
    role: str | None
    """image or mask."""
    split: str | None
    masks: list["_File"] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, ...]:
        return (self.split or "", *(folder.casefold() for folder in self.folders))


def natural(text: str) -> tuple[object, ...]:
    """Return a sort key by which "a2" comes before "a10"; equal only for equal texts."""
    parts = re.split(r"(\d{1,18})", text)
    return ([int(p) if i % 2 else p.casefold() for i, p in enumerate(parts)], text)


def find_cases(root: Path, labeled: bool = True, strict: bool = True) -> Layout:
    """Pair the images below `root` with their masks.

    Rules, in this order. 1. A folder named like images/, masks/, train/, trainannot/ or
    masks_val/ gives role and split; other folders become part of the name. 2. Without a role, a
    stem such as NAME_mask or NAME_mask_1 is a mask of the image NAME in the same folder. 3. A
    mask belongs to the image of the same stem, with or without such an ending. 4. In a folder of
    one case (CASE/images/ with one image, CASE/masks/) all masks belong to that image. DataError
    names images without mask, masks without image (unless `strict` is off: then the layout lists
    them), and names that appear twice.
    """
    files, skipped = _list_files(root)
    images, masks, warnings = _roles(files, labeled)
    if skipped:
        text = f"{len(skipped)} files that are no images left out: {name_some(skipped)}"
        warnings = [text, *warnings]
    if not images:
        raise DataError(f"{root}: no images found; {_LAYOUT}")
    by_key = _by_key(images, root)
    bare: list[_File] = []
    orphans: list[_File] = []
    if labeled:
        orphans = _assign(masks, by_key)
        images, more = _labeled_images(images, root)
        warnings += more
        bare = [image for image in images if not image.masks]
        if strict:
            _check_pairs(bare, orphans, root)
        images = [image for image in images if image.masks]
    cases = sorted((_case(image, labeled) for image in images), key=lambda c: natural(c.name))
    for case, other in pairwise(cases):
        if case.name == other.name:
            raise _same_name(root, str(case.image), str(other.image))
    unpaired = (tuple(file.relative for file in files) for files in (bare, orphans))
    return Layout(tuple(cases), tuple(warnings), *unpaired)


def find_images(root: Path) -> list[Path]:
    """Return the images below `root` in natural order; rules 1 and 2 leave out masks."""
    images, _, _ = _roles(_list_files(root)[0], labeled=False)
    return [file.path for file in sorted(images, key=lambda file: natural(file.relative))]


def _list_files(root: Path) -> tuple[list[_File], list[str]]:
    if not root.exists():
        raise DataError(
            f"{root}: no such folder; give a folder of images, pets:FOLDER, or sim:cells"
        )
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give the folder that holds images and masks")
    files: list[_File] = []
    skipped: list[str] = []
    for path in _walk(root):
        relative = path.relative_to(root).as_posix()
        if path.suffix.casefold() in SUFFIXES:
            files.append(_describe(path, relative))
        else:
            skipped.append(relative)
    return files, skipped


def _walk(root: Path) -> Iterator[Path]:
    """Yield the files below `root` but hidden ones; each folder once, also with looping links."""
    folders, visited = [root], set()
    while folders:
        folder = folders.pop()
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        for path in _entries(folder):
            if path.is_dir():
                folders.append(path)
            else:  # also a pipe or a device named like an image, so that somebody hears of it
                yield path


def _entries(folder: Path) -> list[Path]:
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be listed ({error.strerror}); check its rights"
        ) from None
    paths = [path for path in paths if path.name.casefold() not in _HIDDEN]
    return sorted(paths, key=lambda path: natural(path.name))


def _describe(path: Path, relative: str) -> _File:
    role: str | None = None
    split: str | None = None
    rest = []
    for folder in relative.split("/")[:-1]:
        folder_split, folder_role, plain = folder_meaning(folder)
        role, split = folder_role or role, folder_split or split
        rest += [folder] if plain else []
    return _File(path, relative, tuple(rest), path.stem, role, split)


@cache
def folder_meaning(folder: str) -> tuple[str | None, str | None, bool]:
    """Return split, role, and whether it means neither: "trainannot" -> train, mask, False."""
    word, split = folder.casefold(), None
    match = re.fullmatch(rf"(?:({_SPLIT})[ _-]*(.*)|(.*?)[ _-]*({_SPLIT}))", word)
    if match:
        split = _SPLITS[match[1] or match[4]]
        word = match[2] if match[1] else match[3]
    role = _FOLDER.fullmatch(word)
    if not role:
        return None, None, True
    return split, "image" if role["image"] else "mask" if role["mask"] else None, False


def _roles(files: list[_File], labeled: bool) -> tuple[list[_File], list[_File], list[str]]:
    images = [file for file in files if file.role == "image"]
    masks = [file for file in files if file.role == "mask"]
    unclear = [file for file in files if file.role is None]
    if images and unclear:
        text = f"{len(unclear)} images outside the images folder left out: {_list(unclear)}"
        return images, masks, [text]
    known = {(file.place, file.stem.casefold()) for file in unclear}
    for file in unclear:
        match = _MASK_STEM.fullmatch(file.stem)
        has_image = match and (file.place, match["base"].casefold()) in known
        is_mask = has_image or (match and labeled)
        (masks if is_mask else images).append(file)
    return images, masks, []


def _by_key(images: list[_File], root: Path) -> dict[tuple[object, ...], _File]:
    by_key: dict[tuple[object, ...], _File] = {}
    for image in images:
        key = (image.place, image.stem.casefold())
        if key in by_key:
            raise _same_name(root, by_key[key].relative, image.relative)
        by_key[key] = image
    for image in images:
        if match := _IMAGE_STEM.fullmatch(image.stem):
            by_key.setdefault((image.place, match["base"].casefold()), image)
    return by_key


def _same_name(root: Path, first: str, second: str) -> DataError:
    return DataError(
        f"{root}: two images have one name: {first} and {second}; rename or remove one"
    )


def _assign(masks: list[_File], by_key: dict[tuple[object, ...], _File]) -> list[_File]:
    """Add each mask to its image; return the masks without one."""
    left = []
    for mask in masks:
        image = next(filter(None, (by_key.get((mask.place, s)) for s in _stems(mask.stem))), None)
        if image:
            image.masks.append(mask)
        else:
            left.append(mask)
    alone, loose = _only_images(by_key.values()), {mask.relative for mask in left}
    orphans = []
    for mask in left:
        image = alone.get(mask.place) if mask.role == "mask" else None
        if image and (not image.masks or image.masks[0].relative in loose):
            image.masks.append(mask)
        else:
            orphans.append(mask)
    return orphans


def _stems(stem: str) -> list[str]:
    match = _MASK_STEM.fullmatch(stem)
    inner = Path(stem)
    stems = [stem, *([match["base"]] if match else [])]
    stems += [inner.stem] if inner.suffix.casefold() in SUFFIXES else []
    return [text.casefold() for text in stems]


def _only_images(images: Iterable[_File]) -> dict[tuple[str, ...], _File]:
    """Return the image of each folder (not the root) that holds one only."""
    by_place: dict[tuple[str, ...], set[str]] = {}
    files = {image.relative: image for image in images}
    for image in files.values():
        by_place.setdefault(image.place, set()).add(image.relative)
    return {
        place: files[next(iter(names))]
        for place, names in by_place.items()
        if len(names) == 1 and len(place) > 1
    }


def _labeled_images(images: list[_File], root: Path) -> tuple[list[_File], list[str]]:
    """Leave out the splits in which no image has a mask, such as a challenge's test set."""
    splits = {image.split for image in images}
    bare = {s for s in splits if not any(image.masks for image in images if image.split == s)}
    if bare == splits:
        raise DataError(f"{root}: {len(images)} images but no mask next to them; {_LAYOUT}")
    out = [image for image in images if image.split in bare]
    kept = [image for image in images if image.split not in bare]
    warnings = [f"{len(out)} images without any mask left out: {_list(out)}"] if out else []
    return kept, warnings


def _check_pairs(bare: list[_File], orphans: list[_File], root: Path) -> None:
    parts = []
    if bare:
        parts.append(f"{len(bare)} images without mask: {_list(bare)}")
    if orphans:
        parts.append(f"{len(orphans)} masks without image: {_list(orphans)}")
    if parts:
        raise DataError(
            f"{root}: {'; '.join(parts)}; every image needs a mask of the same name: add or rename "
            "it (all black where there is no object) or move the file away"
        )


def _case(image: _File, labeled: bool) -> Case:
    masks = sorted(image.masks, key=lambda mask: natural(mask.relative)) if labeled else []
    if len({mask.path.parent for mask in masks}) > 1:
        raise DataError(
            f"{image.relative}: masks in several folders: {_list(masks)}; keep one of the folders"
        )
    if len(masks) > 1 and len({mask.stem.casefold() for mask in masks}) < len(masks):
        raise DataError(f"{image.relative}: masks of one name: {_list(masks)}; keep one of them")
    folders = [image.split, *image.folders] if image.split else list(image.folders)
    same = bool(image.folders) and image.folders[-1].casefold() == image.stem.casefold()
    name = "/".join(folders if same and image.role else [*folders, image.stem])
    return Case(name, image.path, tuple(mask.path for mask in masks), image.split)


def _list(files: list[_File]) -> str:
    return name_some(file.relative for file in files)
