"""Files that can be made again, in the user's cache folder: private, whole or not there, bounded.

A key is a digest of everything that decides the content, so a file is never out of date. It may be
damaged: `load` checks a digest, who calls `open` has to check.
"""

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tinyseg.common.files import PARTIAL, STALE_SECONDS
from tinyseg.errors import BackendError, TinysegError

DIGEST_BYTES = 32


class CacheOff(TinysegError):
    """The reason why nothing can be kept on disk."""


@dataclass(frozen=True)
class Info:
    """What is in a cache."""

    folder: Path
    files: int
    bytes: int
    limit: int


def cache_folder() -> Path:
    """Return tinyseg's folder for files that can be made again; it is made when missing."""
    candidates = [*_usual_cache(), Path(tempfile.gettempdir()) / f"tinyseg-{_user()}"]
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            own = not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
        except OSError:
            continue
        # code is kept there: a folder that somebody else has made is not to be trusted
        if own and os.access(folder, os.W_OK):
            return folder
    tried = ", ".join(map(str, candidates))
    raise BackendError(f"no writable cache folder (tried {tried}); set XDG_CACHE_HOME to one")


def _usual_cache() -> list[Path]:
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if base.is_absolute():  # a relative one would be in the working directory
        return [base / "tinyseg"]
    home = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    try:
        return [Path(home).expanduser() / "tinyseg"]
    except RuntimeError:  # a user without a home, as in containers
        return []


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else "ser"


class FileCache:
    """Files by key in one private folder; the least recently used are removed first.

    They take at most `limit` bytes and at most half of the disk's free space. Raises CacheOff when
    the folder is not private or cannot be written.
    """

    def __init__(self, folder: Path, suffix: str, limit: int):
        self.folder, self.suffix, self.limit = folder, suffix, limit
        self._unchecked = limit
        """Bytes written since the folder was last listed; it is listed at the first write."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(folder, folder.lstat(), stat.S_ISDIR)
        except OSError as error:
            raise CacheOff(f"{folder}: {error.strerror}") from error

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / f"{key}{self.suffix}"

    def load(self, key: str) -> bytes | None:
        """Return what was stored under a key; None when it is missing, damaged or not private."""
        try:
            with self.open(key) as file:
                content = file.read()
        except (OSError, CacheOff):
            return None
        payload = content[DIGEST_BYTES:]
        return payload if content[:DIGEST_BYTES] == _digest(key, payload) else None

    def store(self, key: str, payload: bytes) -> None:
        """Keep bytes under a key, whole or not at all; OSError when they cannot be written."""
        with self.writing(self.path(key)) as file:
            file.write(_digest(key, payload) + payload)

    def open(self, key: str) -> BinaryIO:
        """Open a file that only this user can have written; OSError or CacheOff otherwise."""
        path = self.path(key)
        file = open_private(path)
        with contextlib.suppress(OSError):
            os.utime(path)  # "recently used", for the eviction
        return file

    @contextlib.contextmanager
    def writing(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file that gets its name when it is whole; nothing is left of it on an error."""
        # mkstemp makes the file with mode 0600
        handle, name = tempfile.mkstemp(suffix=PARTIAL, dir=self.folder)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file
                file.flush()
                size = os.fstat(handle).st_size
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
        self._make_room(size)

    def info(self) -> Info:
        """Return number and size of the files."""
        sizes = [size for _, size, _ in self._entries()]
        return Info(self.folder, len(sizes), sum(sizes), self._bound(sum(sizes)))

    def clear(self) -> int:
        """Remove all files and return how many there were."""
        paths = list(self.folder.glob(f"*{self.suffix}"))
        for path in [*paths, *self.folder.glob(f"*{PARTIAL}")]:
            path.unlink(missing_ok=True)
        return len(paths)

    def _bound(self, held: int) -> int:
        return min(self.limit, (shutil.disk_usage(self.folder).free + held) // 2)

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, size and path of each file, the oldest first."""
        entries = []
        for path in self.folder.glob(f"*{self.suffix}"):
            with contextlib.suppress(OSError):  # another process may have evicted it
                status = path.stat()
                entries.append((status.st_mtime, status.st_size, path))
        return sorted(entries)

    def _make_room(self, size: int) -> None:
        """Remove the oldest files; not after each small file, as it lists the whole folder."""
        self._unchecked += size
        if self._unchecked < self.limit // 32:
            return
        self._unchecked = 0
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        bound = self._bound(total)
        for _, size, path in entries:
            if total <= bound:
                break
            path.unlink(missing_ok=True)
            total -= size
        for path in self.folder.glob(f"*{PARTIAL}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()


def open_private(path: Path) -> BinaryIO:
    """Open a regular file (no link) that only this user can have written."""
    # without blocking: opening a FIFO would wait for a writer
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _check_private(path, os.fstat(file.fileno()), stat.S_ISREG)
    except BaseException:
        file.close()
        raise
    return file


def _digest(key: str, payload: bytes) -> bytes:
    # with the key: a whole file under another name is something else
    return hashlib.sha256(key.encode() + b"\n" + payload).digest()


def _check_private(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    if not hasattr(os, "getuid"):
        return  # Windows: the user's own folder is private by its access list
    if not is_kind(status.st_mode) or status.st_uid != os.getuid():
        raise CacheOff(f"{path} is not this user's own; remove it")
    if status.st_mode & 0o077:
        raise CacheOff(f"{path} is open to others; run  chmod go-rwx {path}")
