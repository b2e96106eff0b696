"""Writing so that a file is whole or not there, whenever the process dies."""

import json
import os
from pathlib import Path
from typing import Any

from tinyseg.errors import RunError

PARTIAL = ".partial"


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Writes to a temporary name beside `path`, syncs, renames; parents are made."""
    path = Path(path)
    if not path.name or path.is_dir():
        raise RunError(f"{path} is a folder; give the name of a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    # short, whatever the length of the file's name
    partial = path.with_name(f".{os.getpid()}-{abs(hash(path.name)) % 10**8}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON atomically, readable by people."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name of any bytes
        text = json.dumps(content, indent=1)
    write_atomic(path, text + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON that a run needs; RunError when it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; is this a run folder of tinyseg?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it or train anew") from None
