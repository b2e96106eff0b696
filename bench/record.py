"""What every bench tells beside its numbers, and where it keeps them."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IDLE_LOAD = 0.5
"""Load average from which a machine is said to be busy."""
HELP = "keep the JSON here; a bare name goes to bench/results"


def machine() -> dict[str, Any]:
    """The state of code and machine; call it before anything is measured."""
    load = os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "HEAD"),
        "changed_files": git("status", "--porcelain", "--untracked-files=no", "tinyseg"),
        "load": load,
        "idle": load < IDLE_LOAD,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
    }


def git(*arguments: str) -> str:
    """What git says of this repository; empty where it cannot."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def keep(report: dict[str, Any], file: str | None) -> None:
    """Prints the JSON, and writes it when a file is wanted."""
    if file:
        path = ROOT / "bench" / "results" / file if Path(file).name == file else Path(file)
        path = path.with_suffix(".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report))
