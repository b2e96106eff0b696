"""The log of a run: one JSON object a line, every number of every step and epoch."""

import json
import math
from pathlib import Path
from typing import Any

from tinyseg.common.files import write_atomic

Epoch = dict[str, Any]

OLD_TRAIN_DICE = "hard_dice"
"""What the first logs have in place of "train_dice": Dice of all classes, a mean over batches."""


class MetricsLog:
    """The file metrics.jsonl; each record has a "kind" and the "step" it was written after."""

    def __init__(self, path: Path):
        self.path = path

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a record; what is not finite becomes null."""
        record = {"kind": kind, "step": step, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(record)) + "\n")

    def cut_after(self, step: int) -> None:
        """Remove what a killed process wrote after the checkpoint from which the run resumes."""
        if not self.path.exists():
            return
        kept = [json.dumps(r) for r in read_log(self.path) if r["step"] <= step]
        write_atomic(self.path, "".join(line + "\n" for line in kept))


def read_log(path: Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the records of a log, or those of a kind, without damaged lines."""
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


def history(log: Path) -> list[Epoch]:
    """Return number, loss, training Dice, validation Dice and IoU of each epoch in metrics.jsonl.

    What is missing or no number is None.
    """
    epochs = []
    for record in epochs_of(log):
        pooled = part(part(record, "val"), "pooled")
        train = part(record, "train")
        epochs.append(
            {
                "epoch": record["epoch"],
                "loss": _number(train.get("loss")),
                "train_dice": _number(train.get("train_dice", train.get(OLD_TRAIN_DICE))),
                "val_dice": _number(part(pooled, "dice").get("mean")),
                "val_iou": _number(part(pooled, "iou").get("mean")),
            }
        )
    return epochs


def epochs_of(log: Path) -> list[dict[str, Any]]:
    """Return the records of complete epochs; none where there is no log."""
    records = read_log(log, "epoch") if log.exists() else []
    return [record for record in records if type(record.get("epoch")) is int]


def part(table: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the table at a key of a record, an empty one where there is none."""
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
