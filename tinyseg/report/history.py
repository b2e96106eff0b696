"""What a run's log and settings tell: its epochs, and how runs differ."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinyseg.config import Config
from tinyseg.track import read_log

Epoch = dict[str, Any]


def history(log: Path) -> list[Epoch]:
    """The epochs of metrics.jsonl: number, loss, Dice in training, Dice and IoU in validation.

    What is missing or no number is None.
    """
    epochs = []
    for record in _epochs(log):
        pooled = _part(_part(record, "val"), "pooled")
        train = _part(record, "train")
        epochs.append(
            {
                "epoch": record["epoch"],
                "loss": _number(train.get("loss")),
                "train_dice": _number(train.get("hard_dice")),
                "val_dice": _number(_part(pooled, "dice").get("mean")),
                "val_iou": _number(_part(pooled, "iou").get("mean")),
            }
        )
    return epochs


def _epochs(log: Path) -> list[dict[str, Any]]:
    records = read_log(log, "epoch") if log.exists() else []
    return [record for record in records if type(record.get("epoch")) is int]


def _part(table: dict[str, Any], key: str) -> dict[str, Any]:
    found = table.get(key)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float | None:
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def differences(configs: Sequence[Config]) -> dict[str, Any]:
    """Settings in which runs differ: column titles and rows (key, a value for each).

    A single run is compared with the defaults.
    """
    compared = [*configs, Config()] if len(configs) == 1 else list(configs)
    tables = [asdict(config) for config in compared]
    rows = []
    for section, values in tables[0].items():
        for name in values:
            found = [table[section][name] for table in tables]
            if any(value != found[0] for value in found[1:]):
                rows.append([f"{section}.{name}", *(str(value) for value in found)])
    return {"with_defaults": len(configs) == 1, "rows": rows}


def parting(logs: Sequence[Path]) -> dict[str, int | None] | None:
    """The first epoch whose numbers are not the same in all runs; None for a single run.

    "epoch" is None when all epochs that they share ("shared") are the same.
    """
    if len(logs) < 2:
        return None
    tables = [{record["epoch"]: _measured(record) for record in _epochs(log)} for log in logs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    first = (e for e in shared if any(table[e] != tables[0][e] for table in tables[1:]))
    return {"shared": len(shared), "epoch": next(first, None)}


def _measured(record: dict[str, Any]) -> dict[str, Any]:
    """An epoch's numbers, without the time it took."""
    train = {k: v for k, v in _part(record, "train").items() if k != "seconds"}
    return {**record, "train": train}
