"""Pairs tinyseg's training step and inference with PyTorch's; see bench/README.md."""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from record import HELP, ROOT, keep, machine
from worker import CASES, Row

# the parent imports nothing heavy: a child's ru_maxrss starts at the size of its parent

TUNED_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
}
"""glibc settings that make PyTorch up to twice as fast on large images."""
TOLERANCES = (1e-5, 5e-4, 2.5e-3)
"""Of the first three losses, relative. Adam's first step is the sign of the gradient, so a weight
whose gradient is rounding noise moves by the whole learning rate: later losses agree less."""
PROBABILITY_TOLERANCE = 1e-4
LOOSE_TOLERANCE = 0.05
"""Of bfloat16, and of GPUs, where PyTorch multiplies in TF32."""
NOT_IDLE = "not idle (load average {:.2f}): these numbers are no record; PyTorch loses most by it"
NO_TORCH = "PyTorch is not installed, so tinyseg is measured alone: pip install torch==2.13.0"


@dataclass(frozen=True)
class Variant:
    """A way to run PyTorch."""

    layout: str
    tuned: bool
    autocast: bool
    compile: bool

    def __str__(self) -> str:
        extras = {"tuned malloc": self.tuned, "bf16": self.autocast, "compiled": self.compile}
        return ", ".join([f"torch {self.layout}", *(name for name in extras if extras[name])])


def variants(device: str, autocast: bool, compiled: bool) -> list[Variant]:
    """All ways to run PyTorch on tinygrad's `device`; the best of them counts."""
    malloc = (False, True) if device == "CPU" and platform.libc_ver()[0] == "glibc" else (False,)
    optional = [(False, True) if wanted else (False,) for wanted in (autocast, compiled)]
    return [
        Variant(*chosen)
        for chosen in itertools.product(("nchw", "channels_last"), malloc, *optional)
    ]


# 1. Fresh processes, interleaved


@dataclass(frozen=True)
class Pairing:
    """Runs both sides of one case; `folder` holds the weights and the caches."""

    name: str
    options: argparse.Namespace
    folder: str

    def measure(self) -> Row:
        """Verify, then time round by round; each process is verified again."""
        cold = {kind: self.run("tinyseg", kind, steps=0) for kind in ("train", "predict")}
        device = cold["train"]["facts"]["device"]
        peers = variants(device, self.options.autocast, self.options.compile) if has_torch() else []
        first = {
            kind: agree(kind, variant, cold[kind], self.run(variant, kind, device, steps=0))
            for kind, variant in itertools.product(cold, peers[:1])
        }
        found: dict[str, dict[str, list[Row]]] = {}
        for turn, kind in itertools.product(range(self.options.rounds), cold):
            for side in ["tinyseg", *peers]:
                print(f"{self.name} round {turn + 1}: {kind} {side}", file=sys.stderr, flush=True)
                result = self.run(side, kind, device)
                agree(kind, side, cold[kind], result)
                found.setdefault(str(side), {}).setdefault(kind, []).append(result)
        rows = {side: summary(kinds["train"], kinds["predict"]) for side, kinds in found.items()}
        return describe(self.name, cold, rows) | {"difference": first}

    def run(self, side: Any, kind: str, device: str = "", steps: int | None = None) -> Row:
        """One process, from its start to the result on its last line."""
        task = {
            "side": "tinyseg" if side == "tinyseg" else "torch",
            "kind": kind,
            "case": self.name,
            "device": device,
            "options": {} if side == "tinyseg" else asdict(side),
            "precision": "bfloat16" if self.options.autocast else "float32",
            "weights": f"{self.folder}/weights.npz",
            "threads": self.options.threads,
            "warmup": self.options.warmup if steps is None else 0,
            "steps": self.options.steps if steps is None else steps,
        }
        text = json.dumps(task | {"started": time.time()})
        command = [sys.executable, str(ROOT / "bench" / "worker.py"), text]
        environment = self._environment(side != "tinyseg" and side.tuned)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{side} failed on case {self.name}:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.splitlines()[-1])

    def _environment(self, tuned: bool) -> dict[str, str]:
        """The parent's, with the same thread count for both sides and caches of its own."""
        kept = {name: text for name, text in os.environ.items() if not name.startswith("MALLOC_")}
        threads = str(self.options.threads)
        ours = {
            "CPU_COUNT": threads,
            "OMP_NUM_THREADS": threads,
            "XDG_CACHE_HOME": f"{self.folder}/cache",
            "TORCHINDUCTOR_CACHE_DIR": f"{self.folder}/inductor",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")])),
        }
        return kept | ours | (TUNED_MALLOC if tuned else {})


