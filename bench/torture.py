"""Try to break tinyseg: kills, interrupts, damaged files, two processes, odd terminals.

Bounded and seeded: `python bench/torture.py --minutes 5 --seed 0`. Each attack runs for its share
of the time. What fails is printed with what is needed to repeat it; the exit code is then 1.
"""

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from record import HELP, ROOT, keep, machine

DATA = "sim:cells?n=8&size=16&seed=0"
SMALL = ["data.size=16", "model.base_channels=2", "model.depth=1", "train.epochs=4"]
SLOWEST = 2.0
"""Seconds that reading one damaged file may take."""
MOST_BYTES = 2**30
"""Memory that reading one damaged file may take."""


@dataclass
class Attack:
    """What one kind of attack has done so far."""

    name: str
    tries: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, ok: bool, what: str) -> None:
        """Count a try; keep in words what went wrong."""
        self.tries += 1
        if not ok:
            self.failures.append(what)


class Lab:
    """A temporary folder with a reference run, and how commands are started in it."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.draw = folder, random.Random(seed)
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.environment["XDG_CACHE_HOME"] = str(folder / "cache")
        self.reference = folder / "reference"
        self.seconds: dict[str, float] = {}

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
        """Start `tinyseg ARGUMENTS` in the lab's folder."""
        command = [sys.executable, "-m", "tinyseg", *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment}
        return subprocess.Popen(command, cwd=self.folder, **{**options, **more})

    def run(self, *arguments: str, **more: Any) -> tuple[int, str]:
        """Run a command to its end; return its exit code and what it wrote."""
        begin = time.perf_counter()
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=300)
        self.seconds[arguments[0]] = time.perf_counter() - begin
        return process.returncode, (out or b"").decode() + (err or b"").decode()

    def train(self, out: str, *more: str) -> list[str]:
        """The command that trains the small network."""
        return ["train", DATA, "--out", out, "--set", *SMALL, *more]


def digest(run: Path) -> str:
    """A digest of all that two equal runs share: weights, split, and every number but seconds."""
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
    return whole.hexdigest()


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_seconds(v) for k, v in value.items() if k != "seconds"}
    return value


def leftovers(folder: Path) -> list[str]:
    """Files that only a running command should have."""
    return [p.name for p in folder.rglob("*") if p.suffix == ".partial" or p.name == ".lock"]


def is_one_line(text: str) -> bool:
    """Whether an error is what it should be: no traceback, its last line says what to do."""
    return "Traceback" not in text and bool(text.strip())


# 1. Processes


def kill_training(lab: Lab, attack: Attack) -> None:
    """Kill a training at a random moment until it ends; it must equal the reference."""
    out = lab.folder / "killed"
    shutil.rmtree(out, ignore_errors=True)
    kills = 0
    while True:
        process = lab.start(*lab.train(str(out)), "--resume")
        try:
            process.wait(timeout=lab.draw.uniform(0.05, 1.1 * lab.seconds["train"]))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            if kills == 3:
                lab.run(*lab.train(str(out)), "--resume")
                break
    equal = (out / "metrics.jsonl").exists() and digest(out) == digest(lab.reference)
    attack.check(equal, f"after {kills} kills the run differs from an uninterrupted one")
    left = leftovers(out)
    attack.check(not left, f"after {kills} kills and an end these files are left: {left}")


def kill_prediction(lab: Lab, attack: Attack) -> None:
    """Kill a prediction; the next call completes it and leaves nothing else behind."""
    out = lab.folder / "masks"
    shutil.rmtree(out, ignore_errors=True)
    command = ["predict", str(lab.reference), str(lab.folder / "set/images"), "--out", str(out)]
    process = lab.start(*command)
    try:
        process.wait(timeout=lab.draw.uniform(0.05, lab.seconds["predict"]))
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()
    code, text = lab.run(*command)
    masks = sorted(p.name for p in out.glob("*.png"))
    wanted = sorted(p.name for p in (lab.folder / "set/images").glob("*.png"))
    attack.check((code, masks) == (0, wanted), f"after a kill: exit {code}, {masks}, {text[-200:]}")
    attack.check(not leftovers(out), f"after a kill these files are left: {leftovers(out)}")


def interrupt(lab: Lab, attack: Attack) -> None:
    """Ctrl-C at any moment: one line, exit code 130, or the command was done before."""
    commands = [
        lab.train(str(lab.folder / f"interrupted-{attack.tries}")),
        ["predict", str(lab.reference), "set/images", "--out", f"masks-{attack.tries}"],
        ["evaluate", str(lab.reference), DATA],
        ["data", "check", DATA],
        ["info"],
    ]
    command = lab.draw.choice(commands)
    after = lab.draw.uniform(0.0, 1.2 * lab.seconds.get(command[0], 3.0))
    process = lab.start(*command)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    text = (out + err).decode()
    ok = process.returncode in (0, 130) and "Traceback" not in text
    words = f"{command[0]}: Ctrl-C after {after:.3f} s: exit {process.returncode}: {text[-300:]}"
    attack.check(ok, words)


