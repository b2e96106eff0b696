"""Keep decoded, simulated or prepared images on disk, by a digest of all that shapes them."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import PIL
from PIL import features

from tinyseg.common.cache_dir import CacheOff, FileCache, cache_folder
from tinyseg.data.storage.records import Damaged, Writer, check_records, map_records, read_footer
from tinyseg.errors import TinysegError

LIMIT = 16 * 2**30
"""Bytes of all images together."""
Found = TypeVar("Found")
Arrays = dict[str, np.ndarray]
Fill = Callable[[Callable[[int, Sequence[np.ndarray]], None]], None]
"""Calls `put(index, arrays)`, its argument, for every record."""


def image_files(folder: Path | None = None, limit: int | None = None) -> FileCache:
    """Return the files of the store; TinysegError when there can be none."""
    return FileCache(folder or cache_folder() / "images", ".records", limit or LIMIT)


class Store:
    """Arrays by key. Without a usable disk it keeps nothing, and `off` says why."""

    def __init__(self, files: FileCache | None = None):
        self.off = ""
        self._files: FileCache | None = None
        try:
            self._files = files or image_files()
        except TinysegError as error:
            self.off = str(error)

    def remarks(self) -> list[str]:
        """Return a warning when nothing is kept."""
        return [f"decoded images are not kept on disk: {self.off}"] * bool(self.off)

    def facts(self, key: str) -> dict[str, Any] | None:
        """Return the facts kept with a key, without reading the arrays."""
        return self._open(key, lambda file, footer: dict(footer["facts"]))

    def load(self, key: str) -> Arrays | None:
        """Return the arrays of a single record, in memory."""

        def read(file: BinaryIO, footer: Mapping[str, Any]) -> Arrays:
            file.seek(0)
            records = np.frombuffer(file.read(footer["record"].itemsize), footer["record"])
            check_records(records, footer)
            return {name: records[name][0] for name in footer["record"].names}

        return self._open(key, read)

    def map(self, key: str) -> np.ndarray | None:
        """Return all records of a key (N,), memory-mapped and checked."""

        def read(file: BinaryIO, footer: Mapping[str, Any]) -> np.ndarray:
            records = map_records(file, footer)
            check_records(records, footer)
            return records

        return self._open(key, read)

    def keep(self, key: str, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Keep a single record if the disk takes it."""
        record = np.dtype([(name, a.dtype.str, a.shape) for name, a in arrays.items()])
        self.make(key, record, 1, lambda put: put(0, list(arrays.values())), facts)

    def make(
        self, key: str, record: np.dtype[Any], count: int, fill: Fill, facts: Mapping[str, Any]
    ) -> np.ndarray | None:
        """Write records (N,) and return them mapped; None when the disk does not take them."""
        files = self._files
        if files is None:
            return None
        try:
            with files.writing(files.path(key)) as file:
                writer = Writer(file, record, count)
                fill(writer.put)
                writer.finish(facts)
                # mapped by its open file: one larger than the limit loses its name at once
                return map_records(file, {"record": record, "count": count})
        except OSError as error:
            self.off, self._files = f"{files.folder}: {error.strerror or error}", None
            return None

    def _open(self, key: str, read: Callable[[BinaryIO, dict[str, Any]], Found]) -> Found | None:
        files = self._files  # another thread may meet a full disk meanwhile
        if files is None:
            return None
        try:
            with files.open(key) as file:
                return read(file, read_footer(file))
        except (OSError, CacheOff, Damaged):
            return None


def digest(*parts: object) -> str:
    """Return the key of parts, of our code and of the libraries that decode."""
    text = repr((_versions(), parts)).encode(errors="surrogateescape")
    return hashlib.blake2b(text, digest_size=20).hexdigest()


@functools.cache
def _versions() -> tuple[object, ...]:
    """A digest of the source code of the data room, and the versions of what it calls."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(hashlib.sha256(path.read_bytes()).digest())
    codecs = [features.version(name) for name in ("jpg", "webp", "libtiff", "libjpeg_turbo")]
    return code.hexdigest(), np.__version__, PIL.__version__, codecs
