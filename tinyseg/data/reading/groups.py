"""Files of one kind: grouped by folder, prefix and suffix, with the part of the path that varies.

A group is what a template describes: in "data/{group}/image/{name}_raw.png" the folders "data" and
"image" and the ending "_raw" are the same for all its files; what varies says which mask belongs to
which image. A folder's name varies if it stands for a part of the data (train, patient7); it is the
same for all if it stands for what the files are (images, masks).
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from tinyseg.data.reading.look import Look

SPLITS = {
    word: split
    for split, words in {
        "train": ("train", "training"),
        "val": ("val", "valid", "validation"),
        "test": ("test", "testing"),
    }.items()
    for word in words
}
_SPLIT = re.compile(
    rf"(?i)^(?P<before>|.*[ _-])(?P<word>{'|'.join(sorted(SPLITS, key=len, reverse=True))})\d*"
    r"(?P<after>|[ _-].*|annot|masks?|labels?|images?|gt)$"
)
_DECATHLON = re.compile(r"(?P<rest>images|labels)(?P<word>Tr|Ts|Val)")
_LETTER = re.compile(r"[^\W\d_]")
_SHORT = {"Tr": "train", "Ts": "test", "Val": "val"}
IMAGE_WORDS = re.compile(
    r"(?i)(^|[ _-])(images?|imgs?|inputs?|photos?|pictures?|jpegimages|originals?|raw|frames?"
    r"|tiles?|data|leftimg8bit)($|[ _-])"
)
LABEL_WORDS = re.compile(
    r"(?i)(^|[ _-])(masks?|labels?|annots?|annotations?|trimaps?|targets?|gts?|groundtruths?"
    r"|ground[ _-]truths?|gtfine|segs?|segmentations?|segmentationclass|segmaps?|manual|1st[a-z]*)"
    r"($|[ _-]|\d)"
)
OTHER_WORDS = re.compile(
    r"(?i)(viz|vis|overlay|preview|color|colour|rgb|object|instance|edge|contour|boundar|border|fov"
    r"|roi|pred|output|result|2nd|aug|superpixel|struct|center|ellipse|cut|stage|depth|skelet)"
)
LookAt = Callable[[Path], Look | None]
LOOKS = 160
"""At most so many files are looked at."""


@dataclass(frozen=True)
class Member:
    """A file of a group."""

    path: Path
    relative: str
    split: str | None
    variables: tuple[str, ...]
    """Names of the folders that vary."""
    middle: str
    """The stem without what the group's stems have in common."""
    ending: str = ""
    """The end of the stem that follows: "_mask", "_mask_1"."""


@dataclass
class Group:
    """Files that a template describes."""

    folders: tuple[str | None, ...]
    """None where the name varies; a split is no folder of its own."""
    prefix: str
    suffix: str
    extensions: tuple[str, ...]
    members: list[Member] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def is_label(self) -> bool:
        """Whether most of the files that were looked at look like labels."""
        return 2 * sum(look.is_label for look in self.looks) > len(self.looks)

    def words(self, other: "Group") -> str:
        """What the names say of the files, without the folders of another group."""
        shared = {folder.casefold() for folder in other.folders if folder}
        folders = (f for f in self.folders if f and f.casefold() not in shared)
        return " ".join([*folders, self.prefix, self.suffix])

    def __len__(self) -> int:
        return len(self.members)


@dataclass(frozen=True)
class _File:
    path: Path
    relative: str
    folders: tuple[str, ...]
    split: str | None
    stem: str
    prefix: str = ""
    ending: str = ""
    raters: bool = False
    """Whether the number of the ending tells who drew it, not which object it is."""

    @property
    def middle(self) -> str:
        return self.stem[len(self.prefix) : len(self.stem) - len(self.ending)]

    @property
    def suffix(self) -> str:
        """The ending, without the number of an object: "_mask" of "_mask_1"."""
        return self.ending.casefold() if self.raters else _plain(self.ending)

    @property
    def pool(self) -> tuple[str, ...]:
        """Files that are looked at together."""
        folder = re.sub(r"\d+", "#", self.folders[-1]) if self.folders else ""
        return (folder, self.prefix, self.suffix, self.path.suffix.casefold())


@cache
def split_of(folder: str) -> tuple[str | None, str]:
    """Return the split that a folder's name gives, and the rest: "trainannot" -> train, annot."""
    if match := _DECATHLON.fullmatch(folder):
        return _SHORT[match["word"]], match["rest"]
    if match := _SPLIT.fullmatch(folder):
        rest = "_".join(part.strip(" _-") for part in (match["before"], match["after"]) if part)
        return SPLITS[match["word"].casefold()], rest
    return None, folder


