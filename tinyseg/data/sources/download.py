"""Download the published archives of a named dataset: the only place that uses the network."""

import hashlib
import http.client
import json
import re
import shutil
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from tinyseg.common.files import PARTIAL, remove_stale, write_json
from tinyseg.common.progress import Progress
from tinyseg.data.sample import name_some
from tinyseg.data.sources import SOURCES, Archive, Source
from tinyseg.data.sources.unpack import MOST_BYTES, unpack
from tinyseg.errors import DataError

_MIB = 1 << 20
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Status codes after which trying again may help."""
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Patience:
    """How long to wait on a bad connection."""

    timeout: float = 30.0
    """Seconds without a byte."""
    tries: int = 4
    """Connections in a row that may bring nothing new."""
    pause: float = 1.0
    """Seconds before the second try, doubled for each further one."""


class _Broken(Exception):
    """The connection failed in a way that may pass."""


def download(
    name: str,
    folder: str | Path,
    say: Callable[[str], None] = print,
    patience: Patience = Patience(),
) -> None:
    """Download and unpack what a folder lacks of a named dataset.

    A download that was cut off is continued, also by a later call. An archive that is already in
    the folder under its published name is used, and kept. Size and SHA-256 are compared where they
    are published. DataError says what to do about everything that can go wrong.
    """
    if name not in SOURCES:
        raise DataError(f"unknown dataset {name!r}; known: {', '.join(SOURCES)}")
    source, folder = SOURCES[name], Path(folder)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give the name of a folder")
    _remove_leftovers(source, folder)
    if folder.is_dir() and not source.missing(folder):
        say(f"{name} is complete in {folder}; use it as {name}:{folder}")
        return
    say(f"{source.title} ({source.terms})")
    folder.mkdir(parents=True, exist_ok=True)
    for archive in source.archives:
        if not _is_complete(source, archive, folder):
            _complete(source, archive, folder, patience)
    say(f"{name} is complete in {folder}; use it as {name}:{folder}")


def _path(archive: Archive, folder: Path) -> Path:
    return folder / urlsplit(archive.url).path.rpartition("/")[2]


def _is_complete(source: Source, archive: Archive, folder: Path) -> bool:
    return all((source.root(folder) / part).exists() for part in archive.gives)


def _complete(source: Source, archive: Archive, folder: Path, patience: Patience) -> None:
    path = _path(archive, folder)
    partial = _Partial(archive, path)
    own = path.exists() and not partial.finished
    if not path.exists():
        _fetch(partial, patience)
    elif wrong := _wrong(archive, path):
        raise DataError(f"{path}: {wrong}; remove it, or put the right file there")
    try:
        _place(archive, path, folder)
        lacking = [part for part in archive.gives if not (source.root(folder) / part).exists()]
        if lacking:
            raise DataError(
                f"{path}: does not hold {name_some(lacking)}; remove it, look elsewhere"
            )
    except DataError:
        partial.note.unlink(missing_ok=True)  # the archive stays, for a look at it
        raise
    if not own:
        partial.discard()


def _remove_leftovers(source: Source, folder: Path) -> None:
    """Remove what a killed call left of archives that are unpacked already."""
    remove_stale(folder, below=False)
    for archive in source.archives:
        partial = _Partial(archive, _path(archive, folder))
        if _is_complete(source, archive, folder) and partial.note.exists():
            partial.discard()


def _place(archive: Archive, path: Path, folder: Path) -> None:
    """Unpack to a temporary folder, then rename: what has its name in the folder is whole."""
    temporary = path.with_name(f".{path.name}{PARTIAL}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with Progress(f"unpacking {_short(path)}") as progress:
            unpack(
                path,
                temporary / archive.folder,
                archive.inside,
                lambda done, total: progress.update(done // _MIB, -(-total // _MIB), "MiB"),
            )
        for entry in sorted(temporary.iterdir()):
            if not (folder / entry.name).exists():
                entry.rename(folder / entry.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _short(path: Path) -> str:
    """A name that leaves room for the progress bar."""
    return path.name if len(path.name) <= 24 else f"{path.name[:8]}…{path.suffix}"


def fetch(archive: Archive, path: Path, patience: Patience = Patience()) -> None:
    """Download an archive to `path`, which exists only when it is whole and as published."""
    partial = _Partial(archive, path)
    _fetch(partial, patience)
    partial.note.unlink(missing_ok=True)


def _fetch(partial: "_Partial", patience: Patience) -> None:
    """The same, but the note stays: it says that the archive is no one else's."""
    archive, tries, most = partial.archive, 0, partial.size
    with Progress(f"downloading {_short(partial.whole)}") as progress:
        while True:
            try:
                _attempt(archive, partial, patience.timeout, progress)
                break
            except _Broken as error:
                tries = 1 if partial.size > most else tries + 1
                most = max(most, partial.size)
                if tries >= patience.tries:
                    raise DataError(
                        f"{archive.url}: {error}; check the connection and run it again, "
                        f"{partial.size / _MIB:.1f} MiB are kept"
                    ) from None
                time.sleep(patience.pause * 2 ** (tries - 1))
    if wrong := _wrong(archive, partial.path):
        partial.discard()
        raise DataError(f"{archive.url}: {wrong}; the download is deleted: run it again")
    partial.path.rename(partial.whole)


