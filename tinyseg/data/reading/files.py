"""The files below a folder, in natural order."""

import re
from collections.abc import Iterator
from pathlib import Path

from tinyseg.errors import DataError

SUFFIXES = frozenset([
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".pgm",
    ".ppm", ".pbm", ".pnm", ".webp", ".dcm", ".nii",
])  # fmt: skip
"""Endings of image files."""
HIDDEN = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""Names of files and folders that are left out without a word."""


def natural(text: str) -> tuple[object, ...]:
    """Return a sort key by which "a2" comes before "a10"; equal only for equal texts."""
    parts = re.split(r"(\d{1,18})", text)
    return ([int(p) if i % 2 else p.casefold() for i, p in enumerate(parts)], text)


def walk(root: Path) -> Iterator[Path]:
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
    paths = [path for path in paths if path.name.casefold() not in HIDDEN]
    return sorted(paths, key=lambda path: natural(path.name))
