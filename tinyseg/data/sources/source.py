"""What a named dataset is: its files, its options, its classes, and where it is published."""

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
    """Bytes, where published; of most datasets neither this nor a digest is."""
    sha256: str | None = None
    """Hex digits, where published."""


@dataclass(frozen=True)
class Option:
    """A choice of the user, the first one if nothing is said; `several` takes "a,b"."""

    choices: tuple[str, ...]
    several: bool = False

    def read(self, where: str, name: str, text: str) -> str:
        """The checked text; DataError names the known choices."""
        chosen = text.split(",") if self.several else [text]
        unknown = [word for word in chosen if word not in self.choices]
        if unknown or len(set(chosen)) < len(chosen):
            rule = "some, each once, of" if self.several else "one of"
            raise DataError(f"{where}: {name}={text!r} must be {rule} {', '.join(self.choices)}")
        return text

    @property
    def default(self) -> str:
        """The text that stands for nothing said."""
        return ",".join(self.choices) if self.several else self.choices[0]


@dataclass(frozen=True)
class Named:
    """A named dataset as found in a folder."""

    layout: Layout
    label_map: dict[int, int]
    """Mask value to class id."""
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A dataset known by name."""

    title: str
    terms: str
    """Licence, and whom to cite."""
    archives: tuple[Archive, ...]
    find: Callable[[Path, Mapping[str, str]], Named]
    """Reads the layout of a folder, given the text of every option."""
    options: Mapping[str, Option]
    or_files: tuple[str, ...] = ()
    """What the folder may hold instead, in another layout that is in use."""
    top: str = ""
    """The folder that the published archive unpacks to; it may be given with or without."""

    def root(self, folder: Path) -> Path:
        """The folder that holds the official files."""
        return folder / self.top if self.top and (folder / self.top).is_dir() else folder

    def missing(self, folder: Path) -> list[str]:
        """The official files that the folder does not have."""
        root = self.root(folder)
        if self.or_files and all((root / name).exists() for name in self.or_files):
            return []
        given = (name for archive in self.archives for name in archive.gives)
        return [name for name in given if not (root / name).exists()]
