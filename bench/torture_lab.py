"""Where `torture.py` works: a folder with a reference run, and commands in forked processes.

A forked process has imported everything already, so that hundreds of kills fit into minutes, and
they hit the command instead of Python's start.
"""

import contextlib
import ctypes
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from record import ROOT

DATA = "sim:cells?n=8&size=16&seed=0"
SMALL = ["data.size=16", "model.base_channels=2", "model.depth=1", "train.epochs=4"]
FORK = multiprocessing.get_context("fork")
PATIENCE = 120.0
"""Seconds after which a command hangs."""


@dataclass
class Attack:
    """What one kind of attack has done so far."""

    name: str
    unit: str
    """What is counted: kills, interrupts, inputs ..."""
    count: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, ok: bool, words: str) -> None:
        """Keep in words what went wrong."""
        if not ok:
            self.failures.append(words)


class Child:
    """A function, usually a command of tinyseg, in a forked process."""

    def __init__(self, lab: "Lab", function: Callable[..., int], *arguments: Any):
        self.output = lab.folder / f"output-{next(lab.numbers)}"
        options = (function, arguments, self.output, lab.folder)
        self.process = FORK.Process(target=_start, args=options, daemon=True)
        self.process.start()

    def ends_within(self, seconds: float) -> bool:
        """Wait; return whether it has ended."""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.process.exitcode is None and self.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def started(self) -> None:
        """Wait until it has begun."""
        while not self.output.exists() and self.process.exitcode is None:
            time.sleep(0.0005)

    def result(self) -> tuple[int, str]:
        """Wait for its end; return exit code and output, -999 where it hangs."""
        code = self.process.exitcode if self.ends_within(PATIENCE) else -999
        self.send(signal.SIGKILL)
        self.process.join()
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        self.output.unlink(missing_ok=True)
        return -998 if code is None else code, text


def _start(function: Callable[..., int], arguments: Any, output: Path, folder: Path) -> None:
    partial = output.with_suffix(".new")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    partial.rename(output)
    sys.exit(function(*arguments))


def command(*words: str) -> int:
    """Run `tinyseg WORDS` in this process."""
    from tinyseg.cli import main

    sys.argv = ["tinyseg", *words]
    return main()


def limited(kind: int, most: int, *words: str) -> int:
    """Run a command under a limit of the operating system."""
    resource.setrlimit(kind, (most, most))
    return command(*words)


def with_cache(cache: str, *words: str) -> int:
    """Run a command with another cache folder."""
    os.environ["XDG_CACHE_HOME"] = cache
    return command(*words)


def without_rights(*words: str) -> int:
    """Run a command as a user who may write nowhere but in the folder for temporary files."""
    os.environ["XDG_CACHE_HOME"] = "/dev/null/nowhere"
    if os.getuid() == 0:
        os.setuid(65534)
    return command(*words)


class Lab:
    """A temporary folder with a reference run, and the means to start commands in it."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.draw = folder, random.Random(seed)
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.environment["XDG_CACHE_HOME"] = str(folder / "cache")
        # PoCL ends the process where it cannot start a thread: low memory would test PoCL
        self.environment["OCL_ICD_VENDORS"] = "/nowhere"
        self.reference, self.folds = folder / "reference", folder / "reference-folds"
        self.masks, self.page = folder / "reference-masks", folder / "reference.html"
        self.seconds: dict[str, float] = {}
        """How long each command takes."""
        self.port, self.served = 0, dict[str, bytes]()
        """Of the server for downloads, and what its archive holds."""
        self.numbers = iter(range(10**9))

    def fork(self, *words: str) -> Child:
        """Start `tinyseg WORDS` in a forked process."""
        return Child(self, command, *words)

    def run(self, *words: str) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it wrote."""
        begin = time.perf_counter()
        result = self.fork(*words).result()
        self.seconds.setdefault(words[0], time.perf_counter() - begin)
        return result

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start `python -m tinyseg WORDS`, as a user does."""
        program = [sys.executable, "-m", "tinyseg", *words]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": self.environment}
        return subprocess.Popen(program, cwd=self.folder, **{**options, **more})

    def call(self, *words: str, **more: Any) -> tuple[int, str]:
        """Run it to its end."""
        process = self.start(*words, **more)
        out, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, (out or b"").decode(errors="replace")

    def new(self, name: str) -> Path:
        """Return a path in the folder at which there is nothing."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        return path

    def train(self, out: Path, *more: str) -> list[str]:
        """The command that trains the small network."""
        return ["train", DATA, "--out", str(out), "--set", *SMALL, *more]

    def predict(self, out: Path) -> list[str]:
        """The command that predicts the set's images."""
        return ["predict", str(self.reference), str(self.folder / "set/images"), "--out", str(out)]

    def report(self, out: Path) -> list[str]:
        """The command that writes a page."""
        return ["report", str(self.reference), "--out", str(out)]

    def prepare(self) -> None:
        """Make all that later ones must equal; the first run compiles, so that times are right."""
        self.must(*self.train(self.folder / "warm-up"))
        self.seconds.clear()
        self.must(*self.train(self.reference))
        self.must("simulate", str(self.folder / "set"), "--kind=cells", "--n=40", "--size=16")
        for words in (
            self.predict(self.folder / "warm-masks"),
            self.report(self.folder / "warm.html"),
        ):
            self.must(*words)
        self.seconds.pop("predict")
        self.seconds.pop("report")
        self.must(*self.predict(self.masks))
        self.must(*self.report(self.page))
        trained = self.seconds.pop("train")
        self.must(*self.train(self.folds, "train.epochs=2"), "--folds", "2")
        self.seconds |= {"folds": self.seconds["train"], "train": trained}

    def must(self, *words: str) -> None:
        """Run a command that has to succeed."""
        code, text = self.run(*words)
        if code:
            raise SystemExit(f"tinyseg {' '.join(words)} failed: {text}")


def digest(run: Path) -> str:
    """A digest of all that two equal runs share: weights, split, picture, numbers but seconds."""
    from tinyseg.runs.checkpoint import load

    whole = hashlib.sha256()
    for name in ("best", "last"):
        tensors, _ = load(run / "checkpoints" / f"{name}.safetensors")
        for key, array in sorted(tensors.items()):
            whole.update(key.encode() + array.tobytes())
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] in ("step", "epoch"):
            whole.update(json.dumps(_without_seconds(record), sort_keys=True).encode())
    for name in ("config.toml", "split.json", "samples/best.png"):
        whole.update((run / name).read_bytes())
    return whole.hexdigest()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if k != "seconds"}
    return value


def difference(run: Path, reference: Path) -> str:
    """Return how a run differs from the reference; empty where it equals it bit for bit."""
    try:
        return "" if digest(run) == digest(reference) else "differs from an uninterrupted one"
    except Exception as error:  # noqa: BLE001  whatever is missing or damaged is what we look for
        return f"is not whole: {error!r}"


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder but tinyseg's own hidden notes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.startswith(".tinyseg")
    }


def leftovers(folder: Path) -> list[str]:
    """Files that only a running command should have."""
    return [p.name for p in folder.rglob("*") if ".partial" in p.name or p.name == ".lock"]


def is_one_line(code: int, text: str) -> bool:
    """Whether a command ended as it should: success, or one line that says what to do."""
    lines = text.strip().splitlines() or [""]
    said = lines[-1].startswith("error: ") or "left out: " in text
    return "Traceback" not in text and (code == 0 or (code in (1, 2) and said))


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """Mount a disk of that size where that is allowed; yield whether it was."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    allowed = os.getuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def address_space() -> int:
    """Bytes of address space that this process has."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
