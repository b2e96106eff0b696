"""Arrays in .npy and .npz files: their headers, and one image of a stack at a time."""

import functools
import io
import math
import tokenize
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from tinyseg.data.reading.decode import DAMAGED
from tinyseg.errors import DataError

ARRAY_LIMIT = 1 << 32
"""Largest array inside an .npz file, in bytes: it is unpacked as a whole."""
MOST_ARRAYS = 10_000
MOST_NUMBERS = 1 << 50
_BAD = (*DAMAGED, zipfile.BadZipFile, tokenize.TokenError, MemoryError)


@dataclass(frozen=True)
class Stored:
    """An array in a file."""

    path: Path
    key: str
    """Its name in an .npz file; empty in an .npy file."""
    shape: tuple[int, ...]
    kind: str
    """Of numbers, as in `numpy.dtype.kind`; O for Python objects, which are never loaded."""

    def __str__(self) -> str:
        return f"{self.path}: {self.key}" if self.key else str(self.path)

    def load(self, index: int | None) -> np.ndarray:
        """Return the array, or one image of a stack, with its axes of length 1 at the end."""
        try:
            array = _open(self.path, self.key)
            return np.array(array if index is None else array[index])
        except _BAD as error:
            raise DataError(f"{self}: cannot be read ({_line(error)}); save it again") from None


def list_arrays(path: Path) -> list[Stored]:
    """Return the arrays in a file by their headers; DataError when it is damaged."""
    try:
        if path.suffix.casefold() == ".npy":
            with path.open("rb") as file:
                return [_stored(path, "", file)]
        return list(_list_archive(path))
    except _BAD as error:
        raise DataError(f"{path}: not a file of NumPy ({_line(error)}); save it again") from None


def _list_archive(path: Path) -> Iterator[Stored]:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_ARRAYS:
            raise ValueError(f"more than {MOST_ARRAYS} arrays")
        for entry in entries:
            if entry.filename.endswith(".npy"):
                with archive.open(entry) as file:
                    yield _stored(path, entry.filename.removesuffix(".npy"), file)


def _stored(path: Path, key: str, file: IO[bytes]) -> Stored:
    shape, _, dtype = _header(file)
    return Stored(path, key, shape, dtype.kind)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type; the text of the header is parsed as a literal, and bounded."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if any(side < 0 for side in shape) or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"the shape {shape}")
    return tuple(map(int, shape)), bool(fortran), dtype


@functools.lru_cache(maxsize=2)
def _unpacked(path: Path, key: str, stamp: tuple[int, int]) -> np.ndarray:
    """Return an array of an archive; it is kept for the next image of the same stack.

    No more is allocated than the archive holds, whatever the header of the array says.
    """
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{key}.npy")
        if entry.file_size > ARRAY_LIMIT:
            raise ValueError(f"more than {ARRAY_LIMIT >> 30} GiB; save stacks as .npy")
        data = archive.read(entry)
    file = io.BytesIO(data)
    shape, fortran, dtype = _header(file)
    if dtype.hasobject:
        raise ValueError("Python objects, which could run code")
    array = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _open(path: Path, key: str) -> Any:
    status = path.stat()
    if key:
        return _unpacked(path, key, (status.st_mtime_ns, status.st_size))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
