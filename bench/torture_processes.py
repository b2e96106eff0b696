"""Attacks on processes: kills, interrupts, full and read-only disks, caches, two at once."""

import contextlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from torture_lab import (
    DATA,
    FORK,
    SMALL,
    Attack,
    Child,
    Lab,
    address_space,
    contents,
    difference,
    is_one_line,
    leftovers,
    limited,
    small_disk,
    with_cache,
    without_rights,
)

KILLS = 3
"""In one run at most."""


def _kill(lab: Lab, attack: Attack, child: Child, seconds: float) -> bool:
    """Kill a process at a random moment; return whether it had not ended before."""
    if child.ends_within(lab.draw.uniform(0.0, seconds)):
        child.result()
        return False
    child.send(signal.SIGKILL)
    child.result()
    attack.count += 1
    return True


def _kill_until_done(lab: Lab, attack: Attack, seconds: float, *words: str) -> str:
    """Kill a command up to `KILLS` times, then let it end; return what went wrong."""
    for _ in range(lab.draw.randrange(1, KILLS + 1)):
        if not _kill(lab, attack, lab.fork(*words), 1.1 * seconds):
            break
    code, text = lab.run(*words)
    return "" if code == 0 else f"after a kill: exit {code}: {text[-300:]}"


def kill_training(lab: Lab, attack: Attack) -> None:
    """A killed training that is resumed equals an uninterrupted one; nothing is left behind."""
    out = lab.new("killed")
    wrong = _kill_until_done(lab, attack, lab.seconds["train"], *lab.train(out), "--resume")
    wrong = wrong or difference(out, lab.reference)
    attack.check(not wrong, wrong)
    attack.check(not leftovers(out), f"these files are left: {leftovers(out)}")


def kill_folds(lab: Lab, attack: Attack) -> None:
    """The same of a cross-validation: its runs, its table and its masks."""
    out = lab.new("killed-folds")
    words = [*lab.train(out, "train.epochs=2"), "--folds", "2", "--resume"]
    wrong = _kill_until_done(lab, attack, lab.seconds["folds"], *words)
    for fold in ("fold-0", "fold-1"):
        wrong = wrong or difference(out / fold, lab.folds / fold)
    for name in ("folds.json", "out-of-fold"):
        one, other = (_bytes(folder / name) for folder in (out, lab.folds))
        wrong = wrong or ("" if one == other else f"{name} differs")
    attack.check(not wrong, wrong)
    attack.check(not leftovers(out), f"these files are left: {leftovers(out)}")


def _bytes(path: Path) -> object:
    return contents(path) if path.is_dir() else path.exists() and path.read_bytes()


def kill_prediction(lab: Lab, attack: Attack) -> None:
    """A killed prediction that is repeated gives every mask, whole, and nothing else."""
    out = lab.new("masks")
    wrong = _kill_until_done(lab, attack, lab.seconds["predict"], *lab.predict(out))
    same = contents(out) == contents(lab.masks)
    attack.check(not wrong and same, wrong or "the masks differ")
    attack.check(not leftovers(out), f"these files are left: {leftovers(out)}")


def kill_report(lab: Lab, attack: Attack) -> None:
    """A killed report leaves the old page or the new one, never a part of one."""
    folder = lab.new("pages")
    folder.mkdir()
    page = folder / "page.html"
    old = lab.draw.random() < 0.5
    if old:
        shutil.copy(lab.page, page)
    _kill(lab, attack, lab.fork(*lab.report(page)), lab.seconds["report"])
    whole = not page.exists() or page.read_bytes().rstrip().endswith(b"</html>")
    attack.check(whole and (page.exists() or not old), "a part of a page, or the old one is gone")
    code, text = lab.run(*lab.report(page))
    attack.check(code == 0, f"after a kill: exit {code}: {text[-300:]}")
    others = [path.name for path in folder.iterdir() if path != page]
    attack.check(not others, f"these files are left: {others}")


def _archive() -> bytes:
    buffer, draw = io.BytesIO(), bytes(range(256)) * 40
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(60):
            archive.writestr(f"images/{number}.bin", draw[number:])
        archive.writestr("masks/0.bin", draw)
    return buffer.getvalue()