def two_at_once(lab: Lab, attack: Attack) -> None:
    """Two trainings into one folder: one trains, the other is refused in one line."""
    out = f"both-{attack.tries}"
    pair = [lab.start(*lab.train(out)) for _ in range(2)]
    texts = [b"".join(process.communicate(timeout=300)).decode() for process in pair]
    codes = sorted(process.returncode for process in pair)
    attack.check(codes == [0, 2] and all(map(is_one_line, texts)), f"exit {codes}: {texts}")


def odd_surroundings(lab: Lab, attack: Attack) -> None:
    """The C locale, a dumb terminal, closed standard output, an empty HOME, a full disk."""
    command = ["evaluate", str(lab.reference), DATA]
    plain = {**lab.environment, "LC_ALL": "C", "TERM": "dumb", "PYTHONUTF8": "0"}
    code, text = lab.run(*command, env=plain)
    attack.check(code == 0 and "\x1b" not in text, f"C locale, dumb terminal: {code} {text[-300:]}")
    code, text = lab.run(*command, env={**lab.environment, "XDG_CACHE_HOME": "", "HOME": "/nope"})
    attack.check(code == 0, f"no cache folder: {code} {text[-300:]}")
    closed = subprocess.Popen(
        f"{sys.executable} -m tinyseg info >&-",
        shell=True,
        cwd=lab.folder,
        env=lab.environment,
        stderr=subprocess.PIPE,
    )
    _, error = closed.communicate(timeout=120)
    attack.check(b"Traceback" not in error, f"closed stdout: {error[-300:]!r}")
    full = f"ulimit -f 8; exec {sys.executable} -m tinyseg " + " ".join(
        f"'{word}'" for word in lab.train(str(lab.folder / f"full-{attack.tries}"))
    )
    process = subprocess.Popen(
        ["bash", "-c", full], cwd=lab.folder, env=lab.environment, stderr=subprocess.PIPE
    )
    _, error = process.communicate(timeout=300)
    attack.check(b"Traceback" not in error, f"full disk: {error[-300:]!r}")


# 2. Files


def images_of_all_formats() -> list[tuple[str, bytes]]:
    """Small valid images, to be damaged."""
    rng = np.random.default_rng(0)
    gray, color = (rng.integers(0, 256, (24, 20, *c), np.uint8) for c in ((), (3,)))
    pictures = {
        "png": Image.fromarray(color),
        "jpg": Image.fromarray(color),
        "tif": Image.fromarray(gray),
        "gif": Image.fromarray(gray),
        "bmp": Image.fromarray(color),
        "rgba.png": Image.fromarray(np.dstack([color, gray])),
        "deep.png": Image.fromarray(rng.integers(0, 2**16, (24, 20)).astype(np.uint16)),
    }
    files = []
    for name, picture in pictures.items():
        buffer = io.BytesIO()
        format_name = {"jpg": "JPEG", "tif": "TIFF"}.get(name, name.rpartition(".")[2].upper())
        picture.save(buffer, format_name)
        files.append((name, buffer.getvalue()))
    return files


