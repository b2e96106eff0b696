"""A layout as a pair of templates: images "data/{name}.jpg", masks "data/{name}_mask*.png".

A template is a path below the folder. {name} is what an image and its mask have in common, {split}
one of train, val and test, {group} a folder that is part of the name (also {group2} ...); masks may
have {class}, a class for each of its values, and {object}, one of several files of an image. *
stands for any text without "/". Upper and lower case are the same.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tinyseg.data.reading.case import Match
from tinyseg.data.reading.groups import SPLITS, Group, split_of
from tinyseg.data.reading.pairs import (
    Matches,
    Pairing,
    begins,
    common_ends,
    have_splits,
    id_of,
    join,
    without_zeros,
)
from tinyseg.errors import DataError

_FIELD = re.compile(r"\{(\w+)\}|(\*)")
_KNOWN = re.compile(r"name|split|class|object|group\d*")
_SHORT = {"tr": "train", "ts": "test", **SPLITS}


@dataclass(frozen=True)
class Template:
    """A template of paths."""

    text: str
    option: str
    """The setting that it comes from, for messages."""

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of its fields, each once."""
        return tuple(dict.fromkeys(name for name, star in _FIELD.findall(self.text) if not star))

    @property
    def goes_on(self) -> bool:
        """Whether the name may go on: "{name}*"."""
        return "{name}*" in self.text

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The template as a regular expression of whole paths; DataError for an unknown field."""
        self._check()
        text = self.text.removeprefix("./").replace("{name}*", "{name}")
        parts, end, seen = [], 0, set[str]()
        for match in _FIELD.finditer(text):
            parts.append(re.escape(text[end : match.start()]))
            around = text[max(0, match.start() - 1) : match.end() + 1]
            parts.append(_field_pattern(match[1] or "", seen, around == f"/{match[0]}/"))
            end = match.end()
        parts.append(re.escape(text[end:]))
        return re.compile("".join(parts), re.IGNORECASE)

    def _check(self) -> None:
        unknown = [name for name in self.fields if not _KNOWN.fullmatch(name)]
        if unknown or not self.text or self.text.startswith("/") or ".." in self.text.split("/"):
            what = f"has the unknown field {{{unknown[0]}}}" if unknown else "is no path below it"
            raise DataError(
                f'{self.option}="{self.text}" {what}; write a path below the folder with '
                '{name}, {split}, {group}, {class}, {object} or *, such as "images/{name}.png"'
            )

    def match(self, relative: str) -> dict[str, str] | None:
        """Return the values of the fields, or None if a path does not fit."""
        found = self.pattern.fullmatch(unicodedata.normalize("NFC", relative))
        return found and found.groupdict()


_PATTERNS = {
    "": "[^/]*?",
    "split": "|".join(sorted(_SHORT, key=len, reverse=True)),
    "object": r"\d+",
    "class in a name": r"[^\W\d_](?:[^\d/]*[^\W\d_])?",
}


def _field_pattern(name: str, seen: set[str], whole: bool) -> str:
    """Return the pattern of a field, of "*" for an empty name; the second time the same text.

    A class without a folder of its own has no digits: they are the number of an object.
    """
    if name in seen:
        return f"(?P={name})"
    if name:
        seen.add(name)
    key = "class in a name" if name == "class" and not whole else name
    pattern = _PATTERNS.get(key, "[^/]+?")
    return f"(?P<{name}>{pattern})" if name else pattern


@dataclass(frozen=True)
class Found:
    """A file that fits a template."""

    path: Path
    relative: str
    fields: Mapping[str, str]

    @property
    def split(self) -> str | None:
        """Its part of the data, if the template or else a folder's name says so."""
        if "split" in self.fields:
            return _SHORT[self.fields["split"].casefold()]
        splits = (split_of(folder)[0] for folder in self.relative.split("/")[:-1])
        return next((split for split in splits if split), None)


def select(
    root: Path, paths: Iterable[Path], images: Template, masks: Template
) -> tuple[list[Match], list[str]]:
    """Return the images that fit the templates with their masks, and masks without an image.

    A file that fits both is a mask. DataError where a template selects nothing, or several images
    have the name of one mask.
    """
    image_files, mask_files = list[Found](), list[Found]()
    for path in paths:
        relative = path.relative_to(root).as_posix()
        if (fields := masks.match(relative)) is not None:
            mask_files.append(Found(path, relative, fields))
        elif (fields := images.match(relative)) is not None:
            image_files.append(Found(path, relative, fields))
    for template, files in ((images, image_files), (masks, mask_files)):
        if not files:
            raise DataError(
                f'{root}: no file fits {template.option}="{template.text}"; '
                f"`tinyseg data layout {root}` lists what is there"
            )
    shared = [name for name in images.fields if name in masks.fields]
    pairs = _pairs(image_files, mask_files, shared, images, masks)
    found: list[list[Found]] = [[] for _ in image_files]
    for image, mask in pairs:
        found[image].append(mask_files[mask])
    used = {mask for _, mask in pairs}
    matches = [
        Match(file.path, file.split, tuple((m.path, m.fields.get("class", "")) for m in its))
        for file, its in zip(image_files, found, strict=True)
    ]
    return matches, [m.relative for i, m in enumerate(mask_files) if i not in used]