class _Slow(BaseHTTPRequestHandler):
    """Serves the archive slowly, from any byte on."""

    content = b""

    def do_GET(self) -> None:
        first = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(206 if first else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(self.content) - first))
        if first:
            total = len(self.content)
            self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        self.end_headers()
        with contextlib.suppress(OSError):
            for place in range(first, len(self.content), 1 << 14):
                self.wfile.write(self.content[place : place + (1 << 14)])
                time.sleep(0.002)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _serve(ports: Any, content: bytes) -> None:
    _Slow.content = content
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    ports.put(server.server_address[1])
    server.serve_forever()


def _download(port: int, folder: Path) -> int:
    from tinyseg.cli import main
    from tinyseg.data.sources import SOURCES, Archive, Source

    archive = Archive(f"http://127.0.0.1:{port}/a.zip", ("images", "masks"))
    SOURCES["torture"] = Source("Torture", "none", (archive,), lambda *_: None, {})
    return main(["data", "download", "torture", str(folder)])


def kill_download(lab: Lab, attack: Attack) -> None:
    """A killed download that is repeated gives the archive's files and nothing else."""
    if not lab.port:
        ports, content = FORK.Queue(), _archive()
        FORK.Process(target=_serve, args=(ports, content), daemon=True).start()
        os.environ["no_proxy"] = "127.0.0.1"
        lab.port = ports.get(timeout=20)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            lab.served = {name: archive.read(name) for name in archive.namelist()}
        begin = time.perf_counter()
        Child(lab, _download, lab.port, lab.new("first-download")).result()
        lab.seconds["download"] = time.perf_counter() - begin
    out = lab.new("downloaded")
    for _ in range(lab.draw.randrange(1, KILLS + 1)):
        child = Child(lab, _download, lab.port, out)
        if not _kill(lab, attack, child, 1.1 * lab.seconds["download"]):
            break
    code, text = Child(lab, _download, lab.port, out).result()
    there = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    differing = sorted(set(there) ^ set(lab.served))[:4]
    attack.check(code == 0, f"after a kill: exit {code}: {text[-300:]}")
    attack.check(there == lab.served, f"missing, or left behind: {differing}")
    attack.check(not leftovers(out), f"these folders are left: {leftovers(out)}")


def _commands(lab: Lab, number: int) -> list[list[str]]:
    return [
        lab.train(lab.new(f"interrupted-{number % 8}")),
        lab.predict(lab.new(f"masks-{number % 8}")),
        ["evaluate", str(lab.reference), DATA],
        ["data", "check", DATA],
        lab.report(lab.new(f"page-{number % 8}.html")),
        ["info"],
    ]


def interrupt_start(lab: Lab, attack: Attack) -> None:
    """Ctrl-C from the first millisecond of a program on: one line and exit code 130.

    Before `main` has begun nothing can be caught: then it is Python's own end.
    """
    words = lab.draw.choice(_commands(lab, attack.count))
    after = lab.draw.uniform(0.0, 1.5)
    process = lab.start(*words)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    text = process.communicate(timeout=60)[0].decode(errors="replace")
    attack.count += 1
    code = process.returncode
    interrupted = code == 130 and text.splitlines()[-1:] == ["interrupted"]
    done = code in (0, 1) and "Traceback" not in text
    pythons_own = (code == -signal.SIGINT or code == 1) and "in main\n" not in text and after < 0.5
    ok = interrupted or done or pythons_own
    attack.check(ok, f"{words[0]}: Ctrl-C after {after:.3f} s: exit {code}: {text[-300:]}")


