"""Which group of files holds the masks of which images: every pair of groups is tried and scored.

The names decide which mask belongs to which image, the content which of the two groups is the
label; words such as "masks" or "preview" in the names only choose between groups that fit alike.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyseg.data.reading.groups import (
    IMAGE_WORDS,
    LABEL_WORDS,
    OTHER_WORDS,
    Group,
    Member,
    is_boundary,
)
from tinyseg.data.reading.look import Look

CLOSE = 0.1
"""Pairings whose scores differ by less fit about equally."""
MOST_GROUPS = 40
"""Only the largest groups are tried."""

Ids = Sequence[str]
Matches = list[tuple[int, int]]
"""Number of the image, number of the mask."""


@dataclass(frozen=True)
class Pairing:
    """Images and their masks, by the groups that they are in."""

    images: Group
    masks: Group
    pairs: Matches
    score: float
    """About 1 where every image has a mask and every mask an image."""
    way: str
    """How their names agree."""

    @property
    def paired(self) -> set[int]:
        """Numbers of the images that have a mask."""
        return {image for image, _ in self.pairs}

    @property
    def bare(self) -> list[Member]:
        """Images without a mask."""
        paired = self.paired
        return [m for i, m in enumerate(self.images.members) if i not in paired]

    @property
    def orphans(self) -> list[Member]:
        """Masks without an image."""
        used = {mask for _, mask in self.pairs}
        return [m for i, m in enumerate(self.masks.members) if i not in used]


def find_pairings(groups: Sequence[Group]) -> list[Pairing]:
    """Return the pairings of groups by names and content, the best first."""
    largest = sorted(groups, key=len, reverse=True)[:MOST_GROUPS]
    pairings = [
        pairing
        for masks in largest
        for images in largest
        if images is not masks and _may_pair(images, masks)
        if (pairing := pair(images, masks))
    ]
    return sorted(pairings, key=lambda pairing: -pairing.score)


def _may_pair(images: Group, masks: Group) -> bool:
    """Whether these may be images and their masks by content or, where it does not tell, names."""
    if not images.looks or not masks.looks:
        return False
    if masks.is_label and not images.is_label:
        return True
    if images.is_label and not masks.is_label:
        return False
    label_words, image_words = masks.words(images), images.words(masks)
    named = LABEL_WORDS.search(label_words) and not LABEL_WORDS.search(image_words)
    return bool(named and IMAGE_WORDS.search(image_words))


def pair(images: Group, masks: Group) -> Pairing | None:
    """Pair the files of two groups in the way that leaves the fewest over; None if most are."""
    best: Pairing | None = None
    for rank, (way, match) in enumerate(_WAYS.items()):
        matches = match(images, masks)
        pairing = Pairing(images, masks, matches, 0.0, way)
        fit = _fit(pairing)
        if fit < (0.5 if rank < 2 else 0.75):
            continue
        score = fit - 0.01 * rank + _by_words(images, masks)
        if best is None or score > best.score:
            best = Pairing(images, masks, matches, score, way)
        if fit == 1:
            break
    return best


def _fit(pairing: Pairing) -> float:
    """Mean of the shares of images and of masks that are paired, in splits that have masks."""
    if not pairing.pairs:
        return 0.0
    members, paired = pairing.images.members, pairing.paired
    splits = {members[image].split for image in paired}
    there = sum(member.split in splits for member in members)
    used = len({mask for _, mask in pairing.pairs})
    return min(1.0, (len(paired) / there + used / len(pairing.masks)) / 2)


def _by_words(images: Group, masks: Group) -> float:
    """What names add: they choose among groups that the content does not tell apart."""
    label_words, image_words = masks.words(images), images.words(masks)
    score = 0.05 * bool(LABEL_WORDS.search(label_words))
    score += 0.12 * bool(IMAGE_WORDS.search(image_words))
    score -= 0.3 * bool(OTHER_WORDS.search(label_words))
    score -= 0.3 * bool(OTHER_WORDS.search(image_words))
    score -= 0.15 * (masks.is_label == images.is_label)
    return score - 0.3 * _all_alike(masks.looks)


def _all_alike(looks: Sequence[Look]) -> bool:
    """Whether all labels show one shape, as a microscope's field of view does."""
    first = looks[0].small
    same = [np.mean(first == look.small) for look in looks[1:]]
    return len(looks) > 2 and min(same) > 0.97 and 0.02 < first.mean() < 0.98


# 1. Ways in which names tell what belongs together


def _same(images: Group, masks: Group) -> Matches:
    return join(*_both_ids(images, masks))


def _trimmed(images: Group, masks: Group) -> Matches:
    """Names without what all names of a group begin and end with: image_7 and mask_7."""
    return join(*_both_trimmed(images, masks))


def _without_zeros(images: Group, masks: Group) -> Matches:
    """As `_trimmed`, with 7 for 007."""
    return join(*map(without_zeros, _both_trimmed(images, masks)))


