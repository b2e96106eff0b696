"""Equal records of arrays in one file, to be memory-mapped: a digest, then NumPy's .npy format."""

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

Put = Callable[[int, Sequence[np.ndarray]], None]
_DIGEST_BYTES = 16


class Damaged(Exception):
    """A file of records cannot be used."""


def write_records(
    file: BinaryIO, key: str, record: np.dtype[Any], count: int, fill: Callable[[Put], None]
) -> np.ndarray:
    """Write `count` records and return them as `map_records` does, for the same key alone.

    `fill` calls `put(index, arrays)`, its argument, for every record, in any order and thread.
    OSError when the disk is full, where writing to a map would kill the process.
    """
    file.seek(_DIGEST_BYTES)
    descr = npy.dtype_to_descr(record)
    npy.write_array_header_2_0(file, {"descr": descr, "fortran_order": False, "shape": (count,)})
    file.flush()
    start = file.tell()

    def put(index: int, arrays: Sequence[np.ndarray]) -> None:
        rest = memoryview(b"".join(array.tobytes() for array in arrays))
        assert len(rest) == record.itemsize
        place = start + index * record.itemsize
        while rest:
            written = os.pwrite(file.fileno(), rest, place)
            place, rest = place + written, rest[written:]

    fill(put)
    digest = _digest(file, key)
    file.seek(0)
    file.write(digest)
    file.flush()
    return _map(file)


def map_records(file: BinaryIO, key: str) -> np.ndarray:
    """Map the records (N,), read-only; they outlive the file's name. Damaged if not as written."""
    file.seek(0)
    if file.read(_DIGEST_BYTES) != _digest(file, key):
        raise Damaged("the records are altered")
    try:
        return _map(file)
    except (ValueError, OverflowError) as error:
        raise Damaged(str(error)) from None


def _digest(file: BinaryIO, key: str) -> bytes:
    file.seek(_DIGEST_BYTES)
    # with the key: a whole file under another name is something else
    own = hashlib.blake2b(key.encode()).digest()
    blake = functools.partial(hashlib.blake2b, digest_size=_DIGEST_BYTES, key=own)
    return hashlib.file_digest(file, blake).digest()  # type: ignore[arg-type]


def _map(file: BinaryIO) -> np.ndarray:
    file.seek(_DIGEST_BYTES)
    npy.read_magic(file)
    shape, _, record = npy.read_array_header_2_0(file)
    return np.memmap(file, record, "r", file.tell(), shape)