def interrupt_work(lab: Lab, attack: Attack) -> None:
    """Ctrl-C or SIGTERM while a command works: one line, 130 or 143, nothing half done."""
    words = lab.draw.choice(_commands(lab, attack.count))
    number, code_for, line = lab.draw.choice(
        [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
    )
    child = lab.fork(*words)
    child.started()
    after = lab.draw.uniform(0.002, 1.1 * lab.seconds.get(words[0], 0.5))
    if not child.ends_within(after):
        child.send(number)
    code, text = child.result()
    attack.count += 1
    ok = code == code_for and text.splitlines()[-1:] == [line]
    ok = ok or (code in (0, 1) and "Traceback" not in text)
    attack.check(ok, f"{words[0]}: {line} after {after:.3f} s: exit {code}: {text[-300:]}")
    left = leftovers(lab.folder / f"interrupted-{(attack.count - 1) % 8}")
    attack.check(not left, f"{words[0]}: {line} after {after:.3f} s leaves {left}")


def two_at_once(lab: Lab, attack: Attack) -> None:
    """Two trainings in one folder: one trains, the other is refused; two predictions both end."""
    out = lab.new("both")
    pair = [lab.fork(*lab.train(out)) for _ in range(2)]
    results = [child.result() for child in pair]
    codes = sorted(code for code, _ in results)
    lines = all(is_one_line(*result) for result in results)
    attack.check(codes == [0, 2] and lines, f"training twice: {results}")
    attack.check(not difference(out, lab.reference), f"the run {difference(out, lab.reference)}")
    masks = lab.new("both-masks")
    pair = [lab.fork(*lab.predict(masks)) for _ in range(2)]
    results = [child.result() for child in pair]
    attack.check(all(is_one_line(*result) for result in results), f"predicting twice: {results}")
    code, text = lab.run(*lab.predict(masks))
    whole = code == 0 and contents(masks) == contents(lab.masks)
    attack.check(whole, f"predicting twice: the masks differ: {code} {text[-300:]}")
    attack.count += 2


def full_disk(lab: Lab, attack: Attack) -> None:
    """A disk that is full at any moment: one line, and what is there goes on when there is room."""
    place, size = lab.new("disk"), lab.draw.randrange(8, 260)
    with small_disk(place, size) as mounted:
        out = place / "run"
        words = lab.train(out)
        most = lab.draw.randrange(500, 60_000)
        child = lab.fork(*words) if mounted else Child(
            lab, limited, resource.RLIMIT_FSIZE, most, *words
        )  # fmt: skip
        code, text = child.result()
        attack.count += 1
        what = f"{size} KiB disk" if mounted else f"files of at most {most} bytes"
        attack.check(is_one_line(code, text), f"{what}: exit {code}: {text[-300:]}")
        room = lab.new("room")
        if out.exists():
            shutil.copytree(out, room)
    code, text = lab.run(*lab.train(room), "--resume")
    wrong = difference(room, lab.reference) if code == 0 else f"exit {code}: {text[-300:]}"
    attack.check(not wrong, f"{what}: the resumed run {wrong}")
    attack.check(not leftovers(room), f"{what}: these files are left: {leftovers(room)}")


def read_only(lab: Lab, attack: Attack) -> None:
    """Folders in which nothing may be written, for output and for the cache: one line."""
    place = lab.new("forbidden")
    place.mkdir(mode=0o555)
    for words, wanted in (
        (lab.train(place / "run"), 2),
        (lab.predict(place), 2),
        (lab.report(place / "page.html"), 2),
        (["evaluate", str(lab.reference), DATA], 0),
    ):
        code, text = Child(lab, without_rights, *words).result()
        attack.count += 1
        ok = code == wanted and is_one_line(code, text)
        attack.check(ok, f"{words[0]} without rights: exit {code}: {text[-300:]}")
    place.chmod(0o755)


def low_memory(lab: Lab, attack: Attack) -> None:
    """Too little memory at any moment: one line."""
    words = lab.draw.choice(_commands(lab, attack.count)[:5])
    more = lab.draw.randrange(1 << 20, 400 << 20)
    child = Child(lab, limited, resource.RLIMIT_AS, address_space() + more, *words)
    code, text = child.result()
    attack.count += 1
    attack.check(
        is_one_line(code, text),
        f"{words[0]} with {more >> 20} MiB more: exit {code}: {text[-400:]}",
    )


def damaged_cache(lab: Lab, attack: Attack) -> None:
    """A cache of which anything is damaged or replaced: the run equals one with a whole cache."""
    cache, out = lab.new("damaged-cache"), lab.new("from-damaged")
    shutil.copytree(lab.folder / "cache", cache)
    files = sorted(path for path in cache.rglob("*") if path.is_file())
    hurt = lab.draw.sample(files, min(len(files), lab.draw.choice([1, 3, len(files)])))
    kinds = [_hurt(lab, path) for path in hurt]
    code, text = Child(lab, with_cache, str(cache), *lab.train(out)).result()
    attack.count += len(hurt)
    wrong = difference(out, lab.reference) if code == 0 else f"exit {code}: {text[-300:]}"
    attack.check(not wrong, f"cache with {sorted(set(kinds))}: {wrong}")


def _hurt(lab: Lab, path: Path) -> str:
    kind = lab.draw.choice(["bytes", "cut", "empty", "folder", "pipe", "device", "open", "swap"])
    content = bytearray(path.read_bytes())
    if kind == "open":
        path.chmod(0o666)
        return kind
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        if kind == "bytes" and content:
            for _ in range(4):
                content[lab.draw.randrange(len(content))] ^= 1 << lab.draw.randrange(8)
        elif kind == "cut":
            del content[lab.draw.randrange(len(content) or 1) :]
        elif kind == "swap":
            others = [other for other in path.parent.iterdir() if other.is_file()]
            content = bytearray(lab.draw.choice(others).read_bytes()) if others else content
        path.write_bytes(b"" if kind == "empty" else content)
        path.chmod(0o600)
    return kind


def odd_surroundings(lab: Lab, attack: Attack) -> None:
    """Odd locales and terminals, closed streams, no home, names of any bytes."""
    evaluate = ["evaluate", str(lab.reference), DATA]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    cases: list[tuple[str, dict[str, str], list[str]]] = [
        ("the C locale", ascii_only, evaluate),
        ("a dumb terminal", {"TERM": "dumb"}, evaluate),
        ("no home", {"XDG_CACHE_HOME": "", "HOME": "/dev/null/nowhere"}, evaluate),
        ("a relative cache", {"XDG_CACHE_HOME": "cache"}, evaluate),
        ("a narrow terminal", {"COLUMNS": "1"}, ["--help"]),
        ("names of any bytes", ascii_only, ["info"]),
    ]
    for what, environment, words in cases:
        code, text = lab.call(*words, env={**lab.environment, **environment})
        attack.count += 1
        attack.check(code == 0 and "\x1b" not in text, f"{what}: exit {code}: {text[-300:]}")
    _run_of_another_locale(lab, attack, ascii_only)
    for closed in (">&-", "2>&-", ">&- 2>&-", ">/dev/full"):
        command = f'exec "$0" -m tinyseg data check {DATA.replace("&", chr(92) + "&")} {closed}'
        done = subprocess.run(
            ["sh", "-c", command, sys.executable],
            cwd=lab.folder,
            env=lab.environment,
            capture_output=True,
        )
        attack.count += 1
        ok = b"Traceback" not in done.stderr and done.returncode in (0, 1, 2)
        attack.check(ok, f"{closed}: exit {done.returncode}: {done.stderr[-300:]!r}")


def _run_of_another_locale(lab: Lab, attack: Attack, environment: dict[str, str]) -> None:
    """A run that is made in the C locale on files of other letters opens in UTF-8."""
    data, run = lab.new("b\u00e4ume"), lab.new("run-in-c")
    shutil.copytree(lab.folder / "set", data)
    for path in sorted(data.glob("*/*.png")):
        path.rename(path.with_name(f"\u00e4{path.name}"))
    training = ["train", str(data), "--out", str(run), "--set", *SMALL, "train.epochs=1"]
    for words, env in (
        (training, {**lab.environment, **environment}),
        (["evaluate", str(run), str(data)], lab.environment),
        (["report", str(run), "--out", str(lab.new("page-in-c.html"))], lab.environment),
        (["train", str(data), "--out", str(run), "--resume"], lab.environment),
    ):
        code, text = lab.call(*words, env=env)
        attack.count += 1
        attack.check(code == 0, f"{words[0]} in another locale: exit {code}: {text[-300:]}")
