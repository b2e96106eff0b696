"""The user's cache folder, and files kept there: private, whole or not there, bounded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tinyseg.common.cache_dir as module
from tinyseg.common.cache_dir import cache_folder
from tinyseg.errors import BackendError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tinyseg"


def test_the_cache_folder_is_that_of_the_environment(own_cache: Path) -> None:
    assert cache_folder() == own_cache
    assert own_cache.is_dir()
    assert own_cache.stat().st_mode & 0o077 == 0, "others may not write code there"


def test_the_cache_folder_is_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "tinyseg"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "tinyseg"


@pytest.mark.parametrize("home", ["is a file", "is read-only"])
def test_without_a_writable_home_the_temporary_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    if home == "is read-only":  # also for root, whom permissions do not stop
        monkeypatch.setenv("HOME", str(tmp_path))
        temporary, allowed = str(tmp_path / "temporary"), os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: temporary in str(path) and allowed(path, mode)
        )
    found = cache_folder()
    assert found.parent == tmp_path / "temporary"
    assert found.is_dir()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no user ids here")
def test_a_cache_that_somebody_else_has_put_there_is_not_used(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert cache_folder() == own_cache
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(BackendError, match="no writable cache folder"):
        cache_folder()


def test_an_unset_home_is_no_crash(tmp_path: Path) -> None:
    """In a container under a user id without a name, Python cannot tell the home folder."""
    program = (
        "import pwd, tinyseg.common.cache_dir as b\n"
        "def unknown(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = unknown\n"
        "print(b.cache_folder())\n"
    )
    cleared = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    where = {**cleared, "TMPDIR": str(tmp_path), "CACHEDB": str(tmp_path / "cache.db")}
    where["PYTHONPATH"] = str(Path(module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program], env=where, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith(str(tmp_path))


def test_no_writable_folder_at_all_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    with pytest.raises(BackendError, match=r"\(tried .*file.*, .*file.*\); set XDG_CACHE"):
        cache_folder()
