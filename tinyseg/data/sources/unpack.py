"""Archives of strangers to files: nothing leaves the target folder, nothing fills the disk."""

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from tinyseg.errors import DataError

MOST_BYTES = 8 << 30
"""Of all files in an archive together."""
MOST_MEMBERS = 200_000
MOST_RATIO = 100
"""Bytes unpacked for a byte of the archive; photos and masks stay far below."""
_ALWAYS = 64 << 20
"""Bytes that even the smallest archive may hold."""
_MOST_HEADER = 16 << 20
_CHUNK = 1 << 20

_DAMAGED = (
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    """Bytes, as declared."""
    refused: str
    """Why it must not be unpacked, else empty."""
    open: Callable[[], IO[bytes] | None] | None
    """None for a folder."""


def unpack(
    archive: Path,
    target: Path,
    inside: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpacks a .zip, .tar or .tar.gz below `target`, a new folder; only files, with new rights.

    `inside` keeps what lies in that folder of the archive, without the folder ("*" is any one).
    DataError when it is damaged, or a member is a link or a device, leaves the target, stands
    twice, or is too large; `target` is then to be thrown away. `progress(done, total)` counts
    bytes of the archive.
    """
    limit = min(MOST_BYTES, _ALWAYS + MOST_RATIO * archive.stat().st_size)
    try:
        with archive.open("rb") as file:
            total = 0
            for count, member in enumerate(_members(file, limit), start=1):
                parts = _safe_parts(archive, member)
                total += member.size
                if member.size < 0 or total > limit or count > MOST_MEMBERS:
                    raise DataError(
                        f"{archive}: more than {limit >> 20} MiB or {MOST_MEMBERS} files when "
                        "unpacked: not what was published, remove it"
                    )
                kept = _below(parts, inside)
                if kept and member.refused:
                    raise _refusal(archive, member, member.refused)
                _write(member, target, kept)
                if progress:
                    progress(file.tell(), archive.stat().st_size)
    except _DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive}: damaged ({text}); remove it and download it again") from None
    except FileExistsError as error:
        raise DataError(
            f"{archive}: {error.filename} stands twice in it: not what was published, remove it"
        ) from None
    except OSError as error:
        raise DataError(
            f"{archive}: cannot be unpacked to {target} ({error.strerror}); free space or choose "
            "another folder, and run it again"
        ) from None


def _safe_parts(archive: Path, member: _Member) -> list[str]:
    name, why = member.name, ""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or "\\" in name or ".." in parts or name[1:2] == ":":
        why = "leaves the target folder"
    if not name.isprintable():  # not UTF-8, or control characters
        why = "has a name that is no readable text"
    if why:
        raise _refusal(archive, member, why)
    return parts


def _refusal(archive: Path, member: _Member, why: str) -> DataError:
    return DataError(
        f"{archive}: {member.name[:80]!r} {why}: nothing is unpacked, remove the archive"
    )


def _below(parts: list[str], inside: str) -> list[str]:
    """What remains of a path below the folder `inside`; nothing when it is not in there."""
    wanted = [part for part in inside.split("/") if part]
    same = len(parts) > len(wanted) and all(
        want in ("*", part) for want, part in zip(wanted, parts, strict=False)
    )
    return parts[len(wanted) :] if same else []


def _write(member: _Member, target: Path, parts: list[str]) -> None:
    if not parts or not member.open:
        return
    path = target.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # a regular file has content
    with source, path.open("xb") as out:
        while chunk := source.read(_CHUNK):
            out.write(chunk)


def _members(file: BinaryIO, limit: int) -> Iterator[_Member]:
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"PK":
        yield from _zip_members(file)
    elif magic[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=file) as stream:
            yield from _tar_members(stream)
            _check_rest(stream, limit)
    else:
        yield from _tar_members(file)


def _zip_members(file: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            refused = "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device"
            read = None if info.is_dir() else partial(archive.open, info)
            yield _Member(info.filename, info.file_size, refused, read)


def _tar_members(stream: Any) -> Iterator[_Member]:
    with closing(tarfile.TarFile(fileobj=_Careful(stream))) as archive:  # type: ignore[arg-type]
        for info in archive:
            refused = "" if info.isreg() or info.isdir() else "is a link or a device"
            read = None if info.isdir() else partial(archive.extractfile, info)
            yield _Member(info.name, info.size, refused, read)


class _Careful:
    """A file for tarfile, whose headers may otherwise have gigabytes read at once."""

    def __init__(self, file: Any) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return bytes(self.file.read(size))


def _check_rest(stream: gzip.GzipFile, limit: int) -> None:
    """Reads what follows the last file: only at its end gzip compares the checksum."""
    rest = 0
    while chunk := stream.read(_CHUNK):
        rest += len(chunk)
        if rest > limit:
            raise tarfile.ReadError("endless after the last file")
