"""Equal records of arrays in one file, to be memory-mapped: raw data, then a footer to check it.

The footer is JSON (fields, count, digest, facts), its CRC-32, its length and MAGIC. The digest is
that of the records' CRC-32s, so that records can be written in any order.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, BinaryIO

import numpy as np

MAGIC = b"tinyseg records 1\n"
_TAIL = struct.Struct(f"<IQ{len(MAGIC)}s")
_TYPES = ("|u1", "<u2", "<i4", "<f4", "<f8")


class Damaged(Exception):
    """A file of records cannot be used."""


class Writer:
    """Write records into an open file, each by its index; `finish` makes the file whole."""

    def __init__(self, file: BinaryIO, record: np.dtype[Any], count: int):
        self.file, self.record, self.sums = file, record, np.zeros(count, np.uint32)

    def put(self, index: int, arrays: Iterable[np.ndarray]) -> None:
        """Write one array for each field. OSError on a full disk, where a map would crash."""
        content = b"".join(array.tobytes() for array in arrays)
        assert len(content) == self.record.itemsize
        start, rest = index * self.record.itemsize, memoryview(content)
        while rest:
            written = os.pwrite(self.file.fileno(), rest, start)
            start, rest = start + written, rest[written:]
        self.sums[index] = zlib.crc32(content)

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the footer."""
        footer = {
            "fields": [[n, self.record[n].base.str, self.record[n].shape] for n in _names(self)],
            "count": len(self.sums),
            "digest": _digest(self.sums),
            "facts": facts,
        }
        text = json.dumps(footer).encode()
        self.file.seek(len(self.sums) * self.record.itemsize)
        self.file.write(text + _TAIL.pack(zlib.crc32(text), len(text), MAGIC))
        self.file.flush()


def _names(writer: Writer) -> tuple[str, ...]:
    return writer.record.names or ()


def read_footer(file: BinaryIO) -> dict[str, Any]:
    """Return the footer, with the records' dtype as "record"; Damaged when it is not whole."""
    size = file.seek(0, os.SEEK_END)
    try:
        file.seek(size - _TAIL.size)
        check, length, magic = _TAIL.unpack(file.read(_TAIL.size))
        start = file.seek(size - _TAIL.size - length)
        text = file.read(length)
        if magic != MAGIC or zlib.crc32(text) != check:
            raise Damaged("the footer is damaged")
        footer: dict[str, Any] = json.loads(text)
        footer["record"] = np.dtype([_field(*field) for field in footer["fields"]])
        if start != footer["count"] * footer["record"].itemsize:
            raise Damaged("the records are cut off")
        return footer
    except (OSError, ValueError, TypeError, KeyError, OverflowError, struct.error) as error:
        raise Damaged(str(error)) from None


def _field(name: str, kind: str, shape: list[int]) -> tuple[str, str, tuple[int, ...]]:
    if kind not in _TYPES or prod(shape) < 0:
        raise ValueError(f"a field of {kind} {shape}")
    return name, kind, tuple(shape)


def map_records(file: BinaryIO, footer: Mapping[str, Any]) -> np.ndarray:
    """Map the records (N,), read-only; they outlive the file's name."""
    return np.memmap(file, footer["record"], mode="r", shape=(footer["count"],))


def check_records(records: np.ndarray, footer: Mapping[str, Any]) -> None:
    """Raise Damaged when a record is not as it was written."""
    rows = records.view(np.uint8).reshape(len(records), records.itemsize)
    if _digest(np.array([zlib.crc32(row.data) for row in rows], np.uint32)) != footer["digest"]:
        raise Damaged("the records are altered")


def _digest(sums: np.ndarray) -> str:
    return hashlib.blake2b(sums.tobytes(), digest_size=16).hexdigest()
