"""The files of a folder: those that may hold annotations, and images by the names in them.

A name in a file is never opened as a path: it is looked up among the files of the folder, so that
no annotation can reach outside of it.
"""

import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tinyseg.data.reading.files import SUFFIXES, natural
from tinyseg.data.reading.names import folder_meaning
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

JSON_LIMIT = 1 << 30
"""Largest JSON file, in bytes; the training part of COCO takes half of it."""
TEXT_LIMIT = 1 << 24
"""Largest text file of names or polygons, in bytes."""
_HIDDEN = frozenset({"__macosx", "__pycache__"})


class Folder:
    """The files below a root, by extension and by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        """Paths relative to the root, without hidden ones."""
        for folder, folders, names in os.walk(root):
            folders[:] = [f for f in folders if f[0] != "." and f.casefold() not in _HIDDEN]
            inside = os.path.relpath(folder, root).replace(os.sep, "/")
            prefix = "" if inside == "." else inside + "/"
            self.files += [prefix + name for name in names if name[0] != "."]
        self.suffixes = {_suffix(file) for file in self.files}

    def ending(self, *suffixes: str) -> list[str]:
        """Return the files with one of these extensions, in natural order."""
        if not self.suffixes.intersection(suffixes):
            return []
        found = [file for file in self.files if _suffix(file) in suffixes]
        return sorted(found, key=natural)

    @cached_property
    def known(self) -> frozenset[str]:
        """All files."""
        return frozenset(self.files)

    @cached_property
    def images(self) -> list[str]:
        """The image files, in natural order."""
        return self.ending(*SUFFIXES)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped(self.images, lambda file: file.rpartition("/")[2])

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.images, lambda file: PurePosixPath(file).stem)

    def image(self, name: str, near: str) -> str | None:
        """Return the image that the file `near` calls `name`, often with folders in front.

        Of several images with this name, the one with the most folders as in the name, then one
        in no folder of masks, then the one that shares most folders with `near`. DataError when
        two remain.
        """
        parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".", "..")]
        return (
            self._closest(self._by_name.get(_plain(parts[-1]), []), parts, near) if parts else None
        )

    def image_of(self, stem: str, near: str) -> str | None:
        """Return the image with a stem, the one in the folders most like those of `near`."""
        parts = [*near.split("/")[:-1], stem]
        return self._closest(self._by_stem.get(_plain(stem), []), parts, near)

    def _closest(self, files: Sequence[str], parts: Sequence[str], near: str) -> str | None:
        if len(files) < 2:
            return files[0] if files else None
        home = near.split("/")[:-1]

        def closeness(file: str) -> tuple[int, bool, int, int]:
            folders = file.split("/")[:-1]
            same = _shared(reversed(folders), reversed(list(parts[:-1])))
            is_mask = any(folder_meaning(folder)[1] == "mask" for folder in folders)
            return same, not is_mask, _shared(folders, home), -len(folders)

        best = max(map(closeness, files))
        equal = [file for file in files if closeness(file) == best]
        if len(equal) > 1:
            raise DataError(
                f"{self.root / near}: {parts[-1]} may be {name_some(equal)}; keep one of them, or "
                "put its folder into the name"
            )
        return equal[0]

    def bytes(self, file: str, limit: int) -> bytes:
        """Return the content of a file; DataError when it cannot be read or is too large."""
        path = self.root / file
        try:
            size = path.stat().st_size
            if size > limit:
                raise DataError(
                    f"{path}: {size >> 20} MiB; at most {limit >> 20} MiB are read: split the file"
                )
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None

    def text(self, file: str) -> str:
        """Return the text of a small file."""
        return self.bytes(file, TEXT_LIMIT).decode("utf-8-sig", "replace")

    def json(self, file: str) -> Any:
        """Return the content of a JSON file; DataError when it is none, or nested too deeply."""
        content = self.bytes(file, JSON_LIMIT)
        try:
            return json.loads(content, parse_constant=_refuse)
        except RecursionError:
            raise DataError(f"{self.root / file}: nested too deeply for an annotation") from None
        except (ValueError, MemoryError) as error:
            text = " ".join(str(error).split()) or "too large"
            raise DataError(
                f"{self.root / file}: not valid JSON ({text}); export it again"
            ) from None


def case_names(images: Iterable[str]) -> dict[str, str]:
    """Return a unique name for each image: its path without extension and shared folders.

    Where all are called as labelme's NAME_json/img.png, it is their folder.
    """
    files = list(images)
    if files and {file.rpartition("/")[2] for file in files} == {"img.png"}:
        folders = case_names(file.rpartition("/")[0] for file in files)
        return {file: folders[file.rpartition("/")[0]] for file in files}
    parents = [file.split("/")[:-1] for file in files]
    first, last = min(parents, default=[]), max(parents, default=[])
    common = _shared(first, last)
    short = {file: file.split("/", common)[-1] for file in files}
    stems = {file: os.path.splitext(name)[0] for file, name in short.items()}
    times: dict[str, int] = {}
    for stem in stems.values():
        times[stem] = times.get(stem, 0) + 1
    return {file: stem if times[stem] == 1 else short[file] for file, stem in stems.items()}


def _suffix(file: str) -> str:
    return os.path.splitext(file)[1].casefold()


def _grouped(files: Iterable[str], key: Any) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(_plain(key(file)), []).append(file)
    return groups


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _shared(one: Iterable[str], other: Iterable[str]) -> int:
    """The number of equal parts in front."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if _plain(a) != _plain(b):
            break
        count += 1
    return count


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
