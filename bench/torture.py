"""Try to break tinyseg: kills, interrupts, full disks, damaged files, two processes, odd terminals.

Bounded, seeded, and nothing but this machine is reached: `python bench/torture.py --minutes 5`.
Each attack runs for its share of the time, at least once. What fails is printed with what is needed
to understand it; the exit code is then 1.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torture_files as files
import torture_processes as processes
from record import HELP, keep, machine
from torture_lab import Attack, Lab

ATTACKS: dict[str, tuple[float, str, Callable[[Lab, Attack], None]]] = {
    # share of the time, what is counted, attack; those that fork come first
    "kill train": (5, "kills", processes.kill_training),
    "kill train --folds": (3, "kills", processes.kill_folds),
    "kill predict": (2, "kills", processes.kill_prediction),
    "kill report": (2, "kills", processes.kill_report),
    "kill data download": (1, "kills", processes.kill_download),
    "interrupt a start": (2, "interrupts", processes.interrupt_start),
    "interrupt work": (2, "interrupts", processes.interrupt_work),
    "two at once": (1, "pairs", processes.two_at_once),
    "full disk": (1, "disks", processes.full_disk),
    "read-only disk": (0.5, "commands", processes.read_only),
    "low memory": (1, "commands", processes.low_memory),
    "damaged cache": (1, "files", processes.damaged_cache),
    "odd surroundings": (0.5, "commands", processes.odd_surroundings),
    "damaged images": (2, "inputs", files.damaged_images),
    "hostile images": (0.5, "inputs", files.hostile_images),
    "truncated images": (0.5, "inputs", files.truncated_images),
    "damaged runs": (1, "inputs", files.damaged_runs),
    "damaged weights": (0.5, "inputs", files.damaged_weights),
    "damaged archives": (0.5, "inputs", files.damaged_archives),
    "damaged annotations": (1, "inputs", files.damaged_annotations),
}


def attacks(names: list[str], minutes: float, lab: Lab) -> Iterator[Attack]:
    """Run each attack for its share of the time, at least once."""
    total = sum(ATTACKS[name][0] for name in names)
    for name in (name for name in ATTACKS if name in names):
        share, unit, run = ATTACKS[name]
        attack, end = Attack(name, unit), time.monotonic() + 60 * minutes * share / total
        while not attack.count or time.monotonic() < end:
            run(lab, attack)
        yield attack


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--json", metavar="FILE", help=HELP)
    options = parser.parse_args()
    report = {**machine(), "seed": options.seed, "minutes": options.minutes, "attacks": {}}
    totals: dict[str, int] = {}
    failures = 0
    with tempfile.TemporaryDirectory(prefix="tinyseg-torture-") as folder:
        Path(folder).chmod(0o755)  # commands without rights have to find their run
        lab = Lab(Path(folder), options.seed)
        os.environ.update(lab.environment)
        import importlib.readers  # noqa: F401  Python may lie where others cannot read

        import tinyseg.cli.commands  # noqa: F401  once, for all forked processes

        lab.prepare()
        print(f"{'attack':22}{'count':>8} {'of':12}{'failures':>8}")
        for attack in attacks(options.only, options.minutes, lab):
            failed = len(attack.failures)
            print(f"{attack.name:22}{attack.count:8} {attack.unit:12}{failed:8}", flush=True)
            for words in attack.failures[:5]:
                print(f"    {words}", flush=True)
            facts = {"count": attack.count, "unit": attack.unit, "failures": attack.failures[:20]}
            report["attacks"][attack.name] = facts
            totals[attack.unit] = totals.get(attack.unit, 0) + attack.count
            failures += failed
    keep({**report, "totals": totals, "failed": failures}, options.json)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
