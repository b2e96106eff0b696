"""Files that are whole or not there, whenever the process dies; folders for one process alone."""

import contextlib
import json
import os
import platform
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tinyseg.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

PARTIAL = ".partial"
STALE_SECONDS = 3600.0
"""A partial file of that age belongs to a process that died."""
LOCK = ".lock"
"""The file in a locked folder; it names who holds the lock."""


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write to a temporary name next to `path`, sync, rename; parent folders are made."""
    path = Path(path)
    if not path.name or path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return the temporary name under which this process writes a file."""
    return path.with_name(f".{os.getpid()}-{abs(hash(path.name)) % 10**8}{PARTIAL}")


def remove_stale(folder: Path, below: bool = True) -> None:
    """Remove the files that a dead process left half written, and no others.

    They are looked for in a folder and, with `below`, in all folders in it.
    """
    for partial in (folder.rglob if below else folder.glob)(f".*-*{PARTIAL}"):
        writer = re.fullmatch(rf"\.(\d+)-\d+{re.escape(PARTIAL)}", partial.name)
        if not writer:
            continue
        with contextlib.suppress(OSError):  # another process may have finished it
            old = time.time() - partial.lstat().st_mtime > STALE_SECONDS
            if old or not _runs(int(writer[1])):
                partial.unlink()


def _runs(process: int) -> bool:
    """Return whether another process of that number may be running on this machine."""
    if process == os.getpid():
        return False
    if os.name != "posix":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and lock it; RunError, which names the other process, where it is locked.

    The lock is the operating system's: it ends with its process, however that dies.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give the name of a folder")
    folder.mkdir(parents=True, exist_ok=True)
    file = _lock(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()  # still locked: it is our own that is removed
        file.close()


def _lock(folder: Path) -> TextIO:
    path = folder / LOCK
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(1000).strip() or "another process"
            file.close()
            raise RunError(
                f"{folder} is in use by {holder}; wait until it ends, or give another --out"
            ) from None
        except OSError:  # a network file system without locks
            pass
        with contextlib.suppress(FileNotFoundError):  # its last holder may have removed it just now
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on {platform.node()} since {since}\n")
    file.flush()
    return file


_MARKS = re.compile(
    rb'^\{\s*"written_by": "tinyseg|<meta name="generator" content="tinyseg|Software\0tinyseg'
    rb"|^(\| )?run[ ,|]+Dice"
)
"""How JSON, pages, pictures and tables begin that a command of tinyseg has written."""


def check_output(path: str | Path, force: bool = False) -> None:
    """Raise RunError, before any work, where a file may not be written.

    It may be new, or replace a file of tinyseg's; with `force` any file. What a killed call left
    half written next to it is removed.
    """
    path = Path(path)
    if not path.name or path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not force and not _written_by_tinyseg(path):
        raise RunError(
            f"{path} exists and was not written by tinyseg; give another name, or force "
            "(--force, force=True) to replace it"
        )
    remove_stale(path.parent, below=False)


def _written_by_tinyseg(path: Path) -> bool:
    if not path.is_file():  # a device, or a FIFO that would wait for its writer
        return False
    with path.open("rb") as file:
        return bool(_MARKS.search(file.read(4096)))


def portable(name: str) -> str:
    """Return a file's name, as this process's locale reads it, as the text it is in UTF-8.

    What is kept in a run's files is the same in every locale; see `native`.
    """
    try:
        return os.fsencode(name).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # not from the file system, such as a name in an annotation file
        return name


def native(name: str) -> str:
    """Return a name of `portable` as this process's locale reads and writes it."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name of any bytes
        text = json.dumps(content, indent=1)
    write_atomic(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON that a run needs; RunError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; is this a run folder of tinyseg?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it or train again") from None
