"""How many planted faults the doctor names first, its false alarms, its time; bench/README.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from record import HELP, ROOT, keep, machine

WANTED_SECONDS = 90
Row = dict[str, Any]


# 1. A process that examines one set-up


def corpus() -> tuple[dict[str, Any], dict[str, Any]]:
    """The planted faults and the healthy set-ups of the tests, by name."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "doctor" / "faults")]
    from corpus import FAULTS, HEALTHY
    from healthy import REAL, SHARED

    there = [one for one in HEALTHY if SHARED.is_dir() or one not in REAL]
    return {one.name: one for one in FAULTS}, {one.name: one for one in there}


def examine(name: str) -> Row:
    """What the doctor says first, its alarms that are not right, and its seconds by stage."""
    faults, healthy = corpus()
    from tinyseg.doctor import diagnose

    one = faults.get(name) or healthy[name]
    with tempfile.TemporaryDirectory() as folder:
        project = one.plant(Path(folder)) if name in faults else one.make(Path(folder))
        begin = time.perf_counter()
        found = diagnose(project)
        seconds = time.perf_counter() - begin
    right = (one.found_by,) if name in faults else one.right
    first = found.first
    loud = [f for f in found.findings if f.level in ("error", "warning") and f.check not in right]
    return {
        "name": name,
        "planted": name in faults,
        "wanted": one.found_by if name in faults else "",
        "first": f"{first.level} {first.check}: {first.seen}" if first else "",
        "named": name in faults and first is not None and first.check == one.found_by,
        "alarms": [f"{f.level} {f.check}: {f.seen}" for f in loud],
        "seconds": round(seconds, 1),
        "stages": {stage: round(spent, 1) for stage, spent in found.seconds.items()},
    }


# 2. All of them, each in a process of its own with nothing cached


def run(name: str) -> Row:
    """Examines a set-up in a fresh process; its cache folder is empty."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, __file__, "--case", name]
        settings = {**os.environ, "XDG_CACHE_HOME": cache}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def line(row: Row) -> str:
    """A row of the table."""
    good = row["named"] if row["planted"] else not row["alarms"]
    said = row["first"] if row["planted"] or good else "; ".join(row["alarms"])
    return f"{'  ' if good else '! '}{row['name'][:40]:42}{row['seconds']:6.1f}  {said[:80]}"


def summary(rows: Sequence[Row]) -> Row:
    """Catch rate, false alarms, and seconds."""
    planted = [row for row in rows if row["planted"]]
    healthy = [row for row in rows if not row["planted"]]
    seconds = [row["seconds"] for row in rows]
    return {
        "faults": len(planted),
        "named first": sum(row["named"] for row in planted),
        "healthy": len(healthy),
        "with false alarms": sum(bool(row["alarms"]) for row in healthy),
        "seconds": {"median": median(seconds), "most": max(seconds)},
    }


def main() -> None:
    """Examine all, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help="examine only this one, in this process")
    parser.add_argument("--only", nargs="+", default=[], help="names that hold one of these words")
    parser.add_argument("--json", metavar="NAME", help=HELP)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(examine(options.case)))
        return
    about, rows = machine(), []
    names = [name for part in corpus() for name in part]
    for name in names:
        if not options.only or any(word in name for word in options.only):
            rows.append(run(name))
            print(line(rows[-1]), flush=True)
    told = summary(rows)
    print(
        f"{told['named first']} of {told['faults']} faults named first, "
        f"{told['with false alarms']} of {told['healthy']} healthy set-ups with false alarms; "
        f"{told['seconds']['median']:.0f} s (median), {told['seconds']['most']:.0f} s at most, "
        f"wanted {WANTED_SECONDS}"
    )
    keep({**about, **told, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
