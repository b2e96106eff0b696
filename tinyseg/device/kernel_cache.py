"""Machine code of kernels on disk, in our private cache folder, in place of tinygrad's cache.db.

tinygrad unpickles and runs what is in that database whoever owns it, puts it into the working
directory when XDG_CACHE_HOME is empty, and stops with an error of sqlite when it is damaged or the
disk is full.
"""

import functools
import hashlib
import importlib.metadata
import logging
from typing import Any

from tinygrad.helpers import CACHELEVEL

from tinyseg.common.cache_dir import CacheOff, FileCache, cache_folder
from tinyseg.errors import BackendError

LIMIT = 256 * 2**20
"""Bytes of all kernels together."""


def kernel_files() -> FileCache:
    """Return the folder of the machine code; raises CacheOff or BackendError when there is none."""
    return FileCache(cache_folder() / "kernels", ".bin", LIMIT)


class KernelCache:
    """Machine code by compiler and source; without a usable folder or disk it keeps nothing."""

    def __init__(self) -> None:
        self.files: FileCache | None = None
        try:
            self.files = kernel_files()
        except (CacheOff, BackendError) as reason:
            self._turn_off(reason)

    def load(self, compiler: Any, source: str) -> bytes | None:
        """Return the machine code of a source; None when it has not been compiled yet."""
        key = _key(compiler, source)
        return self.files.load(key) if self.files and key else None

    def compile(self, compiler: Any, source: str) -> bytes:
        """Return the machine code of a source, compiled where it is not on disk."""
        code = self.load(compiler, source)
        if code is None:
            code = bytes(compiler.compile(source))
            self._store(_key(compiler, source), code)
        return code

    def _store(self, key: str, code: bytes) -> None:
        try:
            if self.files and key:
                self.files.store(key, code)
        except OSError as reason:
            self._turn_off(reason)

    def _turn_off(self, reason: Exception) -> None:
        self.files = None
        logging.getLogger("tinyseg").warning("compiled kernels are not kept on disk: %s", reason)


@functools.cache
def kernel_cache() -> KernelCache:
    """Return the cache of this process."""
    return KernelCache()


def turn_off_database() -> None:
    """Keep tinygrad from opening its cache.db, for kernels and for the results of BEAM."""
    CACHELEVEL.value = 0


def keep_kernels(compiler: Any) -> None:
    """Let one of tinygrad's own compilers use our cache."""
    compiler.compile_cached = functools.partial(kernel_cache().compile, compiler)


def _key(compiler: Any, source: str) -> str:
    """Return the name of a kernel's file; empty where CCACHE=0 turns all caches of code off."""
    if compiler.cachekey is None:
        return ""
    text = f"{importlib.metadata.version('tinygrad')}\n{compiler.cachekey}\n{source}"
    return hashlib.sha256(text.encode()).hexdigest()
