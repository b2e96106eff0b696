"""Compiled steps on disk, so that the next process starts at once.

A compiled step is a pickle with machine code in it, and loading it runs what it says. So files are
taken only from a private folder of the user (0700, files 0600, both owned by the user). A digest
tells damage; a file that fails any check is not unpickled: the step is compiled anew and replaces
it.
"""

import hashlib
from pathlib import Path

from tinyseg.common.cache_dir import CacheOff, FileCache, Info, cache_folder
from tinyseg.errors import TinysegError

LIMIT = 2 * 2**30
"""Bytes of all steps together."""
MAGIC = b"tinyseg step 2\n"
DIGEST_END = len(MAGIC) + hashlib.sha256().digest_size
SUFFIX = ".step"


class StepCache:
    """Bytes by key; raises CacheOff when the folder is not private or cannot be written."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT):
        try:
            self._files = FileCache(folder or cache_folder() / "steps", SUFFIX, limit)
        except (OSError, TinysegError) as error:
            raise CacheOff(str(error)) from error

    def load(self, key: str) -> bytes | None:
        """Return what was stored under the key; None when there is no such thing, or damaged."""
        try:
            with self._files.open(key) as file:
                content = file.read()
        except (OSError, CacheOff):
            return None
        payload = content[DIGEST_END:]
        return payload if content[:DIGEST_END] == MAGIC + _digest(key, payload) else None

    def store(self, key: str, payload: bytes) -> None:
        """Keep bytes under a key, whole or not at all."""
        with self._files.writing(self._files.path(key)) as file:
            file.write(MAGIC + _digest(key, payload) + payload)

    def info(self) -> Info:
        """Return number and size of the steps."""
        return self._files.info()

    def clear(self) -> int:
        """Remove all steps and return how many there were."""
        return self._files.clear()


def _digest(key: str, payload: bytes) -> bytes:
    # with the key: a whole file under another name is another program
    return hashlib.sha256(key.encode() + b"\n" + payload).digest()
