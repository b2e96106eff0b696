"""Finds images and masks in a folder and pairs them; folder names give role and split."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path

from tinyseg.data.reading.case import Case, Layout
from tinyseg.data.reading.files import SUFFIXES, natural
from tinyseg.data.reading.groups import SPLITS
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

_IMAGE = "images?|imgs?|inputs?|photos?|pictures?|jpegimages|originals?"
_MASK = (
    "masks?|labels?|annots?|annotations?|trimaps?|targets?|gts?|groundtruths?|ground[ _-]truths?"
    "|segs?|segmentations?|segmentationclass|segmaps?"
)
_FOLDER = re.compile(rf"(?P<role>(?P<image>{_IMAGE})|(?P<mask>{_MASK}))?", re.IGNORECASE)
_SPLIT = "|".join(sorted(SPLITS, key=len, reverse=True))
_MASK_STEM = re.compile(rf"(?P<base>.+?)[ _.-]+(?:{_MASK})(?:[ _-]*\d+)?", re.IGNORECASE)
_IMAGE_STEM = re.compile(r"(?P<base>.+?)[ _.-]+(?:image|img)", re.IGNORECASE)
_LAYOUT = "put images in images/ and masks of the same name in masks/, or name masks NAME_mask.png"


@dataclass
class File:
    """A file, and what the names of its folders mean."""

    path: Path
    relative: str
    folders: tuple[str, ...]
    """Those that stand for neither a role nor a split."""
    stem: str
    role: str | None
    """image or mask."""
    split: str | None
    masks: list["File"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of an image: its split and its folders that stand for neither, and its stem."""
        folders = [self.split, *self.folders] if self.split else list(self.folders)
        same = bool(self.folders) and self.folders[-1].casefold() == self.stem.casefold()
        return "/".join(folders if same and self.role else [*folders, self.stem])

    @property
    def place(self) -> tuple[str, ...]:
        return (self.split or "", *(folder.casefold() for folder in self.folders))


def pair_by_names(root: Path, files: Sequence[File], labeled: bool = True) -> Layout:
    """Pair images with their masks by the names of folders and files.

    Rules, in this order. 1. A folder named like images/, masks/, train/, trainannot/ or
    masks_val/ gives role and split; other folders become part of the name. 2. Without a role, a
    stem such as NAME_mask or NAME_mask_1 is a mask of the image NAME in the same folder. 3. A
    mask belongs to the image of the same stem, with or without such an ending. 4. In a folder of
    one case (CASE/images/ with one image, CASE/masks/) all masks belong to that image. DataError
    names images without any mask, and names that appear twice.
    """
    images, masks, warnings = _roles(files, labeled)
    if not images:
        raise DataError(f"{root}: no images found; {_LAYOUT}")
    by_key = _by_key(images, root)
    bare: list[File] = []
    orphans: list[File] = []
    if labeled:
        orphans = _assign(masks, by_key)
        images, more = _labeled_images(images, root)
        warnings += more
        bare = [image for image in images if not image.masks]
        images = [image for image in images if image.masks]
    cases = in_order((_case(image, labeled) for image in images), root)
    unpaired = [tuple(file.relative for file in files) for files in (bare, orphans)]
    return Layout(cases, tuple(warnings), unpaired[0], unpaired[1])


def images_by_names(files: Sequence[File]) -> list[File]:
    """Return the images in natural order; rules 1 and 2 of `pair_by_names` leave out masks."""
    images, _, _ = _roles(files, labeled=False)
    return sorted(images, key=lambda file: natural(file.relative))


def in_order(cases: Iterable[Case], root: Path) -> tuple[Case, ...]:
    """Return cases in natural order; DataError if two have one name."""
    ordered = sorted(cases, key=lambda case: natural(case.name))
    for case, other in pairwise(ordered):
        if case.name == other.name:
            raise _same_name(root, str(case.image), str(other.image))
    return tuple(ordered)


def describe(path: Path, relative: str) -> File:
    """Return a file with what the names of its folders mean."""
    role: str | None = None
    split: str | None = None
    rest = []
    for folder in relative.split("/")[:-1]:
        folder_split, folder_role, plain = folder_meaning(folder)
        role, split = folder_role or role, folder_split or split
        rest += [folder] if plain else []
    return File(path, relative, tuple(rest), path.stem, role, split)


@cache
def folder_meaning(folder: str) -> tuple[str | None, str | None, bool]:
    """Return split, role, and whether it means neither: "trainannot" -> train, mask, False."""
    word, split = folder.casefold(), None
    match = re.fullmatch(rf"(?:({_SPLIT})[ _-]*(.*)|(.*?)[ _-]*({_SPLIT}))", word)
    if match:
        split = SPLITS[match[1] or match[4]]
        word = match[2] if match[1] else match[3]
    role = _FOLDER.fullmatch(word)
    if not role:
        return None, None, True
    return split, "image" if role["image"] else "mask" if role["mask"] else None, False


def _roles(files: Sequence[File], labeled: bool) -> tuple[list[File], list[File], list[str]]:
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


def _by_key(images: list[File], root: Path) -> dict[tuple[object, ...], File]:
    by_key: dict[tuple[object, ...], File] = {}
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


def _assign(masks: list[File], by_key: dict[tuple[object, ...], File]) -> list[File]:
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


def _only_images(images: Iterable[File]) -> dict[tuple[str, ...], File]:
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


def _labeled_images(images: list[File], root: Path) -> tuple[list[File], list[str]]:
    """Leave out the splits in which no image has a mask, such as a challenge's test set."""
    splits = {image.split for image in images}
    bare = {s for s in splits if not any(image.masks for image in images if image.split == s)}
    if bare == splits:
        raise DataError(f"{root}: {len(images)} images but no mask next to them; {_LAYOUT}")
    out = [image for image in images if image.split in bare]
    kept = [image for image in images if image.split not in bare]
    return kept, without_masks([image.relative for image in out])


def without_masks(images: Sequence[str]) -> list[str]:
    """Return the warning that splits without masks are left out, if any are."""
    text = f"{len(images)} images without any mask left out: {name_some(images)}"
    return [text] * bool(images)


def refuse_unpaired(root: Path, bare: Sequence[str], orphans: Sequence[str]) -> None:
    """Raise DataError if images lack a mask, or masks an image."""
    parts = []
    if bare:
        parts.append(f"{len(bare)} images without mask: {name_some(bare)}")
    if orphans:
        parts.append(f"{len(orphans)} masks without image: {name_some(orphans)}")
    if parts:
        raise DataError(
            f"{root}: {'; '.join(parts)}; every image needs a mask of the same name: add or rename "
            "it (all black where there is no object) or move the file away"
        )


def _case(image: File, labeled: bool) -> Case:
    masks = sorted(image.masks, key=lambda mask: natural(mask.relative)) if labeled else []
    if len({mask.path.parent for mask in masks}) > 1:
        raise DataError(
            f"{image.relative}: masks in several folders: {_list(masks)}; keep one of the folders"
        )
    if len(masks) > 1 and len({mask.stem.casefold() for mask in masks}) < len(masks):
        raise DataError(f"{image.relative}: masks of one name: {_list(masks)}; keep one of them")
    return Case(image.name, image.path, tuple(mask.path for mask in masks), image.split)


def _list(files: list[File]) -> str:
    return name_some(file.relative for file in files)
