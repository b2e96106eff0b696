"""What `predict` has written, kept next to the masks: an interrupted call is continued."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyseg.common.files import portable, remove_stale

NAME = ".tinyseg-predict.jsonl"


class Manifest:
    """A file with one line for each complete mask: its image, and the two files' size and time.

    A mask is done only if it was made with the same key (weights, settings, options), and image
    and mask are unchanged by size and time. Its line is written after it, so that what a kill cuts
    off is predicted again. A line before it, and those of other keys, say which files were written
    here and may be replaced.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.path = folder / NAME
        self._done: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        """Size and time of change of each mask that was written here; None while it is."""
        if self.path.exists():
            remove_stale(folder)
        self._new = not self._read()

    def has(self, image: Path, page: int | None, mask: Path) -> bool:
        """Return whether the mask of this image exists and need not be made again."""
        facts = self._facts(image, page, mask)
        return facts is not None and bool(facts == self._done.get(_name(mask)))

    def ours(self, mask: Path) -> bool:
        """Return whether a mask may be written: there is none, or one that was written here."""
        try:
            stat = (self.folder / mask).stat()
        except OSError:
            return True
        there = [stat.st_size, stat.st_mtime_ns]
        return _name(mask) in self._ours and self._ours[_name(mask)] in (None, there)

    @contextmanager
    def writing(self, image: Path, page: int | None, mask: Path) -> Iterator[None]:
        """Note a mask before it is written, so that it is ours even after a kill, and after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._append({"mask": _name(mask)})
        yield
        self._append({"mask": _name(mask), "facts": self._facts(image, page, mask)})

    def _append(self, record: dict[str, Any]) -> None:
        kept = [{"mask": mask, "written": written} for mask, written in self._ours.items()]
        head = [{"key": self.key}, *kept] if self._new else []
        torn = "" if self._new else "\n" * self._torn()
        with self.path.open("w" if self._new else "a", encoding="utf-8") as file:
            file.write(torn + "".join(json.dumps(one) + "\n" for one in (*head, record)))
        self._new = False

    def _facts(self, image: Path, page: int | None, mask: Path) -> list[Any] | None:
        try:
            stats = [path.stat() for path in (image, self.folder / mask)]
        except OSError:
            return None
        return [
            portable(os.path.realpath(image)),
            page,
            *([s.st_size, s.st_mtime_ns] for s in stats),
        ]

    def _read(self) -> bool:
        """Read what was noted; return whether it has this key."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return False
        records = [record for record in map(_record, lines) if record]
        if not records or "key" not in records[0]:
            return False
        for record in records[1:]:
            facts = record.get("facts")
            written = facts[-1] if isinstance(facts, list) and facts else record.get("written")
            self._ours[str(record.get("mask"))] = written
        if records[0]["key"] != self.key:
            return False
        self._done = {str(record.get("mask")): record.get("facts") for record in records[1:]}
        return True

    def _torn(self) -> bool:
        """Whether the last line was cut off."""
        content = self.path.read_bytes()
        return not content.endswith(b"\n")


def _name(mask: Path) -> str:
    return portable(str(mask))


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
