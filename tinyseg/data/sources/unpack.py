"""Unpack downloaded archives: nothing leaves the target folder, and nothing fills the disk.

Files are written by their checked names, with their content and nothing else. `tarfile`'s own
data filter is not enough: it lets links through (which could escape, CVE-2025-4517), makes
absolute names relative without a word, and does not cover zip files.
"""

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from shutil import copyfileobj
from typing import IO, Any, BinaryIO, NamedTuple

from tinyseg.errors import DataError

MOST_BYTES = 8 << 30
"""Of all files in an archive together."""
MOST_MEMBERS = 200_000
MOST_RATIO = 100
"""Unpacked bytes per byte of the archive; photos and masks stay far below."""
_ALWAYS = 64 << 20
"""Bytes that even the smallest archive may hold."""
_MOST_HEADER = 16 << 20
_MOST_DIRECTORY = 8 << 20
"""Of a zip file, which is read at once: about 100,000 names."""
_CHUNK = 1 << 20

_DAMAGED = (
    BadGzipFile,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
)


class _Member(NamedTuple):
    name: str
    size: int
    """Bytes, as declared."""
    plain: bool
    """Whether it is a file or a folder, not a link or a device."""
    open: Callable[[], IO[bytes] | None] | None
    """None for a folder."""


def unpack(
    archive: Path,
    target: Path,
    inside: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpack a .zip, .tar or .tar.gz below `target`, a new folder.

    `inside` keeps what lies in that folder of the archive, without the folder ("*" is any one).
    `progress(done, total)` counts bytes of the archive. DataError when the archive is damaged, or
    a member is a link or a device, leaves the target, appears twice, or is too large; delete
    `target` then.
    """
    size = archive.stat().st_size
    limit = min(MOST_BYTES, _ALWAYS + MOST_RATIO * size)
    try:
        with archive.open("rb") as file:
            total = 0
            for count, member in enumerate(_members(file, limit), start=1):
                total += member.size
                if member.size < 0 or total > limit or count > MOST_MEMBERS:
                    raise DataError(
                        f"{archive}: more than {limit >> 20} MiB or {MOST_MEMBERS} files when "
                        "unpacked: not what was published, remove it"
                    )
                _write(archive, member, target, inside)
                if progress:
                    progress(file.tell(), size)
    except _DAMAGED as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{archive}: damaged ({text}); remove it and download it again") from None
    except FileExistsError as error:
        raise DataError(
            f"{archive}: {error.filename} appears twice in it: not what was published, remove it"
        ) from None
    except OSError as error:
        raise DataError(
            f"{archive}: cannot be unpacked to {target} ({error.strerror}); free space or choose "
            "another folder, and run it again"
        ) from None


def _write(archive: Path, member: _Member, target: Path, inside: str) -> None:
    """Write a member if it lies in the folder `inside` of the archive."""
    name = member.name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not name.isprintable():  # not UTF-8, or control characters
        raise _refusal(archive, name, "has a name that is no readable text")
    if name.startswith("/") or "\\" in name or ".." in parts or name[1:2] == ":":
        raise _refusal(archive, name, "leaves the target folder")
    wanted = [part for part in inside.split("/") if part]
    matches = (want in ("*", part) for want, part in zip(wanted, parts, strict=False))
    if len(parts) <= len(wanted) or not all(matches):
        return
    if not member.plain:
        raise _refusal(archive, name, "is a link or a device")
    if member.open:
        path = target.joinpath(*parts[len(wanted) :])
        path.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        assert source is not None  # a regular file has content
        with source, path.open("xb") as out:
            copyfileobj(source, out, _CHUNK)


def _refusal(archive: Path, name: str, reason: str) -> DataError:
    return DataError(f"{archive}: {name[:80]!r} {reason}: nothing is unpacked, remove the archive")


def _members(file: BinaryIO, limit: int) -> Iterator[_Member]:
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"PK":
        yield from _zip_members(file)
    elif magic[:2] == b"\x1f\x8b":
        with GzipFile(fileobj=file) as stream:
            yield from _tar_members(stream)
            _check_rest(stream, limit)
    else:
        yield from _tar_members(file)


def _zip_members(file: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(_Careful(file, _MOST_DIRECTORY)) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            read = None if info.is_dir() else partial(archive.open, info)
            yield _Member(info.filename, info.file_size, plain, read)


def _tar_members(stream: Any) -> Iterator[_Member]:
    with closing(tarfile.TarFile(fileobj=_Careful(stream, _MOST_HEADER))) as archive:  # type: ignore[arg-type]
        for info in archive:
            read = None if info.isdir() else partial(archive.extractfile, info)
            yield _Member(info.name, info.size, info.isreg() or info.isdir(), read)


class _Careful:
    """A file for tarfile and zipfile, which may otherwise read gigabytes of headers at once."""

    def __init__(self, file: Any, most: int) -> None:
        self.file, self.most, self.seek, self.tell = file, most, file.seek, file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        content = bytes(self.file.read(size if 0 <= size <= self.most else self.most + 1))
        if len(content) > self.most:
            raise tarfile.ReadError(f"a header of more than {self.most} bytes")
        return content


def _check_rest(stream: GzipFile, limit: int) -> None:
    """Read what follows the last file: gzip compares its checksum at the end only."""
    rest = 0
    while chunk := stream.read(_CHUNK):
        rest += len(chunk)
        if rest > limit:
            raise tarfile.ReadError("endless after the last file")
