"""What `predict` has done, kept beside the masks: a call that was cut off is continued."""

import json
from pathlib import Path
from typing import Any

NAME = ".tinyseg-predict.jsonl"


class Ledger:
    """One line for each mask that is whole: of which image, made how.

    A mask counts as done only when it was made with the same key (weights, settings, options),
    image and mask are the files they were then (by size and time of change), and it is there. A
    line is written after its mask: what a kill cuts off is predicted again.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.path = folder / NAME
        self._done = self._read()
        self._new = not self._done

    def has(self, image: Path, page: int | None, mask: Path) -> bool:
        """Whether the mask of this image is there and needs not be made again."""
        facts = self._facts(image, page, mask)
        return facts is not None and bool(facts == self._done.get(str(mask)))

    def add(self, image: Path, page: int | None, mask: Path) -> None:
        """Notes a mask that was written just now."""
        line = json.dumps({"mask": str(mask), "facts": self._facts(image, page, mask)})
        head = json.dumps({"key": self.key}) + "\n" if self._new else "\n" * self._torn()
        with self.path.open("w" if self._new else "a", encoding="utf-8") as file:
            file.write(f"{head}{line}\n")
        self._new = False

    def _facts(self, image: Path, page: int | None, mask: Path) -> list[Any] | None:
        try:
            stats = [path.stat() for path in (image, self.folder / mask)]
        except OSError:
            return None
        return [str(image.resolve()), page, *([s.st_size, s.st_mtime_ns] for s in stats)]

    def _read(self) -> dict[str, Any]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return {}
        records = [record for record in map(_record, lines) if record]
        if not records or records[0].get("key") != self.key:
            return {}
        return {str(record.get("mask")): record.get("facts") for record in records[1:]}

    def _torn(self) -> bool:
        """Whether the last line was cut off."""
        content = self.path.read_bytes()
        return not content.endswith(b"\n")


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
