"""Which layout a folder has: the best pairing of its groups, if no other one fits as well."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinyseg.data.reading.case import Match
from tinyseg.data.reading.files import natural
from tinyseg.data.reading.groups import LABEL_WORDS, OTHER_WORDS, Group, Member, find_groups
from tinyseg.data.reading.look import Look
from tinyseg.data.reading.look import look as look_at
from tinyseg.data.reading.pairs import CLOSE, Pairing, common_ends, find_pairings, mask_overlap
from tinyseg.data.reading.templates import texts_of
from tinyseg.data.sample import name_some

_RATER = re.compile(
    r"(?i)\d|1st|2nd|first|second|rater|observer|expert|annotator|manual|reader|grader"
)
SAME_OBJECTS, OTHER_OBJECTS = 0.3, 0.05
"""Overlap (IoU) of two masks of an image: above, of the same objects; below, of different ones."""


@dataclass(frozen=True)
class Inference:
    """What was found in a folder."""

    root: Path
    groups: Sequence[Group]
    candidates: Sequence[Pairing]
    """The best first."""
    taken: Pairing | None = None
    classes: Sequence[Pairing] = ()
    """Pairings that are a class each: masks/cell/ and masks/nucleus/; the taken one among them."""
    notes: tuple[str, ...] = ()
    """What else is there."""
    refusal: str = ""
    """Why none is taken."""

    def option(self, pairing: Pairing) -> str:
        """Return the settings that take a pairing, with its classes if it is the taken one."""
        images, masks = texts_of(pairing)
        if pairing is self.taken and self.classes:
            texts = [texts_of(one)[1] for one in self.classes]
            start, end = common_ends(texts)
            masks = f"{masks[:start]}{{class}}{masks[len(masks) - end :]}"
        elif words := words_that_go_on(pairing):
            image, mask = next((i, m) for i, m in pairing.pairs if m in words)
            rest = pairing.masks.members[mask].middle[len(pairing.images.members[image].middle) :]
            rest = rest.replace(words[mask], "{class}")
            masks = masks.replace("{name}*", "{name}" + re.sub(r"\d+$", "{object}", rest))
        return f'data.images="{images}" data.masks="{masks}"'

    def matches(self) -> list[Match]:
        """Return the images of the taken layout with their masks."""
        assert self.taken is not None
        members = self.taken.images.members
        masks: list[list[tuple[Path, str]]] = [[] for _ in members]
        names = class_names(self.classes) if self.classes else [""]
        for name, part in zip(names, self.classes or [self.taken], strict=True):
            words = words_that_go_on(part)
            for image, mask in part.pairs:
                masks[image].append((part.masks.members[mask].path, words.get(mask, name)))
        return [
            Match(member.path, member.split, tuple(its))
            for member, its in zip(members, masks, strict=True)
        ]

    def orphans(self) -> list[str]:
        """Return the masks of the taken layout that have no image."""
        parts = self.classes or ([self.taken] if self.taken else [])
        return [member.relative for part in parts for member in part.orphans]


def infer(root: Path, paths: Sequence[Path]) -> Inference:
    """Look at the names, and at some of the files, below `root`; nothing is raised."""
    looks: dict[Path, Look | None] = {}

    def look(path: Path) -> Look | None:
        if path not in looks:
            looks[path] = look_at(path)
        return looks[path]

    groups = find_groups(root, paths, look)
    found = Inference(root, groups, find_pairings(groups))
    return _choose(found, lambda member: look(member.path)) if found.candidates else found


def _choose(found: Inference, look: Callable[[Member], Look | None]) -> Inference:
    """Take the best candidate, with the classes beside it, or say what speaks against it."""
    best, *others = found.candidates
    same_images = [other for other in others if other.images is best.images]
    overlaps = [mask_overlap(best, other, look) for other in same_images]
    classes, notes = [best], list[str]()
    for other, overlap in zip(same_images, overlaps, strict=True):
        if overlap is not None and overlap <= OTHER_OBJECTS and class_names([*classes, other]):
            classes.append(other)
        elif overlap is not None and overlap >= SAME_OBJECTS and _are_raters(best, other):
            notes.append(f"masks of another rater: {found.option(other)}")
        elif _completes(best, other):
            return replace(found, refusal=_several_datasets(found, best, other))
        elif _close(best, other):
            return replace(found, refusal=_as_well(found, best, other))
    for other in others:
        apart = other.images is not best.images and other.masks is not best.masks
        if other.images is not best.images and _close(best, other, 0.25 if apart else CLOSE):
            return replace(found, refusal=_as_well(found, best, other))
    if len(classes) > 1:
        names = class_names(classes)
        classes = [
            one for _, one in sorted(zip(names, classes, strict=True), key=lambda x: natural(x[0]))
        ]
        return replace(found, taken=best, classes=classes, notes=tuple(notes))
    raters = [best, *(other for other in same_images if _are_raters(best, other))]
    first = min(raters, key=lambda one: natural(texts_of(one)[1]))
    return replace(found, taken=first, notes=tuple(notes))


def _close(best: Pairing, other: Pairing, distance: float = CLOSE) -> bool:
    return best.score - other.score < distance


def _are_raters(one: Pairing, other: Pairing) -> bool:
    """Whether the names of two groups of masks differ in a rater only: _1stHO and _2ndHO."""
    words = " ".join(differing(one, other))
    return bool(_RATER.search(words)) and _close(one, other)


def _completes(best: Pairing, other: Pairing) -> bool:
    """Whether other masks belong to the images that the best ones leave over."""
    bare = set(range(len(best.images))) - best.paired
    return len(other.paired & bare) > max(1, len(other.paired) / 2)


def differing(one: Pairing, other: Pairing) -> list[str]:
    """Return the part in which the names of two groups of masks differ; [] if in several."""
    first, second = ([*p.masks.folders, p.masks.prefix, p.masks.suffix] for p in (one, other))
    if len(first) != len(second):
        return []
    differ = [(a or "", b or "") for a, b in zip(first, second, strict=True) if a != b]
    if len(differ) != 1:
        return []
    start, end = common_ends(differ[0])
    return [text[start : len(text) - end].strip(" _.-") for text in differ[0]]


def class_names(pairings: Sequence[Pairing]) -> list[str]:
    """Return the class of each group of two-valued masks, by the one part of their names that
    differs; [] if these are no classes."""
    names = [differing(pairings[0], other) for other in pairings[1:]]
    binary = all(look.values <= 2 for one in pairings for look in one.masks.looks)
    other = any(OTHER_WORDS.search(one.masks.words(one.images)) for one in pairings)
    if not binary or other or not all(names) or len({name[0] for name in names}) > 1:
        return []
    return [names[0][0], *(name[1] for name in names)]


def _as_well(found: Inference, best: Pairing, other: Pairing) -> str:
    return (
        f"{found.root}: two layouts fit about equally: {found.option(best)} ({len(best.paired)} "
        f"pairs), or {found.option(other)} ({len(other.paired)} pairs); choose one with --set, or "
        "give a folder that has one of them"
    )


def _several_datasets(found: Inference, best: Pairing, other: Pairing) -> str:
    members = best.images.members
    folders = dict.fromkeys(str(Path(m.relative).parent) for m in members)
    return (
        f"{found.root}: several datasets, in {name_some(folders, 8)}: {found.option(best)} "
        f"({len(best.paired)} pairs), {found.option(other)} ({len(other.paired)} pairs); give the "
        "folder of one of them, or choose with --set"
    )


def words_that_go_on(pairing: Pairing) -> dict[int, str]:
    """Return the class of each mask whose name goes on with it: square of 1000_square_0; {} if the
    words are no classes."""
    if pairing.way != "mask goes on" or any(look.values > 2 for look in pairing.masks.looks):
        return {}
    words = {}
    for image, mask in pairing.pairs:
        name, begin = (
            g.members[n].middle for g, n in ((pairing.masks, mask), (pairing.images, image))
        )
        rest = re.sub(r"[\d _.-]+", " ", name[len(begin) :]).strip()
        words[mask] = "" if LABEL_WORDS.fullmatch(rest) else rest
    return words if all(words.values()) and len(set(words.values())) <= 32 else {}