def _both_trimmed(images: Group, masks: Group) -> tuple[list[str], list[str]]:
    """Return the ids without common ends; none if that hides that they are of two folders."""
    image_ids, mask_ids = _both_ids(images, masks)
    starts = [ids[0][: common_ends(ids)[0]].rpartition("/")[0] for ids in (image_ids, mask_ids)]
    if images.members[0].variables and masks.members[0].variables and starts[0] != starts[1]:
        return [], []
    return _trim(image_ids), _trim(mask_ids)


def without_zeros(ids: Ids) -> list[str]:
    """Return names with 7 for 007."""
    return [re.sub(r"(?<!\d)0+(?=\d)", "", text) for text in ids]


def _mask_goes_on(images: Group, masks: Group) -> Matches:
    """A mask's name begins with its image's: 1000_square_0.png is a mask of 1000.jpg."""
    return begins(*_both_ids(images, masks))


def _image_goes_on(images: Group, masks: Group) -> Matches:
    """An image's name begins with its mask's: case_1.png is the mask of case_1_0000.png."""
    image_ids, mask_ids = _both_ids(images, masks)
    found = [(image, mask) for mask, image in begins(mask_ids, image_ids)]
    return found if len({mask for _, mask in found}) == len(found) else []


def _one_folder(images: Group, masks: Group) -> Matches:
    """All masks of a folder belong to its only image."""
    by_folder: dict[object, list[int]] = defaultdict(list)
    for number, member in enumerate(images.members):
        by_folder[member.split, member.variables].append(number)
    if any(len(numbers) > 1 for numbers in by_folder.values()) or len(by_folder) < 2:
        return []
    return [
        (by_folder[key][0], number)
        for number, member in enumerate(masks.members)
        if (key := (member.split, member.variables)) in by_folder
    ]


_WAYS: dict[str, Callable[[Group, Group], Matches]] = {
    "same": _same,
    "trimmed": _trimmed,
    "without zeros": _without_zeros,
    "one folder": _one_folder,
    "mask goes on": _mask_goes_on,
    "image goes on": _image_goes_on,
}


def _both_ids(images: Group, masks: Group) -> tuple[list[str], list[str]]:
    split = have_splits(images, masks)
    ids = [[id_of(m, split).casefold() for m in group.members] for group in (images, masks)]
    return ids[0], ids[1]


def have_splits(images: Group, masks: Group) -> bool:
    """Whether the folders of both groups stand for parts of the data."""
    return all(any(member.split for member in group.members) for group in (images, masks))


def id_of(member: Member, split: bool) -> str:
    """Return what varies in a path, with "/" between."""
    return "/".join([*([member.split or ""] if split else []), *member.variables, member.middle])


def _trim(ids: Ids) -> list[str]:
    start, end = common_ends(ids)
    return [text[start : len(text) - end] for text in ids]


def common_ends(ids: Ids) -> tuple[int, int]:
    """Return how many characters all begin and end with; no number and no word is cut."""
    if len(ids) < 2:
        return 0, 0
    start = _common_start(ids)
    while start and not all(len(i) > start and is_boundary(i, start) for i in ids):
        start -= 1
    rests = [text[start:] for text in ids]
    end = _common_start([rest[::-1] for rest in rests])
    while end and not all(len(r) > end and is_boundary(r, len(r) - end) for r in rests):
        end -= 1
    return start, end


def _common_start(texts: Ids) -> int:
    first, last = min(texts), max(texts)
    pairs = enumerate(zip(first, last, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(last)))


def join(images: Ids, masks: Ids) -> Matches:
    """Pair equal names; none if two images have one name."""
    numbers = {name: number for number, name in enumerate(images)}
    if len(numbers) < len(images):
        return []
    return [(numbers[name], mask) for mask, name in enumerate(masks) if name in numbers]


def begins(short: Ids, long: Ids) -> Matches:
    """Pair each long name with the longest short one that it begins with, at a word's end."""
    numbers = {name: number for number, name in enumerate(short)}
    if len(numbers) < len(short):
        return []
    found = []
    for which, name in enumerate(long):
        for end in range(len(name), 0, -1):
            if name[:end] in numbers and (end == len(name) or is_boundary(name, end)):
                found.append((numbers[name[:end]], which))
                break
    return found


# 2. Two groups of masks of the same images


def mask_overlap(
    one: Pairing, other: Pairing, look: Callable[[Member], Look | None]
) -> float | None:
    """Return how much the masks of one image cover each other in two pairings (IoU, 3 images).

    None where no image has a mask in both.
    """
    first, second = ({i: p.masks.members[m] for i, m in p.pairs} for p in (one, other))
    common = [i for i in first if i in second][:3]
    both = either = 0
    for i in common:
        seen = look(first[i]), look(second[i])
        if seen[0] and seen[1] and seen[0].small.shape == seen[1].small.shape:
            both += int((seen[0].small & seen[1].small).sum())
            either += int((seen[0].small | seen[1].small).sum())
    return both / either if either else None
