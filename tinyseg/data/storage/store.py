"""Keep decoded, simulated or prepared images on disk, by a digest of all that shapes them."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from PIL import features

from tinyseg.common.cache_dir import CacheOff, FileCache, cache_folder
from tinyseg.data.storage.records import Damaged, Put, map_records, write_records
from tinyseg.errors import TinysegError

LIMIT = 16 * 2**30
"""Bytes of all images together."""
Result = TypeVar("Result")
NamedArrays = dict[str, np.ndarray]


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

    def warnings(self) -> list[str]:
        """Return a warning when nothing is kept."""
        return [f"decoded images are not kept on disk: {self.off}"] * bool(self.off)

    def facts(self, key: str) -> dict[str, Any] | None:
        """Return the facts kept with a key."""
        text = self._try(lambda files: files.load(f"{key}-facts"))
        return json.loads(text) if text else None

    def load(self, key: str) -> NamedArrays | None:
        """Return the arrays kept with a key, in memory."""
        records = self.map(key)
        if records is None:
            return None
        return {name: np.array(records[name][0]) for name in records.dtype.names or ()}

    def map(self, key: str) -> np.ndarray | None:
        """Return the records of a key (N,), memory-mapped and checked."""

        def read(files: FileCache) -> np.ndarray:
            with files.open(key) as file:
                return map_records(file, key)

        return self._try(read)

    def keep(self, key: str, arrays: NamedArrays, facts: Mapping[str, Any] | None = None) -> None:
        """Keep arrays, and facts that JSON can hold, if the disk takes them."""
        record = np.dtype([(name, a.dtype.str, a.shape) for name, a in arrays.items()])
        self.make(key, record, 1, lambda put: put(0, list(arrays.values())))
        if facts is not None:
            text = json.dumps(facts).encode()
            self._try(lambda files: files.store(f"{key}-facts", text), writing=True)

    def make(
        self, key: str, record: np.dtype[Any], count: int, fill: Callable[[Put], None]
    ) -> np.ndarray | None:
        """Write records (N,) and return them mapped; None when the disk does not take them."""

        def write(files: FileCache) -> np.ndarray:
            with files.writing(files.path(key)) as file:
                # mapped by its open file: one larger than the limit loses its name at once
                return write_records(file, key, record, count, fill)

        return self._try(write, writing=True)

    def _try(
        self, work: Callable[[FileCache], Result | None], writing: bool = False
    ) -> Result | None:
        """Return None for what is missing or damaged; keep nothing more when writing fails."""
        files = self._files  # another thread may meet a full disk meanwhile
        if files is None:
            return None
        try:
            return work(files)
        except (OSError, CacheOff, Damaged) as error:
            if writing:
                self.off = f"{files.folder}: {getattr(error, 'strerror', '') or error}"
                self._files = None
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
