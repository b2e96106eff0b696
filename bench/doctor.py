"""Which faults the doctor finds and names first, its false alarms, its time; bench/README.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from record import HELP, ROOT, keep, machine

WANTED_SECONDS = 90
TIMEOUT = 400
Row = dict[str, Any]
PARTS = ("own", "ported", "mutants", "held-out", "unusual", "healthy")
"""Parts of the bench; the mutants of half of the programs are held out."""


# 1. A process that examines one set-up


def corpus(part: str) -> dict[str, Any]:
    """The cases of a part by name: planted faults of the tests, ported ones, mutants, healthy."""
    folders = (ROOT, ROOT / "tests" / "doctor" / "faults", ROOT / "bench" / "doctor_cases")
    sys.path[:0] = [str(folder) for folder in folders]
    if part in ("own", "healthy"):
        return _of_tests(part)
    if part == "ported":
        from ported import PORTED

        return {one.name: one for one in PORTED}
    if part == "unusual":
        from unusual import UNUSUAL

        return {one.name: one for one in UNUSUAL}
    from mutants import is_held_out, mutants

    wanted = part == "held-out"
    return {one.name: one for title, one in mutants() if is_held_out(title) == wanted}


def _of_tests(part: str) -> dict[str, Any]:
    """The corpus of the tests in the form of the others."""
    from case import Case
    from corpus import FAULTS, HEALTHY
    from healthy import REAL, SHARED

    if part == "own":
        return {f.name: Case(f.name, f.plant, f"^{f.found_by}:", ".|") for f in FAULTS}
    there = [one for one in HEALTHY if SHARED.is_dir() or one not in REAL]
    return {one.name: Case(one.name, one.make, allowed=one.right) for one in there}


def examine(part: str, name: str) -> Row:
    """What the doctor says of a case, judged, and its seconds by stage."""
    case = corpus(part)[name]
    from tinyseg.device.choose import backend
    from tinyseg.doctor import diagnose

    backend()  # before a case makes Tensors of its own
    with tempfile.TemporaryDirectory() as folder:
        project = case.make(Path(folder))
        begin = time.perf_counter()
        result = diagnose(project)
        seconds = time.perf_counter() - begin
    first = result.first
    loud = [f for f in result.findings if f.level in ("error", "warning")]
    loud = [f for f in loud if f.check not in case.allowed]
    return {
        "name": name,
        "part": part,
        "source": case.source,
        "first": f"{first.level} {first.check}: {first.seen} | {first.remedy}" if first else "",
        "detected": bool(loud),
        "named": bool(case.cause and first and case.named_by(first)),
        "remedied": bool(case.cause and first and case.remedied_by(first)),
        "alarms": [f"{f.level} {f.check}: {f.seen}" for f in loud],
        "seconds": round(seconds, 1),
        "stages": {stage: round(spent, 1) for stage, spent in result.seconds.items()},
    }


# 2. All of them, each in a process of its own


def run(part: str, name: str, cache: str) -> Row:
    """Examine a case in a fresh process; without `cache` its cache folder is empty."""
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, __file__, "--case", part, name]
        settings = {**os.environ, "XDG_CACHE_HOME": cache or empty}
        try:
            done = subprocess.run(
                command, env=settings, capture_output=True, text=True, check=False, timeout=TIMEOUT
            )
            failed = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            failed = [f"no verdict within {TIMEOUT} s"]
    if failed:
        row = {"name": name, "part": part, "first": f"CRASH {failed[0]}", "alarms": [failed[0]]}
        return {**row, "detected": False, "named": False, "remedied": False, "seconds": 0.0}
    result: Row = json.loads(done.stdout.splitlines()[-1])
    return result


def is_healthy(row: Row) -> bool:
    """Whether nothing is wrong with a case."""
    return row["part"] in ("unusual", "healthy")


def line(row: Row) -> str:
    """A row of the table."""
    good = not row["alarms"] if is_healthy(row) else row["named"]
    said = "; ".join(row["alarms"]) if is_healthy(row) else row["first"]
    return f"{'  ' if good else '! '}{row['name'][:52]:54}{row['seconds']:6.1f}  {said[:110]}"


def summary(rows: Sequence[Row]) -> dict[str, Row]:
    """Counts and seconds of each part."""
    parts: dict[str, Row] = {}
    for part in dict.fromkeys(row["part"] for row in rows):
        its = [row for row in rows if row["part"] == part]
        counted = ("alarms",) if is_healthy(its[0]) else ("detected", "named", "remedied")
        seconds = [row["seconds"] for row in its]
        parts[part] = {
            "cases": len(its),
            **{name: sum(bool(row[name]) for row in its) for name in counted},
            "seconds": {"median": median(seconds), "most": max(seconds)},
        }
    return parts


def main() -> None:
    """Examine all, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, help="examine only this one, in this process")
    parser.add_argument("--part", nargs="+", default=["own", "healthy"], choices=PARTS)
    parser.add_argument("--only", nargs="+", default=[], help="names that hold one of these words")
    parser.add_argument("--every", type=int, default=1, help="only every so many cases")
    parser.add_argument("--workers", type=int, default=1, help="processes; times need 1")
    parser.add_argument("--cache", default="", help="a cache folder that all cases share")
    parser.add_argument("--json", metavar="NAME", help=HELP)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(examine(*options.case)))
        return
    about, rows = machine(), list[Row]()
    cases = [(part, name) for part in options.part for name in list(corpus(part))[:: options.every]]
    chosen = [c for c in cases if not options.only or any(word in c[1] for word in options.only)]
    with ThreadPoolExecutor(options.workers) as pool:
        for row in pool.map(lambda case: run(*case, options.cache), chosen):
            rows.append(row)
            print(line(row), flush=True)
    parts = summary(rows)
    for part, counts in parts.items():
        print(f"{part}: {counts} (wanted: at most {WANTED_SECONDS} s)")
    keep({**about, "parts": parts, "rows": rows}, options.json)


if __name__ == "__main__":
    main()