def agree(kind: str, side: Any, ours: Row, theirs: Row) -> list[float]:
    """Stop unless both sides computed the same; the difference of each loss, or the largest."""
    pairs = list(zip(ours["checked"], theirs["checked"], strict=True))
    limits = list(TOLERANCES) if kind == "train" else [PROBABILITY_TOLERANCE] * len(pairs)
    facts = ours["facts"]
    rough = facts["device"] != "CPU" or facts["precision"] != "float32"
    if side != "tinyseg" and (side.autocast or rough):
        limits = [LOOSE_TOLERANCE] * len(pairs)
    scales = [abs(b) if kind == "train" else 1.0 for _, b in pairs]
    errors = [abs(a - b) / scale for (a, b), scale in zip(pairs, scales, strict=True)]
    # written so that NaN fails
    if not all(error <= limit for error, limit in zip(errors, limits, strict=True)):
        raise SystemExit(
            f"not timed, because tinyseg and {side} disagree on {kind}: "
            f"{pairs[:3]} differ by {errors[:3]}, allowed is {limits[:3]}"
        )
    return errors if kind == "train" else [max(errors)]


def has_torch() -> bool:
    """Whether PyTorch can be imported."""
    return importlib.util.find_spec("torch") is not None


# 2. Numbers to tables


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, least and greatest."""
    values = list(values)
    return {"median": median(values), "min": min(values), "max": max(values), "n": len(values)}


def summary(train: list[Row], predict: list[Row]) -> Row:
    """One side's numbers over all rounds; times are pooled over all steps of all processes."""
    return {
        "step_ms": spread(ms for row in train for ms in row["ms"]),
        "step_ms_by_round": [median(row["ms"]) for row in train],
        "inference_ms": spread(ms for row in predict for ms in row["ms"]),
        "inference_ms_by_round": [median(row["ms"]) for row in predict],
        "start_s": spread(row["start_s"] for row in train),
        "inference_start_s": spread(row["start_s"] for row in predict),
        "peak_mib": spread(row["peak_mib"] for row in train),
        "growth_mib": spread(row["growth_mib"] for row in train),
        "device_memory_mib": spread(row["facts"]["device_memory_mib"] for row in train),
    }


MEASURES = {
    "step_ms": "step ms",
    "inference_ms": "inference ms",
    "start_s": "first step s",
    "inference_start_s": "first image s",
    "peak_mib": "peak MiB",
    "growth_mib": "growth MiB",
}

GPU_MEMORY = {"device_memory_mib": "GPU MiB"}

STATISTICS = {"median": "tinyseg / best torch", "min": "the same of the least"}
"""The least times suffer least from other processes on a machine that is not idle."""


def measures(rows: dict[str, Row]) -> dict[str, str]:
    """What is compared, with its heading; a GPU's memory where both sides used one."""
    on_gpu = all(row["device_memory_mib"]["min"] > 0 for row in rows.values())
    return MEASURES | (GPU_MEMORY if on_gpu else {})


def ratios(rows: dict[str, Row], statistic: str) -> Row:
    """Ours over PyTorch's best, for each measure by itself; below 1 we are better."""
    peers = {side: row for side, row in rows.items() if side != "tinyseg"}
    if not peers:
        return {}
    found = {}
    for measure in measures(rows):
        values = {side: row[measure][statistic] for side, row in peers.items()}
        best = min(values, key=lambda side: values[side])
        ratio = rows["tinyseg"][measure][statistic] / values[best]
        found[measure] = {"ratio": ratio, "best": best}
    return found


