"""Logs and settings of several runs: how they differ, and from which epoch on."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from tinyseg.config import Config
from tinyseg.runs.metrics_log import Epoch, epochs_of, part


def differences(configs: Sequence[Config]) -> dict[str, Any]:
    """Return the settings in which runs differ, as rows (key, a value for each).

    A single run is compared with the defaults.
    """
    compared = [*configs, Config()] if len(configs) == 1 else list(configs)
    tables = [asdict(config) for config in compared]
    rows = []
    for section, values in tables[0].items():
        for name in values:
            each = [table[section][name] for table in tables]
            if any(value != each[0] for value in each[1:]):
                rows.append([f"{section}.{name}", *(str(value) for value in each)])
    return {"with_defaults": len(configs) == 1, "rows": rows}


def mean_history(histories: Sequence[Sequence[Epoch]]) -> list[Epoch]:
    """Return means over runs of their histories; of each epoch over the runs that reached it."""
    epochs = []
    for epoch in sorted({one["epoch"] for history in histories for one in history}):
        same = [one for history in histories for one in history if one["epoch"] == epoch]
        values = {key: [one[key] for one in same if one[key] is not None] for key in same[0]}
        means = {key: fmean(there) if there else None for key, there in values.items()}
        epochs.append({**means, "epoch": epoch})
    return epochs


def parting(logs: Sequence[Path]) -> dict[str, int | None] | None:
    """Return the first epoch whose numbers are not the same in all runs; None for a single run.

    "epoch" is None when all epochs that they share ("shared") are the same.
    """
    if len(logs) < 2:
        return None
    tables = [{record["epoch"]: _measured(record) for record in epochs_of(log)} for log in logs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    first = (e for e in shared if any(table[e] != tables[0][e] for table in tables[1:]))
    return {"shared": len(shared), "epoch": next(first, None)}


def _measured(record: dict[str, Any]) -> dict[str, Any]:
    """Return an epoch's numbers, without the time it took."""
    train = {k: v for k, v in part(record, "train").items() if k != "seconds"}
    return {**record, "train": train}
