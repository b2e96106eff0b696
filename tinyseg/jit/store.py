"""Compiled steps on disk, so that the next process starts at once.

A compiled step is a pickle, and loading a pickle runs what it says. So files are taken only from a
private folder of the user (0700, files 0600, both owned by the user), and only with a digest keyed
by a secret in that folder: a bare checksum could be put there by whoever can write a file. A file
that fails any check is not unpickled; the step is compiled anew and replaces it.
"""

import hashlib
import hmac
import secrets
from pathlib import Path

from tinyseg.common.cache_dir import CacheOff, FileCache, Info, cache_folder, open_private
from tinyseg.errors import TinysegError

LIMIT = 2 * 2**30
"""Bytes of all steps together."""
MAGIC = b"tinyseg step 1\n"
SUFFIX = ".step"
SECRET_BYTES = 32


class StepCache:
    """Bytes by key; raises CacheOff when the folder is not private or cannot be written."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT):
        try:
            self._files = FileCache(folder or cache_folder() / "steps", SUFFIX, limit)
            self._secret = self._read_secret()
        except (OSError, TinysegError) as error:
            raise CacheOff(str(error)) from error

    def load(self, key: str) -> bytes | None:
        """What was stored under the key, proven to be so; None when there is no such thing."""
        try:
            with self._files.open(key) as file:
                content = file.read()
        except (OSError, CacheOff):
            return None
        magic, digest, payload = content[:15], content[15:47], content[47:]
        wanted = self._digest(key, payload)
        return payload if magic == MAGIC and hmac.compare_digest(digest, wanted) else None

    def store(self, key: str, payload: bytes) -> None:
        """Keeps bytes under a key, whole or not at all."""
        self._write(self._files.path(key), MAGIC + self._digest(key, payload) + payload)

    def info(self) -> Info:
        """Number and size of the steps."""
        return self._files.info()

    def clear(self) -> int:
        """Forgets all steps; how many there were."""
        return self._files.clear()

    def _digest(self, key: str, payload: bytes) -> bytes:
        # with the key: a whole file under another name is another program
        return hmac.digest(self._secret, key.encode() + b"\n" + payload, hashlib.sha256)

    def _write(self, path: Path, content: bytes, replace: bool = True) -> None:
        with self._files.writing(path, replace) as file:
            file.write(content)

    def _read_secret(self) -> bytes:
        path = self._files.folder / "secret"
        if not path.exists():
            self._write(path, secrets.token_bytes(SECRET_BYTES), replace=False)
        if len(_read(path)) != SECRET_BYTES:  # damaged: what it had signed is lost
            self._write(path, secrets.token_bytes(SECRET_BYTES))
        return _read(path)


def _read(path: Path) -> bytes:
    with open_private(path) as file:
        return file.read()