def _pairs(
    image_files: Sequence[Found],
    mask_files: Sequence[Found],
    shared: Sequence[str],
    images: Template,
    masks: Template,
) -> Matches:
    ids, mask_ids = (
        ["/".join(file.fields[name] for name in shared).casefold() for file in files]
        for files in (image_files, mask_files)
    )
    if images.goes_on and not masks.goes_on:
        return [(image, mask) for mask, image in begins(mask_ids, ids)]
    _refuse_equal(ids, image_files, shared, images)
    if masks.goes_on:
        return begins(ids, mask_ids)
    return join(ids, mask_ids) or join(without_zeros(ids), without_zeros(mask_ids))


def _refuse_equal(
    ids: Sequence[str], files: Sequence[Found], shared: Sequence[str], template: Template
) -> None:
    first: dict[str, Found] = {}
    for name, file in zip(ids, files, strict=True):
        other = first.setdefault(name, file)
        if other is not file:
            fields = ", ".join(f"{{{field}}}" for field in shared) or "no field"
            raise DataError(
                f"{other.relative} and {file.relative} are alike in what data.images and "
                f'data.masks share ({fields}): {template.option}="{template.text}" needs a further '
                "{name} or {group} in both"
            )


# Templates of groups that were found to be pairs


def texts_of(pairing: Pairing) -> tuple[str, str]:
    """Return the templates of images and masks, which select these pairs."""
    return _text(pairing.images, pairing, 0), _text(pairing.masks, pairing, 1)


def _text(group: Group, pairing: Pairing, side: int) -> str:
    """Return a group's template: its first path with fields in place of what varies."""
    way = pairing.way
    member = group.members[0]
    *folders, name = member.relative.split("/")
    splits = {m.split for m in (*pairing.images.members, *pairing.masks.members)}
    split = have_splits(pairing.images, pairing.masks) and len(splits) > 1
    ids = [id_of(m, split).casefold() for m in group.members]
    start, end = common_ends(ids) if way in ("trimmed", "without zeros") else (0, 0)
    fields = _fields(id_of(member, split), start, end, len(member.variables), ids)
    if way == "one folder" and side:
        fields[-1] = "*"
    if way == ("mask goes on", "image goes on")[1 - side]:
        fields[-1] += "*"
    variables = iter(zip(member.variables, fields, strict=False))
    wanted = next(variables, None)
    several = split or len({m.split for m in group.members}) > 1
    parts = []
    for folder in folders:
        part, rest = split_of(folder)
        text = _with_split(folder, "{split}" if split else "*") if part and several else folder
        if wanted and rest == wanted[0]:
            text = text.replace(rest, wanted[1])
            wanted = next(variables, None)
        parts.append(text)
    return "/".join([*parts, _file_text(group, name, fields[-1])])


def _fields(text: str, start: int, end: int, variables: int, ids: Sequence[str]) -> list[str]:
    """Return a field for each varying folder and the name, with what was cut off around it."""
    parts = text.split("/")
    same = [len(set(column)) == 1 for column in zip(*(i.split("/") for i in ids), strict=True)]
    parts = parts[len(parts) - variables - 1 :]
    offset, result = len(text) - len("/".join(parts)), []
    for part, fixed in zip(parts, [*same[len(same) - len(parts) : -1], False], strict=True):
        first = min(max(start - offset, 0), len(part))
        last = max(min(len(text) - end - offset, len(part)), first)
        first, last = (len(part), len(part)) if fixed else (first, last)
        result.append((part[:first], part[last:], last > first))
        offset += len(part) + 1
    kept = [i for i, (_, _, varies) in enumerate(result) if varies]
    names = {i: f"{{group{n + 1 if n else ''}}}" for n, i in enumerate(kept[:-1])}
    names |= dict.fromkeys(kept[-1:], "{name}")
    return [f"{before}{names.get(i, '')}{after}" for i, (before, after, _) in enumerate(result)]


def _file_text(group: Group, name: str, field: str) -> str:
    stem, dot, extension = name.rpartition(".")
    endings = {m.path.stem[len(m.path.stem) - len(m.ending) :] for m in group.members}
    ending = min(endings, key=len) + "*" * (len(endings) > 1)
    if len(group.extensions) > 1:
        extension = "*"
    return f"{stem[: len(group.prefix)]}{field}{ending}{dot}{extension}".replace("**", "*")


def _with_split(folder: str, field: str) -> str:
    """Return a folder's name with a field for its split: "{split}annot" of "trainannot"."""
    for word in sorted(_SHORT, key=len, reverse=True):
        if (place := folder.casefold().find(word)) >= 0:
            return f"{folder[:place]}{field}{folder[place + len(word) :]}"
    return folder


def group_text(group: Group) -> str:
    """Return the template of a group by itself."""
    return _text(group, Pairing(group, group, [], 0.0, "same"), 0)
