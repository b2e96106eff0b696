"""The log of a run: one JSON object a line, every number of every step and epoch."""

import json
import math
from pathlib import Path
from typing import Any

from tinyseg.files import write_atomic


class Log:
    """Appends to metrics.jsonl; each record has a "kind" and the "step" it was written after."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Appends a record; what is not finite becomes null."""
        record = {"kind": kind, "step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(record)) + "\n")

    def cut_after(self, step: int) -> None:
        """Drops what a killed process wrote after the checkpoint from which the run goes on."""
        if not self.path.exists():
            return
        kept = [json.dumps(r) for r in read_log(self.path) if r["step"] <= step]
        write_atomic(self.path, "".join(line + "\n" for line in kept))


def read_log(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """The records of a log, or those of a kind; a line that is damaged is left out."""
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
            whole = type(record["step"]) is int
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):
            continue
        if whole and kind in ("", record.get("kind")):
            records.append(record)
    return records


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