def damage(draw: random.Random, content: bytes) -> bytes:
    """Cut, flip, insert, repeat or overwrite bytes."""
    broken = bytearray(content)
    for _ in range(draw.randrange(1, 4)):
        place = draw.randrange(len(broken) or 1)
        kind = draw.randrange(4)
        if kind == 0:
            del broken[place:]
        elif kind == 1 and broken:
            broken[place % len(broken)] ^= 1 << draw.randrange(8)
        elif kind == 2:
            broken[place:place] = draw.randbytes(draw.randrange(1, 9))
        else:
            broken[place : place + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff"])
    return bytes(broken)


def reads_safely(read: Callable[[], object]) -> str:
    """Read a file; return what went wrong, "" if it was read or refused in one line."""
    from tinyseg.errors import TinysegError

    begin = time.perf_counter()
    tracemalloc.start()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read()
    except TinysegError as error:
        if "\n" in str(error):
            return f"its error has several lines: {error}"
    except BaseException as error:  # noqa: BLE001  every other exception is a failure
        return f"{type(error).__name__}: {error}"
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    if time.perf_counter() - begin > SLOWEST:
        return f"took {time.perf_counter() - begin:.1f} s"
    if most > MOST_BYTES:
        return f"took {most / 2**20:.0f} MiB"
    ours = [one for one in caught if "PIL" not in Path(one.filename).parts]  # the CLI drops these
    return f"Python warns: {ours[0].message}" if ours else ""


def damaged_images(lab: Lab, attack: Attack) -> None:
    """Damaged images are read or refused, nothing else."""
    from tinyseg.data import load_image

    for name, content in images_of_all_formats():
        path = lab.folder / f"damaged.{name}"
        path.write_bytes(damage(lab.draw, content))
        problem = reads_safely(lambda path=path: load_image(path, None))
        if problem:
            path.rename(lab.folder / f"failed-{attack.tries}-{name}")
        attack.check(not problem, f"{name} ({attack.tries}): {problem}")


def truncated_images(lab: Lab, attack: Attack) -> None:
    """An image that ends early must be refused: what is missing would read as background."""
    from tinyseg.data import load_image
    from tinyseg.errors import TinysegError

    for name, content in images_of_all_formats():
        size = lab.draw.randrange(8, max(9, len(content) - 24))
        path = lab.folder / f"short.{name}"
        path.write_bytes(content[:size])
        try:
            load_image(path, None)
            attack.check(
                False, f"{name}: {size} of {len(content)} bytes were read as a whole image"
            )
        except TinysegError:
            attack.check(True, "")


def damaged_runs(lab: Lab, attack: Attack) -> None:
    """A run folder with one damaged file: opened with the same weights, or refused in one line."""
    from tinyseg.errors import TinysegError
    from tinyseg.inference.run import load_run

    copy = lab.folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(lab.reference, copy)
    names = ["run.json", "config.toml", "split.json", "metrics.jsonl"]
    name = lab.draw.choice([*names, "checkpoints/best.safetensors"])
    path = copy / name
    path.write_bytes(damage(lab.draw, path.read_bytes()))

    def read() -> None:
        run = load_run(copy)
        image = np.zeros((16, 16, run.facts.channels), np.uint8)
        if name.startswith("checkpoints"):
            whole = load_run(lab.reference)
            if not np.array_equal(run.predict(image), whole.predict(image)):
                raise ValueError("predicts something else")
        _ = run.config, run.split

    try:
        problem = reads_safely(read)
    except TinysegError:
        problem = ""
    attack.check(not problem, f"{name}: {problem}")


def damaged_archives(lab: Lab, attack: Attack) -> None:
    """Damaged and hostile archives write nothing outside their folder."""
    from tinyseg.data.sources.unpack import unpack

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"images/{number}.txt", "x" * number)
        archive.writestr(lab.draw.choice(["../out.txt", "/out.txt", "ok.txt", "a/../../b"]), "x")
    path, into = lab.folder / "damaged.zip", lab.folder / "unpacked"
    path.write_bytes(damage(lab.draw, buffer.getvalue()))
    shutil.rmtree(into, ignore_errors=True)
    before = set(lab.folder.iterdir())
    problem = reads_safely(lambda: unpack(path, into))
    escaped = set(lab.folder.iterdir()) - before - {into}
    attack.check(not problem and not escaped, f"archive: {problem} {escaped}")


ATTACKS: dict[str, tuple[float, Callable[[Lab, Attack], None]]] = {
    # share of the time, attack
    "kill training": (4, kill_training),
    "kill prediction": (2, kill_prediction),
    "interrupt": (3, interrupt),
    "two at once": (1, two_at_once),
    "odd surroundings": (1, odd_surroundings),
    "damaged images": (2, damaged_images),
    "truncated images": (1, truncated_images),
    "damaged runs": (1, damaged_runs),
    "damaged archives": (1, damaged_archives),
}


def prepare(lab: Lab) -> None:
    """Train the reference run and write the images that are predicted."""
    lab.run(*lab.train("warm-up"))  # compiles, so that the times below are those of later starts
    code, text = lab.run(*lab.train(str(lab.reference)))
    if code:
        raise SystemExit(f"the reference run failed: {text}")
    lab.run("simulate", "set", "--n", "40", "--size", "16")
    lab.run("predict", str(lab.reference), "set/images", "--out", "first-masks")
    for command in (["evaluate", str(lab.reference), DATA], ["info"], ["data", "check", DATA]):
        lab.run(*command)


def attacks(names: list[str], minutes: float, lab: Lab) -> Iterator[Attack]:
    """Run each attack for its share of the time, at least once."""
    total = sum(ATTACKS[name][0] for name in names)
    for name in names:
        share, run = ATTACKS[name]
        attack, end = Attack(name), time.monotonic() + 60 * minutes * share / total
        while not attack.tries or time.monotonic() < end:
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
    failures = 0
    with tempfile.TemporaryDirectory(prefix="tinyseg-torture-") as folder:
        lab = Lab(Path(folder), options.seed)
        os.environ["XDG_CACHE_HOME"] = lab.environment["XDG_CACHE_HOME"]
        prepare(lab)
        print(f"{'attack':20}{'tries':>8}{'failures':>10}")
        for attack in attacks(options.only, options.minutes, lab):
            print(f"{attack.name:20}{attack.tries:8}{len(attack.failures):10}", flush=True)
            for words in attack.failures[:5]:
                print(f"    {words}")
            facts = {"tries": attack.tries, "failures": attack.failures[:20]}
            report["attacks"][attack.name] = facts
            failures += len(attack.failures)
    keep(report, options.json)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
