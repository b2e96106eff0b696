"""All layouts that a folder may have, as text for people: `tinyseg data layout`."""

from collections.abc import Iterator
from pathlib import Path

from tinyseg.common.findings import printable
from tinyseg.config import DataConfig
from tinyseg.data.annotations import find_annotations
from tinyseg.data.reading.groups import Group, Member
from tinyseg.data.reading.infer import Inference
from tinyseg.data.reading.layouts import find_layouts
from tinyseg.data.reading.pairs import Pairing
from tinyseg.data.reading.templates import group_text
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

MOST = 6
"""As many candidates are described."""


def describe_layouts(root: Path) -> str:
    """Return the groups of files below a folder, which ones pair, and which pair is taken and why.

    DataError if it is no folder, or has no images.
    """
    found = find_layouts(root)
    files = sum(map(len, found.groups))
    if not files:
        raise DataError(f"{root}: no images found")
    lines = [f"{root}: {files} image files in {len(found.groups)} groups", ""]
    lines += [_group(group) for group in sorted(found.groups, key=len, reverse=True)]
    lines += ["", *_annotations(root), *_candidates(found)]
    return "\n".join(map(printable, lines))


def _group(group: Group) -> str:
    kind = "labels" if group.is_label else "images"
    if not group.looks:
        return f"{len(group):6}  not readable  {group_text(group)}"
    values = max(look.values for look in group.looks)
    few = f", up to {values} values" if group.is_label else ""
    return f"{len(group):6}  look like {kind}{few}  {group_text(group)}"


def _annotations(root: Path) -> Iterator[str]:
    try:
        drawn = find_annotations(root, DataConfig())
    except DataError as error:
        yield f"annotations: {error}"
        return
    if drawn:
        yield f"taken: {drawn.layout.taken}"
        yield "the masks below are used with data.annotations=none"
        yield ""


def _candidates(found: Inference) -> Iterator[str]:
    if found.refusal:
        yield f"none is taken: {found.refusal.removeprefix(f'{found.root}: ')}"
    elif found.taken is None:
        yield "no group of labels pairs with a group of images by content and names"
    for pairing in found.candidates[:MOST]:
        yield ""
        yield from _candidate(found, pairing)
    yield from ["", *found.notes] if found.notes else []


def _candidate(found: Inference, pairing: Pairing) -> Iterator[str]:
    taken = pairing is found.taken
    parts = found.classes if taken and found.classes else [pairing]
    paired = set[int]().union(*(part.paired for part in parts))
    yield f"{'taken' if taken else 'possible'}: --set {found.option(pairing)}"
    yield f"    {len(paired)} of {len(pairing.images)} images have masks; {_WAYS[pairing.way]}"
    members = [m for i, m in enumerate(pairing.images.members) if i not in paired]
    yield from _left("images without a mask", members)
    yield from _left("masks without an image", [m for part in parts for m in part.orphans])


_WAYS = {
    "same": "equal names",
    "trimmed": "equal names, but for what all begin or end with",
    "without zeros": "equal numbers, some with leading zeros",
    "one folder": "all masks of a folder belong to its only image",
    "mask goes on": "names of masks begin with the name of their image",
    "image goes on": "names of images begin with the name of their mask",
}


def _left(what: str, members: list[Member]) -> Iterator[str]:
    if members:
        yield f"    {len(members)} {what}: {name_some(member.relative for member in members)}"
