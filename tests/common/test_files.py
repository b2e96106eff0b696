import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyseg.common.files import (
    check_output,
    locked,
    native,
    portable,
    read_json,
    remove_stale,
    write_atomic,
    write_json,
)
from tinyseg.errors import RunError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_written_and_folders_are_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "file.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "file.bin").read_bytes() == b"\x00\xff"
    write_atomic(str(tmp_path / "file.txt"), "grüße\n")
    assert (tmp_path / "file.txt").read_bytes() == "grüße\n".encode()
    write_atomic(tmp_path / "file.txt", "")
    assert (tmp_path / "file.txt").read_bytes() == b""
    assert names(tmp_path) == ["a", "file.txt"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    write_atomic(tmp_path / "file", "old")
    monkeypatch.setattr(*((os, "fsync") if fails == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "file", "new and longer")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_what_readers_see_while_writing_is_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((tmp_path / "file").read_text()))
    (tmp_path / "file").write_text("first")
    write_atomic(tmp_path / "file", "second")
    assert seen == ["first"]
    assert (tmp_path / "file").read_text() == "second"


def test_text_that_cannot_be_encoded_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_atomic(tmp_path / "file", "\ud800")
    assert names(tmp_path) == []


def test_json_goes_round_and_is_for_people(tmp_path: Path) -> None:
    content = {"name": 'é"\\', "numbers": [1, 2.5, -1e-9, None, True], "empty": {}}
    write_json(tmp_path / "file.json", content)
    assert read_json(tmp_path / "file.json") == content
    text = (tmp_path / "file.json").read_text(encoding="utf-8")
    assert "é" in text
    assert text.endswith("\n")
    assert text.count("\n") > 5


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": 1} trailing', b"1" * 5000]
)
def test_damaged_json_is_a_run_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json: damaged"):
        read_json(path)


def test_missing_json_and_folders_are_run_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json: no such file"):
        read_json(tmp_path / "run.json")
    with pytest.raises(RunError, match="damaged"):
        read_json(tmp_path)


def test_json_holds_names_that_are_no_text(tmp_path: Path) -> None:
    names = {"name": "sch\u00f6n", "bytes": "a\udcff"}
    write_json(tmp_path / "x.json", names)
    assert read_json(tmp_path / "x.json") == names
    write_json(tmp_path / "y.json", {"name": "sch\u00f6n"})
    assert "sch\u00f6n" in (tmp_path / "y.json").read_text(encoding="utf-8")


def test_names_are_one_text_in_every_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = "b\u00e4ume/\udcff.png"  # the last byte is no UTF-8
    assert portable(os.fsdecode(b"b\xc3\xa4ume/\xff.png")) == stored
    for encoding in ("ascii", "latin-1"):
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsencode", lambda s, e=encoding: s.encode(e, "surrogateescape"))
            patched.setattr(os, "fsdecode", lambda b, e=encoding: b.decode(e, "surrogateescape"))
            seen = b"b\xc3\xa4ume/\xff.png".decode(encoding, "surrogateescape")
            assert portable(seen) == stored
            assert native(stored) == seen
            if encoding == "ascii":
                assert portable("b\u00e4ume") == "b\u00e4ume"


def test_only_what_dead_processes_left_half_written_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        kept = [f".{living.pid}-7.partial", "mine.partial", ".a.zip.partial", "notes-1.partial"]
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        old = tmp_path / f".{living.pid}-8.partial"
        for name in (*kept, f".{dead.pid}-7.partial", f".{os.getpid()}-7.partial", old.name):
            (tmp_path / name).write_text("")
        os.utime(old, (time.time() - 9999,) * 2)
        remove_stale(tmp_path)
        assert names(tmp_path) == sorted(kept)
        living.kill()


def test_a_lock_leaves_nothing_and_a_file_is_no_folder(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b"):
        with pytest.raises(RunError, match=rf"b is in use by process {os.getpid()} on "):  # noqa: SIM117
            with locked(tmp_path / "a" / "b"):
                pass
        assert names(tmp_path / "a" / "b") == [".lock"]
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunError, match="file is a file; give the name of a folder"),
        locked(tmp_path / "file"),
    ):
        pass


def test_of_many_processes_one_holds_a_lock_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from tinyseg.common.files import locked\n"
        "from tinyseg.errors import RunError\n"
        "folder, done = pathlib.Path(sys.argv[1]), 0\n"
        "while done < 30:\n"
        "    try:\n"
        "        with locked(folder):\n"
        "            mark = folder / 'inside'\n"
        "            mark.touch(exist_ok=False); mark.unlink(); done += 1\n"
        "    except RunError:\n"
        "        time.sleep(0.0005)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x")]
    crowd = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    assert [one.communicate(timeout=60)[1] for one in crowd] == [b""] * 3
    assert names(tmp_path / "x") == []


def test_a_file_of_others_is_not_written_over_without_force(tmp_path: Path) -> None:
    mask, page, new = tmp_path / "mask.png", tmp_path / "page.html", tmp_path / "new.png"
    mask.write_bytes(b"\x89PNG of a data set")
    page.write_text('<meta name="generator" content="tinyseg">')
    os.mkfifo(tmp_path / "fifo.png")
    for path in (mask, tmp_path / "fifo.png"):
        with pytest.raises(RunError, match="was not written by tinyseg"):
            check_output(path)
        check_output(path, force=True)
    check_output(page)
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".{dead.pid}-7.partial").write_text("killed")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / f".{dead.pid}-7.partial").write_text("of another folder")
    check_output(new)
    assert names(tmp_path) == ["below", "fifo.png", "mask.png", "page.html"]
    assert len(names(tmp_path / "below")) == 1