def describe(name: str, cold: Row, rows: dict[str, Row]) -> Row:
    """All of a case that is kept."""
    return {
        "case": asdict(CASES[name]),
        "facts": cold["train"]["facts"],
        "losses": cold["train"]["checked"],
        "kernels": {kind: cold[kind]["facts"]["kernels"] for kind in cold},
        "cold": {kind: {k: cold[kind][k] for k in ("start_s", "peak_mib")} for kind in cold},
        "rows": rows,
        "ratios": {statistic: ratios(rows, statistic) for statistic in STATISTICS},
    }


def table(name: str, found: Row) -> str:
    """A case for people: median (least..greatest)."""
    kernels, cold, headings = found["kernels"], found["cold"], measures(found["rows"])
    lines = [["", *headings.values()]]
    for side, row in found["rows"].items():
        lines.append([side, *(_cell(row[measure]) for measure in headings)])
    starts = {"start_s": cold["train"], "inference_start_s": cold["predict"]}
    empty = [f"{starts[m]['start_s']:.2f}" if m in starts else "" for m in headings]
    lines.append(["tinyseg, caches empty", *empty])
    for statistic, ratio in found["ratios"].items():
        if ratio:
            numbers = (f"{ratio[measure]['ratio']:.2f}" for measure in headings)
            lines.append([STATISTICS[statistic], *numbers])
    facts = found["facts"]
    title = f"{name}: {CASES[name]}, {facts['precision']} on {facts['device']}"
    title += f"; kernels: {kernels['train']} a step, {kernels['predict']} to predict"
    return "\n".join([title, *_aligned(lines)])


def _cell(values: dict[str, float]) -> str:
    middle, least, most = (_three(values[key]) for key in ("median", "min", "max"))
    return f"{middle} ({least}..{most})"


def _three(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return ["  ".join(line).rstrip() for line in padded]


# 3. The command


def main(arguments: list[str] | None = None) -> None:
    """Measure the cases; a table for each, and all as one JSON object on the last line."""
    options = parse(arguments)
    if not has_torch():
        print(NO_TORCH)
    report = surroundings(options)
    if not report["idle"]:
        print(NOT_IDLE.format(report["load"]))
    for name in options.cases:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            found = Pairing(name, options, folder).measure()
        found["load"] = [load, os.getloadavg()[0]]
        report["cases"][name] = found
        print(table(name, found))
        if found["difference"]:
            print(f"losses differ by {found['difference']['train']}, relative to PyTorch's")
        print("load average before and after: {:.2f} {:.2f}\n".format(*found["load"]), flush=True)
    keep(report, options.json)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add(
        "--cases",
        type=_cases,
        default=["A"],
        help="A,B,C,D: " + "; ".join(map(str, CASES.values())),
    )
    add("--rounds", type=int, default=3, help="processes of each side (default 3; 0 only verifies)")
    add("--steps", type=int, default=20, help="timed steps of a process (default 20)")
    add("--warmup", type=int, default=3, help="steps before them, after the verified ones")
    add("--threads", type=int, default=_processors(), help="CPU threads of both sides")
    add("--autocast", action="store_true", help="tinyseg in bfloat16, PyTorch in both types")
    add("--compile", action="store_true", help="also PyTorch with torch.compile")
    add("--json", metavar="FILE", help=HELP)
    return parser.parse_args(arguments)


def _cases(text: str) -> list[str]:
    names = text.upper().split(",")
    if unknown := set(names) - set(CASES):
        raise argparse.ArgumentTypeError(f"unknown case {min(unknown)}; known: {', '.join(CASES)}")
    return names


def _processors() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def surroundings(options: argparse.Namespace) -> Row:
    """What the numbers depend on, apart from what a process of tinyseg tells."""
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    return {
        "script": "bench/step.py",
        **machine(),
        "torch": importlib.metadata.version("torch") if has_torch() else "",
        "options": settings,
        "cases": {},
    }


if __name__ == "__main__":
    main()
