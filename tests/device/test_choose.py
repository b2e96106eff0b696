"""The choice of device and compiler, and the upload."""

import json
import platform
import stat
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tinygrad import Device, Tensor
from tinygrad.helpers import CPU_COUNT

from tinyseg.device import choose as module
from tinyseg.device import compilers as compiling
from tinyseg.device import environment
from tinyseg.device.capture import JitFunction
from tinyseg.device.choose import backend
from tinyseg.device.compilers import Compiler, compilers
from tinyseg.device.environment import cpu_model, versions
from tinyseg.device.tensors import copy_, ensure_buffer, owns_buffer, to_device
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


# The upload


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32, np.uint32, np.float16, np.bool_])
@pytest.mark.parametrize("shape", [(3, 4), (5,), (1,), ()])
def test_what_is_uploaded_comes_back(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.array(np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3, dtype)
    tensor = to_device(array)
    assert tensor.shape == shape
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert tensor.numpy().dtype == dtype


def test_an_upload_is_a_copy() -> None:
    array = np.arange(6, dtype=np.float32)
    tensor = to_device(array)
    array[:] = -1
    assert tensor.numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_turned_strided_and_read_only_arrays_are_uploaded_as_they_look() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    read_only = np.frombuffer(array.tobytes(), np.float32).reshape(4, 6)
    for view in (array.T, array[::2, 1::3], array[:, ::-1], read_only):
        np.testing.assert_array_equal(to_device(view).numpy(), view)


def test_overwrite_reaches_all_that_share_the_buffer() -> None:
    tensor = to_device(np.zeros((2, 3), np.float32))
    twice = tensor * 2
    copy_(tensor, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert tensor.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert twice.numpy().tolist() == [[0, 2, 4], [6, 8, 10]]


def test_what_waits_to_be_assigned_goes_into_the_buffer_that_is_there() -> None:
    """A jitted step knows the buffer: another one in its place would leave the step behind."""
    tensor = to_device(np.zeros(3, np.float32))
    buffer = tensor.uop.buffer
    tensor.assign(tensor + 1)
    assert not owns_buffer(tensor)
    ensure_buffer(tensor)
    assert owns_buffer(tensor)
    assert tensor.uop.buffer is buffer
    assert tensor.tolist() == [1, 1, 1]
    constant = Tensor.ones(3)
    ensure_buffer(constant)
    assert owns_buffer(constant)


def test_only_a_whole_realized_buffer_is_owned() -> None:
    whole = to_device(np.zeros((4, 3, 2), np.float32))
    assert owns_buffer(whole)
    assert owns_buffer(whole.reshape(12, 2))
    assert owns_buffer((whole + 1).realize())
    assert owns_buffer(whole.permute(2, 0, 1).clone().realize())
    assert owns_buffer(whole[1].clone().realize())
    for baked in (
        *(whole[1], whole[1].contiguous(), whole[1].contiguous().realize()),
        *(whole.permute(1, 0, 2), whole.flip(0), whole.shrink(((0, 2), None, None))),
        *(whole[:1].expand(4, 3, 2), whole + 1, Tensor.ones(3), Tensor(3.0)),
        *(Tensor.ones(3).contiguous(), Tensor.full((2,), 7)),
    ):
        assert not owns_buffer(baked)


@pytest.mark.parametrize(
    "make",
    [lambda t: t[1].contiguous().realize(), lambda t: t.permute(1, 0, 2).contiguous().realize()],
)
def test_what_is_owned_really_enters_a_jitted_step(make) -> None:
    """The oracle of `owns_buffer`: replays see the new argument when it says yes."""
    data = [to_device(np.full((4, 3, 2), value, np.float32)) for value in range(4)]
    step = JitFunction(lambda t: (t + 0).sum().realize())
    inputs = [make(tensor) for tensor in data]
    inputs = [t if owns_buffer(t) else t.clone().realize() for t in inputs]
    assert all(map(owns_buffer, inputs))
    found = [float(step(tensor).numpy()) for tensor in inputs]
    assert found == [value * inputs[0].numel() for value in range(4)]


def test_jitted_captures_at_its_first_call() -> None:
    calls: list[int] = []

    def double(tensor: Tensor) -> Tensor:
        calls.append(1)
        return (tensor * 2).realize()

    step = JitFunction(double)
    found = [step(to_device(np.array([value], np.float32))).numpy().tolist() for value in range(4)]
    assert found == [[0], [2], [4], [6]]
    assert len(calls) == 1


# The cure of the silent lock: TinyJit's graphs bake in views of an input


def zig() -> Compiler:
    found = next((c for c in compilers() if c.name == "zig"), None)
    if found is None:
        pytest.skip("no zig wheel")
    return found


# The device


def test_the_choice_gives_its_reason_in_words() -> None:
    chosen = backend()
    assert chosen is backend()
    assert chosen.device in chosen.reason
    assert "because" in chosen.reason
    assert chosen.threads == CPU_COUNT.value >= 1
    assert (chosen.compiler is not None) is (chosen.device == "CPU")


def test_asked_for_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV", "CPU")
    monkeypatch.setattr(module, "DEV", SimpleNamespace(device="CPU", renderer="", value="CPU"))
    assert module._choose_device() == ("CPU", "CPU because DEV=CPU asks for it")


def test_the_first_gpu_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    device = SimpleNamespace(device="", renderer="", value="")
    monkeypatch.setattr(module, "DEV", device)
    monkeypatch.setattr(module, "_opens", lambda name: asked.append(name) or name == "CUDA")
    assert module._choose_device() == (
        "CUDA",
        "CUDA because it is the first GPU that can be opened",
    )
    assert asked == ["METAL", "AMD", "NV", "CUDA"]
    assert device.value == "CUDA"
    monkeypatch.setattr(module, "_opens", lambda name: False)
    assert module._choose_device() == ("CPU", "CPU because no GPU can be opened")
    assert device.value == "CPU"


@pytest.mark.parametrize("error", [RuntimeError, OSError, AssertionError, KeyError, AttributeError])
def test_a_driver_that_fails_in_any_way_is_not_there(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Devices:
        def __getitem__(self, name: str) -> object:
            raise error(name)

    monkeypatch.setattr(module, "Device", Devices())
    assert module._opens("CUDA") is False


def test_an_opencl_that_is_only_the_cpu_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "may_be_there", lambda name: False)
    monkeypatch.setattr(module, "Device", {"CL": SimpleNamespace(renderer=object())})
    assert module._opens("CL") is False
    monkeypatch.setattr(module, "may_be_there", lambda name: True)
    assert module._opens("CL") is True


# The compiler


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
    assert len(json.loads((own_cache / "compilers.json").read_text())) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', "null", "\udcff"])
def test_a_damaged_memory_of_speeds_is_measured_anew(
    own_cache: Path, measured: list[Compiler], content: str
) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "compilers.json").write_bytes(content.encode(errors="surrogateescape"))
    assert compiling._choose_compiler()[0] == FAST
    assert measured == [SLOW, FAST]
    assert compiling._choose_compiler()[0] == FAST
    assert measured == [SLOW, FAST]


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


# Folders, names, versions


def test_versions_and_processor_are_told() -> None:
    found = versions()
    assert found["tinygrad"].startswith("0.13")
    assert found["python"] == platform.python_version()
    assert {"tinyseg", "numpy", "pillow", "scipy", "platform"} <= set(found)
    assert all(found.values())
    assert cpu_model()
    assert environment._version("no-such-package") == "not installed"


def test_the_processor_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> str:
        raise OSError("no /proc")

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_model() == (platform.processor() or platform.machine())