def find_groups(root: Path, paths: Iterable[Path], look: LookAt) -> list[Group]:
    """Return the groups of image files below `root`; `look` is called for some of each."""
    files = _families([_describe(root, path) for path in paths], look)
    looks = _look_at(files, look)
    varies = _varying_folders(files, looks)
    grouped: dict[tuple[object, ...], list[_File]] = defaultdict(list)
    for file in files:
        folders = tuple(
            None if file.folders[: i + 1] in varies else name.casefold()
            for i, name in enumerate(file.folders)
        )
        grouped[folders, file.prefix, file.suffix].append(file)
    return [
        group for members in grouped.values() for group in _by_extension(members, varies, looks)
    ]


def _describe(root: Path, path: Path) -> _File:
    relative = unicodedata.normalize("NFC", path.relative_to(root).as_posix())
    *parents, name = relative.split("/")
    splits = [split_of(folder) for folder in parents]
    split = next((split for split, _ in reversed(splits) if split), None)
    folders = tuple(rest for _, rest in splits if rest)
    return _File(path, relative, folders, split, name[: len(name) - len(path.suffix)])


# 1. Families: files of one folder that differ by prefix or suffix


def _families(files: list[_File], look: LookAt) -> list[_File]:
    by_folder: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        by_folder[file.relative.rpartition("/")[0]].append(file)
    fixed = _fixed_names(by_folder)
    families = []
    for folder, group in by_folder.items():
        names = fixed.get(folder.rpartition("/")[0], set()) if folder else set()
        families += [replace(file, prefix=file.stem) for file in group if file.stem in names]
        split = _split_families([file for file in group if file.stem not in names])
        families += _by_rater(split, look)
    return families


def _fixed_names(by_folder: dict[str, list[_File]]) -> dict[str, set[str]]:
    """Return names that most folders below a parent have, as img and label: by parent."""
    stems: dict[str, list[str]] = defaultdict(list)
    for folder, group in by_folder.items():
        if folder:
            stems[folder.rpartition("/")[0]] += {file.stem for file in group}
    siblings = Counter(folder.rpartition("/")[0] for folder in by_folder if folder)
    return {
        parent: {
            stem
            for stem, count in Counter(names).items()
            if count > max(1, siblings[parent] / 2) and not re.search(r"\d", stem)
        }
        for parent, names in stems.items()
        if siblings[parent] > len(set(names))
    }


def _split_families(files: list[_File]) -> list[_File]:
    stems = {file.stem.casefold() for file in files}
    lengths = sorted({len(stem) for stem in stems if stem}, reverse=True)
    endings = {file: _ending(file.stem, stems, lengths) for file in files}
    counts = Counter(_plain(ending) for ending in endings.values() if ending)
    least = 2 if len(stems) > 8 else 1
    if any(count >= least for count in counts.values()):
        return [
            replace(file, ending=ending) if counts[_plain(ending)] >= least else file
            for file, ending in endings.items()
        ]
    for pattern, key in ((r"(?P<a>.*[^ _.-])(?P<b>[ _.-]+[^\W\d_]+\d*)", "ending"),
                         (r"(?P<b>[^\W\d_]+[ _.-]*)(?P<a>\d.*)", "prefix")):  # fmt: skip
        matches = {file: re.fullmatch(pattern, file.stem) for file in files}
        heads: dict[str, set[str]] = defaultdict(set)
        for match in matches.values():
            if match:
                heads[_plain(match["b"])].add(match["a"].casefold())
        if _share_heads(heads, len(stems)):
            parts = {file: match["b"] if (match := matches[file]) else "" for file in files}
            if key == "ending":
                return [replace(file, ending=part) for file, part in parts.items()]
            return [replace(file, prefix=part) for file, part in parts.items()]
    return files


