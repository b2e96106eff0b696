"""A named dataset: its files, options and classes, and where it is published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tinyseg.data.reading.layouts import Layout
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Archive:
    """A published file and where its content goes."""

    url: str
    gives: tuple[str, ...]
    """What the dataset's folder holds when this archive is unpacked."""
    folder: str = ""
    """Where it is unpacked, below the dataset's folder."""
    inside: str = ""
    """Only what lies in this folder of the archive, without the folder itself; "*" is any one."""
    size: int | None = None
    """Bytes, where published; most datasets publish neither this nor a digest."""
    sha256: str | None = None
    """Hex digits, where published."""


@dataclass(frozen=True)
class Option:
    """A choice of the user, by default the first one; `several` takes "a,b", by default all."""

    choices: tuple[str, ...]
    several: bool = False

    def read(self, where: str, name: str, text: str) -> str:
        """Return the checked text; DataError names the known choices."""
        chosen = text.split(",") if self.several else [text]
        unknown = [word for word in chosen if word not in self.choices]
        if unknown or len(set(chosen)) < len(chosen):
            rule = "some, each once, of" if self.several else "one of"
            raise DataError(f"{where}: {name}={text!r} must be {rule} {', '.join(self.choices)}")
        return text

    @property
    def default(self) -> str:
        """The text that is used when the user chooses nothing."""
        return ",".join(self.choices) if self.several else self.choices[0]


@dataclass(frozen=True)
class Named:
    """A named dataset in a folder."""

    layout: Layout
    label_map: dict[int, int]
    """Mask value to class id."""
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A dataset known by name."""

    title: str
    terms: str
    """License, and whom to cite."""
    archives: tuple[Archive, ...]
    find: Callable[[Path, Mapping[str, str]], Named]
    """Returns the layout of a folder, from the text of every option."""
    options: Mapping[str, Option]
    or_files: tuple[str, ...] = ()
    """What the folder may hold instead, in another common layout."""
    top: str = ""
    """The folder that the published archive unpacks to; users may name it or its parent."""

    def root(self, folder: Path) -> Path:
        """Return the folder that holds the official files."""
        return folder / self.top if self.top and (folder / self.top).is_dir() else folder

    def missing(self, folder: Path) -> list[str]:
        """Return the official files that the folder lacks."""
        root = self.root(folder)
        if self.or_files and all((root / name).exists() for name in self.or_files):
            return []
        names = (name for archive in self.archives for name in archive.gives)
        return [name for name in names if not (root / name).exists()]