class _Partial:
    """The bytes downloaded so far, and the version of the file that they belong to."""

    def __init__(self, archive: Archive, path: Path) -> None:
        self.archive, self.whole = archive, path
        self.path = path.with_name(path.name + PARTIAL)
        self.note = path.with_name(path.name + PARTIAL + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> str | None:
        """The server's name of the version of these bytes; None when they cannot be continued."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return str(note["version"]) if note["url"] == self.archive.url else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def open(self, first: int, version: str) -> BinaryIO:
        """Open for writing from byte `first` on; 0 starts again."""
        try:
            if first == 0:
                self.path.unlink(missing_ok=True)
                write_json(self.note, {"url": self.archive.url, "version": version})
            return self.path.open("ab", buffering=0)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written ({error.strerror})") from None

    @property
    def finished(self) -> bool:
        """Whether the whole file was downloaded here, by a call that was killed before its end."""
        return self.whole.exists() and self.note.exists() and not self.path.exists()

    def discard(self) -> None:
        """Remove all that was downloaded here; a file that somebody else brought stays."""
        if self.finished:
            self.whole.unlink()
        shutil.rmtree(self.whole.with_name(f".{self.whole.name}{PARTIAL}"), ignore_errors=True)
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _attempt(archive: Archive, partial: _Partial, timeout: float, progress: Progress) -> None:
    """Read from one connection; _Broken when it ends before the file is whole."""
    version = partial.version()
    start = partial.size if version else 0
    headers = {"User-Agent": "tinyseg", "Accept-Encoding": "identity"}
    if version and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        with _open(archive.url, headers, timeout) as response:
            first, total = _extent(response, start)
            _check_length(archive, total, first, partial.path.parent)
            _copy(response, partial, first, total, progress)
    except HTTPError as error:
        error.close()
        answer = f"the server says {error.code} {' '.join(str(error.reason).split())}"
        if error.code == 416 and start:
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            partial.discard()
            raise _Broken("the file on the server has changed") from None
        if error.code in _BUSY:
            raise _Broken(answer) from None
        raise _final(archive, partial, answer) from None
    except (http.client.HTTPException, OSError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _final(archive, partial, f"certificate: {reason.verify_message}") from None
        raise _Broken(str(reason) or type(reason).__name__) from None


def _final(archive: Archive, partial: _Partial, reason: str) -> DataError:
    return DataError(
        f"{archive.url}: {reason}; look for the file by hand and put it at {partial.whole}"
    )


class _SafeRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        try:
            _check_url(newurl, local=urlsplit(req.full_url).hostname in _LOCAL)
        except DataError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, headers: dict[str, str], timeout: float) -> Any:
    _check_url(url, local=True)
    return build_opener(_SafeRedirects).open(Request(url, headers=headers), timeout=timeout)


def _check_url(url: str, local: bool) -> None:
    """Allow https everywhere, and http on this machine only."""
    parts = urlsplit(url)
    on_this_machine = local and parts.scheme == "http" and parts.hostname in _LOCAL
    if parts.scheme != "https" and not on_this_machine:
        raise DataError(f"{url[:200]!r} is not https; nothing is downloaded from there")


def _extent(response: Any, start: int) -> tuple[int, int | None]:
    """Return the position of the body's first byte, and the length of the whole file if known."""
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start:
            raise _Broken("the server sent another part than was asked for")
        return start, int(match[2])
    return 0, response.length


def _check_length(archive: Archive, total: int | None, first: int, folder: Path) -> None:
    if total is None:
        return
    if total != (archive.size or total) or total > MOST_BYTES:
        raise DataError(
            f"{archive.url}: has {total} bytes, published are {archive.size or 'far fewer'}; "
            "the file has changed, it is not downloaded"
        )
    free = shutil.disk_usage(folder).free
    if total - first > free:
        raise DataError(
            f"{folder}: {(total - first) // _MIB} MiB to download, {free // _MIB} MiB free; "
            "free space or choose another folder"
        )


def _copy(
    response: Any, partial: _Partial, first: int, total: int | None, progress: Progress
) -> None:
    etag = response.headers.get("ETag", "")
    # a weak ETag cannot name bytes
    version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
    done, title = first, progress.title.partition(":")[0]
    with partial.open(first, version or "") as file:
        progress.update(done // _MIB)
        progress.restart()
        while chunk := response.read1(1 << 16):
            _write(file, chunk)
            done += len(chunk)
            if done > (total or MOST_BYTES):
                partial.discard()
                raise DataError(f"{partial.archive.url}: longer than {total or MOST_BYTES} bytes")
            if total:
                progress.update(done // _MIB, -(-total // _MIB), "MiB")
            else:
                progress.title = f"{title}: {done // _MIB} MiB"
    if total is not None and done < total:
        raise _Broken(f"the connection was cut off at byte {done} of {total}")


def _write(file: BinaryIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise DataError(
            f"{file.name}: cannot be written ({error.strerror}); free space and run it again, it "
            "goes on from there"
        ) from None


def _wrong(archive: Archive, path: Path) -> str:
    """Return how a file differs from the published size and SHA-256; empty if it does not."""
    size = path.stat().st_size
    if size != (archive.size or size):
        return f"{size} bytes, published are {archive.size}"
    if not archive.sha256:
        return ""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == archive.sha256 else f"SHA-256 {digest}, published is {archive.sha256}"