def _by_rater(files: list[_File], look: LookAt) -> list[_File]:
    """Mark endings such as _expert1 and _expert2 whose labels show the same objects."""
    numbered: dict[str, dict[str, list[_File]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        if file.ending != file.suffix and re.search(r"\d$", file.ending):
            numbered[file.suffix][file.middle].append(file)
    raters = {
        suffix
        for suffix, heads in numbered.items()
        if min(map(len, heads.values())) > 1 and _overlap(list(heads.values())[:3], look)
    }
    return [replace(file, raters=file.suffix in raters) for file in files]


def _overlap(sets: Sequence[list[_File]], look: LookAt) -> bool:
    """Whether the first two files of each set are labels of the same objects (IoU above 0.5)."""
    both = either = 0
    for first, second, *_ in sets:
        a, b = look(first.path), look(second.path)
        if a and b and a.is_label and b.is_label:
            both += int((a.small & b.small).sum())
            either += int((a.small | b.small).sum())
    return 2 * both > either > 0


def _ending(stem: str, stems: set[str], lengths: Sequence[int]) -> str:
    """Return what follows the longest other stem that this one begins with: "_mask" of "7_mask".

    `lengths` are those of the stems, the longest first.
    """
    folded = stem.casefold()
    if len(folded) != len(stem):
        return ""
    for end in lengths:
        rest = stem[end:]
        if rest and folded[:end] in stems and is_boundary(stem, end) and _LETTER.search(rest):
            return rest
    return ""


def _plain(ending: str) -> str:
    """Return an ending without a number: "_mask" of "_mask_1"."""
    return re.sub(r"[ _.-]*\d+$", "", ending.casefold())


def _share_heads(heads: dict[str, set[str]], stems: int) -> bool:
    """Whether two endings occur with the same beginnings, as _image and _label do."""
    if len(heads) < 2 or len(heads) > 8:
        return False
    first, second, *_ = sorted(heads.values(), key=len, reverse=True)
    covered = sum(map(len, heads.values())) >= 0.8 * stems
    return covered and len(first & second) >= 0.5 * len(first)


def is_boundary(text: str, index: int) -> bool:
    """Whether a word or a number ends here."""
    before, after = text[index - 1], text[index]
    return not (before.isalpha() and after.isalpha()) and not (before.isdigit() and after.isdigit())


# 2. Which folders vary


def _look_at(files: list[_File], look: LookAt) -> dict[tuple[str, ...], list[Look]]:
    pools: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for file in files:
        pools[file.pool].append(file)
    each = max(1, min(4, LOOKS // max(1, len(pools))))
    largest = sorted(pools, key=lambda pool: -len(pools[pool]))[:LOOKS]
    chosen = {pool: pools[pool][:: max(1, len(pools[pool]) // each)][:each] for pool in largest}
    return {
        pool: [seen for file in some if (seen := look(file.path))] for pool, some in chosen.items()
    }


def _is_label(looks: Sequence[Look]) -> bool | None:
    return 2 * sum(look.is_label for look in looks) > len(looks) if looks else None


def _varying_folders(
    files: list[_File], looks: dict[tuple[str, ...], list[Look]]
) -> set[tuple[str, ...]]:
    """Return the folders, as paths without splits, whose last name varies.

    It does if both images and labels lie below folders of this name. So does a name whose
    neighbors hold files of the same kind, but not of the same names.
    """
    kinds: dict[tuple[int, str], set[bool | None]] = defaultdict(set)
    children: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        kind = _is_label(looks.get(file.pool, ()))
        for i, name in enumerate(file.folders):
            kinds[i, name.casefold()].add(kind)
            children[file.folders[:i]][name].add(file.middle.casefold() or file.relative)
    varies = set()
    for parent, names in children.items():
        own = {name: kinds[len(parent), name.casefold()] - {None} for name in names}
        mixed = [name for name in names if len(own[name]) == 2]
        for name, middles in names.items():
            alike = [other for other in names if other != name and own[other] == own[name]]
            apart = all(_apart(middles, names[other]) for other in alike)
            words = IMAGE_WORDS.search(name) or LABEL_WORDS.search(name)
            if (name in mixed and len(mixed) > 1) or (alike and apart and not words):
                varies.add((*parent, name))
    return varies


def _apart(some: set[str], others: set[str]) -> bool:
    return 2 * len(some & others) < min(len(some), len(others))


# 3. Groups


def _by_extension(
    files: list[_File],
    varies: set[tuple[str, ...]],
    looks: dict[tuple[str, ...], list[Look]],
) -> list[Group]:
    """Return one group, or one for each extension where a name has several."""
    names = Counter(file.relative[: len(file.relative) - len(file.path.suffix)] for file in files)
    several = max(names.values()) > 1
    parts: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        parts[file.path.suffix.casefold() if several else ""].append(file)
    return [_group(part, varies, looks) for part in parts.values()]


def _group(
    files: list[_File],
    varies: set[tuple[str, ...]],
    looks: dict[tuple[str, ...], list[Look]],
) -> Group:
    first = files[0]
    folders = tuple(
        None if first.folders[: i + 1] in varies else name for i, name in enumerate(first.folders)
    )
    members = [
        Member(
            file.path,
            file.relative,
            file.split,
            tuple(n for i, n in enumerate(file.folders) if file.folders[: i + 1] in varies),
            file.middle,
            file.ending,
        )
        for file in files
    ]
    pools = {file.pool for file in files}
    seen = [look for pool in pools for look in looks.get(pool, ())]
    extensions = tuple(sorted({file.path.suffix for file in files}))
    return Group(folders, first.prefix, first.suffix, extensions, members, seen)
