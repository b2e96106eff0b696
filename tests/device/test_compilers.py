"""The choice of the CPU's compiler."""

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from tinygrad import Device

from tinyseg.device import compilers as compiling
from tinyseg.device.choose import backend
from tinyseg.device.compilers import Compiler
from tinyseg.errors import BackendError

on_cpu = pytest.mark.skipif(backend().device != "CPU", reason="another device was chosen")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder for one test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tinyseg"


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts scripts on a PATH of their own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, script: str) -> str:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def says(version: str) -> str:
    return f'echo "Debian clang version {version} (build 7)"; echo "Target: x86_64"'


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("14.0.6", False), ("18.1.8", False), ("19.1.0", True), ("22", True), ("100.0", True)],
)
def test_an_old_clang_is_refused(fake_program, version: str, accepted: bool) -> None:
    path = fake_program("clang", says(version))
    expected = Compiler("clang", version, (path,)) if accepted else None
    assert compiling._find_clang() == expected


def test_a_newer_clang_by_its_versioned_name(fake_program) -> None:
    fake_program("clang", says("14.0.6"))
    fake_program("clang-18", says("18.0.0"))
    path = fake_program("clang-21", says("21.1.2"))
    fake_program("clang-20", says("20.1.0"))
    assert compiling._find_clang() == Compiler("clang", "21.1.2", (path,))


@pytest.mark.parametrize(
    "script", ["exit 1", "echo gcc 13.2", "exec /no/such/program", 'echo "clang version unknown"']
)
def test_a_clang_that_does_not_answer_is_none(fake_program, script: str) -> None:
    fake_program("clang", script)
    assert compiling._find_clang() is None


def test_no_clang_on_the_path(fake_program) -> None:
    assert compiling._find_clang() is None


def test_no_compiler_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "compilers", tuple)
    with pytest.raises(BackendError, match=r'pip install "tinyseg\[cpu\]".*clang >= 19'):
        compiling._choose_compiler()


def test_a_renderer_that_is_asked_for_is_not_questioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "DEV", SimpleNamespace(renderer="LLVM"))
    monkeypatch.setattr(compiling, "compilers", lambda: pytest.fail("was searched"))
    assert compiling._choose_compiler() == (
        Compiler("llvm", "", ()),
        "LLVM because DEV asks for it",
    )


SLOW, FAST = Compiler("clang", "19.1", ("/slow",)), Compiler("zig", "22.1", ("/fast",))
GFLOPS = {SLOW: 41.0, FAST: 99.6}


@pytest.fixture
def measured(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[Compiler]:
    """Two compilers whose speed is known; the list tells which were measured."""
    seen: list[Compiler] = []
    monkeypatch.setattr(compiling, "DEV", SimpleNamespace(renderer=""))
    monkeypatch.setattr(compiling, "compilers", lambda: (SLOW, FAST))
    monkeypatch.setattr(compiling, "_measure", lambda c: seen.append(c) or GFLOPS[c])
    return seen


def test_the_fastest_compiler_is_measured_once_and_remembered(
    own_cache: Path, measured: list[Compiler]
) -> None:
    reason = "zig because it was the fastest (GFLOP/s: clang 19.1 41, zig 22.1 100)"
    assert compiling._choose_compiler() == (FAST, reason)
    assert measured == [SLOW, FAST]
    assert compiling._choose_compiler() == (FAST, reason)
    assert measured == [SLOW, FAST]
    assert len(list((own_cache / "compilers").glob("*.json"))) == 1


@pytest.mark.parametrize("damage", ["empty", "other", "fifo", "folder open to others"])
def test_damaged_speeds_are_measured_anew(
    own_cache: Path, measured: list[Compiler], damage: str
) -> None:
    compiling._choose_compiler()
    (path,) = (own_cache / "compilers").glob("*.json")
    if damage == "folder open to others":
        path.parent.chmod(0o777)
    else:
        path.unlink()
        if damage == "fifo":
            os.mkfifo(path, 0o600)
        else:
            path.write_text("" if damage == "empty" else '{"x": 1}')
    assert compiling._choose_compiler()[0] == FAST
    assert measured == [SLOW, FAST] * 2
    assert compiling._choose_compiler()[0] == FAST
    assert measured == [SLOW, FAST] * (3 if damage == "folder open to others" else 2)


def test_without_any_folder_the_speeds_are_measured_each_time(
    measured: list[Compiler], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr("tinyseg.common.cache_dir.tempfile.gettempdir", lambda: "/dev/null")
    for count in (1, 2):
        assert compiling._choose_compiler()[0] == FAST
        assert measured == [SLOW, FAST] * count


def test_another_processor_or_version_is_measured_anew(
    measured: list[Compiler], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiling._choose_compiler()
    monkeypatch.setattr(compiling, "cpu_model", lambda: "another processor")
    compiling._choose_compiler()
    assert measured == [SLOW, FAST] * 2


def test_a_single_compiler_needs_no_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "DEV", SimpleNamespace(renderer=""))
    monkeypatch.setattr(compiling, "compilers", lambda: (FAST,))
    monkeypatch.setattr(compiling, "_measure", lambda c: pytest.fail("was measured"))
    assert compiling._choose_compiler() == (
        FAST,
        "zig 22.1 because no other compiler was found",
    )


@on_cpu
def test_a_real_measurement_and_a_compiler_that_fails(tmp_path: Path) -> None:
    before = list(Device["CPU"].renderers)
    broken = Compiler("clang", "99", (str(tmp_path / "none"),))
    assert compiling._measure(broken, side=32) == 0.0
    real = backend().compiler
    assert real is not None
    assert compiling._measure(real, side=32) > 0.01
    assert Device["CPU"].renderers == before, "the choice was not restored"


@pytest.mark.skipif(not backend().compiler or not backend().compiler.command, reason="no command")
def test_the_compilers_cache_key_names_it() -> None:
    arch = [part for part in Device["CPU"].renderer.target.arch.split(",") if part != "AMX"]
    keys = {
        compiling._Clang(arch, compiler).cachekey
        for compiler in (
            Compiler("clang", "19.1", ("/a/clang",)),
            Compiler("clang", "19.2", ("/a/clang",)),
            Compiler("clang", "19.1", ("/b/clang",)),
            Compiler("zig", "19.1", ("/a/clang",)),
        )
    }
    assert len(keys) == 4
    assert all("tinyseg_" in str(key) for key in keys)
    real = backend().compiler
    assert real is not None
    renderer = Device["CPU"].renderer
    assert compiling._identity(real) in str(renderer.compiler.cachekey)


@on_cpu
def test_a_compile_error_is_a_backend_error_with_the_compilers_words() -> None:
    compiler = Device["CPU"].renderer.compiler
    if not isinstance(compiler, compiling._Clang):
        pytest.skip("not a compiler of ours")
    with pytest.raises(BackendError, match=r"(?s)failed: .*error: .*nonsense"):
        compiler.compile_to_obj("this is nonsense;")
