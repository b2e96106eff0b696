"""Machine code on disk: private, proven, and never the end of a run."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tinyseg.common.cache_dir import FileCache
from tinyseg.device.kernel_cache import KernelCache

ROOT = Path(__file__).parents[2]


class Counting:
    """A compiler that counts its calls."""

    cachekey = "compiler 1"

    def __init__(self) -> None:
        self.calls = 0

    def compile(self, source: str) -> bytes:
        self.calls += 1
        return source.encode() * 2


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tinyseg" / "kernels"


def test_a_kernel_is_compiled_once(folder: Path) -> None:
    compiler = Counting()
    assert [KernelCache().compile(compiler, "abc") for _ in range(3)] == [b"abcabc"] * 3
    assert compiler.calls == 1
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert KernelCache().load(compiler, "other") is None
    other = SimpleNamespace(cachekey="compiler 2")
    assert KernelCache().load(other, "abc") is None


def test_without_the_compiler_cache_nothing_is_kept(folder: Path) -> None:
    compiler = Counting()
    compiler.cachekey = None  # tinygrad's CCACHE=0
    assert [KernelCache().compile(compiler, "abc") for _ in range(2)] == [b"abcabc"] * 2
    assert compiler.calls == 2


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "swapped", "folder", "fifo", "link"])
def test_code_that_is_not_what_was_stored_is_compiled_anew(folder: Path, damage: str) -> None:
    cache, compiler = KernelCache(), Counting()
    cache.compile(compiler, "abc")
    (path,) = folder.iterdir()
    content = path.read_bytes()
    cache.compile(compiler, "xyz")
    (other,) = set(folder.iterdir()) - {path}
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "fifo":
        os.mkfifo(path, 0o600)
    elif damage == "link":
        path.symlink_to(other)
    else:
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        changed = {"cut": content[:-1], "bit": flipped, "empty": b""}
        path.write_bytes(changed.get(damage) or other.read_bytes())
        path.chmod(0o600)
    calls = compiler.calls
    assert cache.load(compiler, "abc") is None
    assert cache.compile(compiler, "abc") == b"abcabc"
    assert compiler.calls == calls + 1


@pytest.mark.parametrize("obstacle", ["open to others", "a file", "a dangling link", "no folder"])
def test_a_folder_that_cannot_be_trusted_is_not_used_and_said_once(
    folder: Path, obstacle: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir()
    if obstacle == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    elif obstacle == "a file":
        folder.write_text("")
    elif obstacle == "a dangling link":
        folder.symlink_to(folder.parent / "nowhere")
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
        monkeypatch.setattr("tinyseg.common.cache_dir.tempfile.gettempdir", lambda: "/dev/null")
    cache, compiler = KernelCache(), Counting()
    assert [cache.compile(compiler, "abc") for _ in range(2)] == [b"abcabc"] * 2
    assert compiler.calls == 2
    (message,) = caplog.messages
    assert message.startswith("compiled kernels are not kept on disk: ")


def test_a_full_disk_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileCache, "store", full)
    cache, compiler = KernelCache(), Counting()
    assert [cache.compile(compiler, text) for text in ("a", "b")] == [b"aa", b"bb"]
    (message,) = caplog.messages
    assert "No space left on device" in message


STEP = """
from tinygrad import Tensor
from tinyseg.device.choose import backend
backend()
print((Tensor([1.0, 2.0, 3.0]) * 0.123456).sum().item())
"""


@pytest.mark.parametrize("planted", ["garbage", "a dangling link"])
def test_tinygrads_own_database_is_never_opened(tmp_path: Path, planted: str) -> None:
    """Whatever lies there, nothing of it is read, and an empty XDG_CACHE_HOME writes nothing."""
    (tmp_path / "here" / "tinygrad").mkdir(parents=True)
    database = tmp_path / "here" / "tinygrad" / "cache.db"
    if planted == "garbage":
        database.write_bytes(b"no database" * 100)
    elif planted == "a dangling link":
        database.symlink_to(tmp_path / "nowhere" / "x")
    where = {k: v for k, v in os.environ.items() if k != "CACHEDB"}
    where |= {"XDG_CACHE_HOME": "", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    before = sorted((tmp_path / "here").rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        env=where,
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-600:]
    assert done.stdout.startswith("0.7407")
    assert sorted((tmp_path / "here").rglob("*")) == before
    assert not (tmp_path / ".cache" / "tinygrad").exists()
