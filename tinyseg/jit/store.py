"""Compiled steps on disk, so that the next process starts at once.

A compiled step is a pickle with machine code in it, and loading it runs what it says. So files are
taken only from a private folder of the user (0700, files 0600, both owned by the user). A digest
reveals damage; a file that fails any check is not unpickled: the step is compiled anew and replaces
it.
"""

from pathlib import Path

from tinyseg.common.cache_dir import CacheOff, FileCache, cache_folder
from tinyseg.errors import BackendError

LIMIT = 2 * 2**30
"""The most bytes that all steps may take."""


class StepCache(FileCache):
    """The compiled steps of this user, as bytes by key.

    CacheOff when the folder is not private or cannot be written.
    """

    def __init__(self, folder: Path | None = None, limit: int = LIMIT):
        try:
            super().__init__(folder or cache_folder() / "steps", ".step", limit)
        except BackendError as error:
            raise CacheOff(str(error)) from error
