"""Compiled steps on disk, so that the next process starts at once.

A compiled step is a pickle, and loading a pickle runs what it says. So files are taken only from a
private folder of the user (0700, files 0600, both owned by the user), and only with a digest keyed
by a secret in that folder: a bare checksum could be put there by whoever can write a file. A file
that fails any check is not unpickled; the step is compiled anew and replaces it.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyseg.backend import cache_folder
from tinyseg.errors import TinysegError

LIMIT = 2 * 2**30
"""Bytes of all steps together; the least recently used go first."""
MAGIC = b"tinyseg step 1\n"
SUFFIX = ".step"
SECRET_BYTES = 32
STALE_SECONDS = 3600.0
"""A partial file of that age belongs to a process that died."""


class CacheOff(TinysegError):
    """Why no step can be kept on disk, in words."""


@dataclass(frozen=True)
class Info:
    """What is in the cache."""

    folder: Path
    steps: int
    bytes: int
    limit: int


class StepCache:
    """Bytes by key; raises CacheOff when the folder is not private or cannot be written."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT):
        try:
            self.folder, self.limit = folder or cache_folder() / "steps", limit
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self.folder, self.folder.lstat(), stat.S_ISDIR)
            self._secret = self._read_secret()
        except (OSError, TinysegError) as error:
            raise CacheOff(str(error)) from error

    def load(self, key: str) -> bytes | None:
        """What was stored under the key, proven to be so; None when there is no such thing."""
        path = self._path(key)
        try:
            content = _read_private(path)
            os.utime(path)  # "recently used", for the eviction
        except (OSError, CacheOff):
            return None
        magic, digest, payload = content[:15], content[15:47], content[47:]
        wanted = self._digest(key, payload)
        return payload if magic == MAGIC and hmac.compare_digest(digest, wanted) else None

    def store(self, key: str, payload: bytes) -> None:
        """Keeps bytes under a key, whole or not at all, and evicts what is too much."""
        self._write(self._path(key), MAGIC + self._digest(key, payload) + payload)
        self._evict()

    def remove(self, key: str) -> None:
        """Forgets a key."""
        self._path(key).unlink(missing_ok=True)

    def info(self) -> Info:
        """Number and size of the steps."""
        sizes = [size for _, size, _ in self._entries()]
        return Info(self.folder, len(sizes), sum(sizes), self.limit)

    def clear(self) -> None:
        """Forgets everything."""
        for path in [*self.folder.glob(f"*{SUFFIX}"), *self.folder.glob("*.partial")]:
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _digest(self, key: str, payload: bytes) -> bytes:
        # with the key: a whole file under another name is another program
        return hmac.digest(self._secret, key.encode() + b"\n" + payload, hashlib.sha256)

    def _entries(self) -> list[tuple[float, int, Path]]:
        """Time of last use, size and path of each step, the oldest first."""
        found = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process may have evicted it
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        return sorted(found)

    def _evict(self) -> None:
        entries = self._entries()
        total = sum(size for _, size, _ in entries)
        for _, size, path in entries:
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size
        for path in self.folder.glob("*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()

    def _write(self, path: Path, content: bytes, replace: bool = True) -> None:
        # mkstemp makes the file with mode 0600
        handle, name = tempfile.mkstemp(suffix=".partial", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            if replace or not _linked(name, path):
                os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)

    def _read_secret(self) -> bytes:
        path = self.folder / "secret"
        if not path.exists():
            self._write(path, secrets.token_bytes(SECRET_BYTES), replace=False)
        if len(_read_private(path)) != SECRET_BYTES:  # damaged: what it had signed is lost
            self._write(path, secrets.token_bytes(SECRET_BYTES))
        return _read_private(path)


def _linked(name: str, path: Path) -> bool:
    """Gives a file its name unless another process was first; False where links are unknown."""
    try:
        os.link(name, path)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def _read_private(path: Path) -> bytes:
    """The bytes of a regular file that only this user can have written."""
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
        _check_private(path, os.fstat(file.fileno()), stat.S_ISREG)
        return file.read()


def _check_private(path: Path, facts: os.stat_result, kind: Callable[[int], bool]) -> None:
    if not hasattr(os, "getuid"):
        return  # Windows: the user's own folder is private by its access list
    if not kind(facts.st_mode) or facts.st_uid != os.getuid():
        raise CacheOff(f"{path} is not this user's own; remove it")
    if facts.st_mode & 0o077:
        raise CacheOff(f"{path} is open to others; run  chmod go-rwx {path}")
