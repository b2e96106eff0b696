"""Compiled steps on disk: loaded ones compute the same, and only what is proven is loaded."""

import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, helpers
from tinygrad.helpers import Context

from tinyseg.cli import main
from tinyseg.common.arrays import Array
from tinyseg.device.compilers import speed_files
from tinyseg.device.tensors import copy_, to_device
from tinyseg.inference.step import PredictStep
from tinyseg.jit import key as stepkey
from tinyseg.jit.guarded import GuardedJit
from tinyseg.jit.key import NotCacheable, describe
from tinyseg.jit.serialize import TRUSTED, NotSerializable, _Pickler, _Unpickler, unpack
from tinyseg.jit.store import CacheOff, StepCache
from tinyseg.kernels import plans
from tinyseg.models import UNet
from tinyseg.training.step import TrainStep

TAKEN, KEPT = "taken from the cache", "compiled and kept in the cache"


def make_batch(seed: int = 0, size: int = 8) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((2, 1, size, size)).astype(np.float32)
    return to_device(image), to_device(rng.integers(0, 2, (2, size, size)).astype(np.uint8))


def make_model(seed: int) -> UNet:
    return UNet(1, 1, base_channels=2, depth=1, norm="none", dropout=0.2, seed=seed)


def make_step(seed: int = 0, loss: str = "bce", **options: Any) -> TrainStep:
    return TrainStep(make_model(seed), loss, **options)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache home that holds the training step and the prediction step of a small network."""
    home = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home))
        step = make_step()
        step(*make_batch())
        predict = PredictStep(step.model)
        predict(make_batch()[0])
    assert (step.origin, predict.origin) == (KEPT, KEPT)
    return home


@pytest.fixture
def home(warm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of the warm cache."""
    subprocess.run(["cp", "-rp", str(warm / "tinyseg"), str(tmp_path)], check=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """All kernels that tinygrad is asked to compile from here on, whether it knows them or not."""
    from tinygrad.engine import jit, realize

    seen: list[Any] = []
    original = realize.compile_linear

    def compile_linear(linear: Any, *arguments: Any, **options: Any) -> Any:
        seen.extend(call for call in linear.src if call.src[0].op.name in ("SINK", "PROGRAM"))
        return original(linear, *arguments, **options)

    monkeypatch.setattr(jit, "compile_linear", compile_linear)
    monkeypatch.setattr(realize, "compile_linear", compile_linear)
    return seen


def files(home: Path) -> list[Path]:
    return sorted((home / "tinyseg" / "steps").glob("*.step"))


# 1. A loaded step is the step


IN_ANOTHER_PROCESS = """
    import sys, json
    import numpy as np
    from test_step_cache import make_batch, make_step
    from tinyseg.device.tensors import to_device

    # takes other buffer numbers
    others = [to_device(np.ones(n, np.float32)) for n in range(1, 300)]
    step = make_step(seed=7, optimizer="adam(lr=0.05)", jit=sys.argv[1] == "jit")
    numbers = [step(*make_batch(seed)).numbers() for seed in range(3)]
    state = {name: tensor.numpy().tobytes().hex() for name, tensor in step.state.items()}
    assert all((other.numpy() == 1).all() for other in others)
    print(json.dumps([step.origin, numbers, state]))
"""


def run_elsewhere(how: str) -> Any:
    code, here = textwrap.dedent(IN_ANOTHER_PROCESS), Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code, how],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_loaded_step_tells_its_convolutions_without_a_kernel(home: Path) -> None:
    loaded, compiled = make_step(), make_step(canary=False)
    for step in (loaded, compiled):
        step(*make_batch())
    assert loaded.origin == TAKEN
    assert "not cached" in compiled.origin
    assert loaded.plain == compiled.plain
    assert loaded.plain[-1].endswith("1 output channels are not a multiple of 4")


@pytest.mark.slow
def test_a_loaded_step_equals_a_plain_one_in_a_process_with_other_weights(home: Path) -> None:
    loaded, plain = run_elsewhere("jit"), run_elsewhere("plain")
    assert (loaded[0], plain[0]) == (TAKEN, "")
    assert loaded[1] == plain[1]
    assert loaded[2] == plain[2]


def test_loading_compiles_nothing_and_neither_do_other_numbers(
    home: Path, compiled: list[Any]
) -> None:
    first = make_step(optimizer="adam(lr=0.5)")
    first(*make_batch())
    assert first.origin == TAKEN
    first.learning_rate = 0.25
    first.loss.assign("bce.weight", 0.5)
    first(*make_batch(3))
    weighted = make_step(seed=4, loss="0.3*bce(pos_weight=2)")
    weighted(*make_batch(5))
    assert weighted.origin == TAKEN
    assert compiled == []


@pytest.mark.slow
def test_the_count_of_compiled_kernels_counts(home: Path, compiled: list[Any]) -> None:
    step = make_step(grad_clip=0.5)
    step(*make_batch())
    assert step.origin == KEPT
    assert len(compiled) > 10


def test_predictions_are_kept_too(home: Path, compiled: list[Any]) -> None:
    model = make_model(seed=9)
    image = make_batch(4)[0]
    step = PredictStep(model)
    found = step(image).numpy()
    assert (step.origin, compiled) == (TAKEN, [])
    np.testing.assert_array_equal(found, PredictStep(model, jit=False)(image).numpy())


@pytest.mark.slow
def test_two_loaded_steps_in_one_process_share_nothing(home: Path) -> None:
    one, other = make_step(seed=1), make_step(seed=2)
    batch = make_batch()
    first = one(*batch)
    values = first.numbers()
    different = other(*batch).numbers()
    assert one.origin == other.origin == TAKEN
    assert values != different
    assert first.numbers() == values
    plain = make_step(seed=1, jit=False)
    assert plain(*batch).numbers() == values
    assert one(*make_batch(1)).numbers() == plain(*make_batch(1)).numbers()


def test_state_that_is_assigned_outside_is_used_by_the_next_call(home: Path) -> None:
    jitted, plain = make_step(), make_step(jit=False)
    for step in (jitted, plain):
        step(*make_batch())
        weight = step.state["model.head.weight"]
        weight.assign(weight * 2)
        copy_(step.state["model.head.bias"], np.ones(1, np.float32))
    assert jitted(*make_batch(1)).numbers() == plain(*make_batch(1)).numbers()


# 2. The key


def key_of(step: Any, batch: tuple[Tensor, ...]) -> str:
    found = step._guarded._open(batch)
    assert found is not None, step.origin
    return str(found[1])


CHANGES: dict[str, Any] = {
    "loss": {"loss": "dice"},
    "a switch of the loss": {"loss": "dice(batch=false)"},
    "another term": {"loss": "bce+bce"},
    "beta1": {"optimizer": "adam(beta1=0.8)"},
    "eps": {"optimizer": "adam(eps=0.01)"},
    "weight decay": {"optimizer": "adam(weight_decay=0.01)"},
    "adamw": {"optimizer": "adamw(weight_decay=0)"},
    "sgd": {"optimizer": "sgd(lr=0.001)"},
    "momentum": {"optimizer": "sgd(momentum=0.9)"},
    "other momentum": {"optimizer": "sgd(momentum=0.8)"},
    "nesterov": {"optimizer": "sgd(momentum=0.9,nesterov=true)"},
    "clip": {"grad_clip": 1.0},
    "other clip": {"grad_clip": 0.5},
    "bfloat16": {"model": UNet(1, 1, base_channels=2, depth=1, precision="bfloat16")},
    "float16": {"model": UNet(1, 1, base_channels=2, depth=1, precision="float16")},
    "fixed scale": {
        **{
            "model": UNet(1, 1, base_channels=2, depth=1, precision="float16"),
            "loss_scale": 65536.0,
        }
    },
    "width": {"model": UNet(1, 1, base_channels=4, depth=1)},
    "depth": {"model": UNet(1, 1, base_channels=2, depth=2)},
    "norm": {"model": UNet(1, 1, base_channels=8, depth=1, norm="group")},
    "instance": {"model": UNet(1, 1, base_channels=8, depth=1, norm="instance")},
    "up": {"model": UNet(1, 1, base_channels=2, depth=1, upsample="nearest")},
    "bilinear": {"model": UNet(1, 1, base_channels=2, depth=1, upsample="bilinear")},
    "attention": {"model": UNet(1, 1, base_channels=2, depth=1, attention=True)},
    "dropout": {"model": UNet(1, 1, base_channels=2, depth=1, dropout=0.2)},
    "more dropout": {"model": UNet(1, 1, base_channels=2, depth=1, dropout=0.3)},
    "classes": {"model": UNet(1, 2, base_channels=2, depth=1)},
}


def altered(path: str, value: Any) -> UNet:
    """The network with one attribute of a layer changed that no shape shows."""
    model = UNet(1, 1, base_channels=2, depth=1)
    *way, name = path.split(".")
    layer: Any = model
    for part in way:
        layer = layer[int(part)] if part.isdigit() else getattr(layer, part)
    assert hasattr(layer, name)
    setattr(layer, name, value)
    return model


HIDDEN = {
    "down.0.conv1.stride": 2,
    "down.0.conv1.padding": 0,
    "down.1.norm1.eps": 1e-3,
    "up.0.conv.norm2.momentum": 0.2,
    "up.0.upsample": "odd",
}


def test_each_thing_that_shapes_the_graph_has_its_own_key(home: Path) -> None:
    batch = (*make_batch(), to_device(np.zeros(1, np.float32)))
    standard: dict[str, Any] = {"loss": "bce"}
    steps = {"standard": TrainStep(UNet(1, 1, base_channels=2, depth=1), **standard)}
    for name, change in CHANGES.items():
        given = {"model": UNet(1, 1, base_channels=2, depth=1), **standard, **change}
        if name == "classes":
            given["loss"] = "ce"
        steps[name] = TrainStep(**given)
    for path, value in HIDDEN.items():
        steps[path] = TrainStep(altered(path, value), **standard)
    keys = {name: key_of(step, batch) for name, step in steps.items()}
    keys["predict"] = key_of(PredictStep(UNet(1, 1, base_channels=2, depth=1)), batch[:1])
    larger = (*make_batch(size=16), batch[2])
    keys["size"] = key_of(steps["standard"], larger)
    keys["labels"] = key_of(steps["standard"], (batch[0], batch[1].cast("int").realize(), batch[2]))
    groups: dict[str, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    assert [names for names in groups.values() if len(names) > 1] == []


def test_numbers_that_are_arguments_are_not_in_the_key(home: Path) -> None:
    batch = (*make_batch(), to_device(np.zeros(1, np.float32)))
    one = make_step(1, "focal(alpha=0.9,gamma=2)", optimizer="adam(lr=0.1)")
    other = make_step(2, "0.5*focal(alpha=0.5,gamma=1)", optimizer="adam(lr=0.2)")
    other.learning_rate = 0.7
    assert key_of(one, batch) == key_of(other, batch)


def test_each_part_of_the_machine_and_of_our_code_changes_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {stepkey.step_key({"a": "1"}), stepkey.step_key({"a": "2"})}
    for name in (parts := stepkey.environment()):
        changed = {**parts, name: "other"}
        monkeypatch.setattr(stepkey, "environment", lambda changed=changed: changed)
        keys.add(stepkey.step_key({"a": "1"}))
    assert len(keys) == 2 + len(parts)
    assert parts.keys() >= {"device", "compiler", "processor", "threads", "versions", "code"}


def test_switches_of_tinygrad_and_of_our_plans_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stepkey.environment()
    with Context(NOOPT=1):
        assert stepkey.environment()["settings"] != before["settings"]
    with Context(BEAM=2):
        assert stepkey.environment()["settings"] != before["settings"]
    monkeypatch.setattr(plans, "overridden", "plain")
    assert stepkey.environment()["plans"] != before["plans"]
    monkeypatch.setenv("JITBEAM", "2")
    assert stepkey.environment()["settings"] != before["settings"]


def test_the_text_of_every_module_that_shapes_a_step_is_in_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stepkey._code_digest()
    subprocess.run(["cp", "-r", str(stepkey.PACKAGE), str(tmp_path / "tinyseg")], check=True)
    monkeypatch.setattr(stepkey, "PACKAGE", tmp_path / "tinyseg")
    assert stepkey._code_digest() == before
    for name in (
        "kernels/cpu/weight.py",
        "nn/layers.py",
        "models/unet.py",
        "losses/functions.py",
        "training/step.py",
    ):
        path = tmp_path / "tinyseg" / name
        path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
        after = stepkey._code_digest()
        assert after != before, name
        before = after


def test_a_key_names_the_code_that_was_imported_not_what_lies_there_later(tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(stepkey.PACKAGE), str(tmp_path / "tinyseg")], check=True)
    program = (
        "from tinyseg.jit import key as stepkey\nfrom tinyseg.training import step\n"
        "path = stepkey.PACKAGE / 'training' / 'step.py'\n"
        "path.write_text(path.read_text(encoding='utf-8') + '# pulled', encoding='utf-8')\n"
        "print(stepkey.PACKAGE, stepkey.environment()['code'])"
    )
    command, paths = [sys.executable, "-c", program], {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=paths, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(tmp_path / "tinyseg"), stepkey.environment()["code"]]


# 3. What cannot be described is not cached


class Mine(UNet):
    """Somebody's own network: its code may change and nothing would tell."""


def test_a_network_whose_code_is_not_ours_is_not_cached(home: Path) -> None:
    step = TrainStep(Mine(1, 1, base_channels=2, depth=1), "bce")
    assert step._guarded._open(make_batch()) is None
    assert "Mine is code outside tinyseg" in step.origin


def test_a_loss_that_is_a_function_is_not_cached(home: Path) -> None:
    step = TrainStep(
        UNet(1, 1, base_channels=2, depth=1), lambda logits, label: (logits - label).square().mean()
    )
    assert step._guarded._open(make_batch()) is None
    assert "may change" in step.origin


def test_hidden_tensors_patched_methods_and_cycles_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model: Any = UNet(1, 1, base_channels=2, depth=1)
    names = model.state_dict()
    model.extra = (to_device(np.ones(1, np.float32)),)
    with pytest.raises(NotCacheable, match="not part of its state"):
        describe(model, names)
    assert "<state extra.0>" in describe(model, model.state_dict())
    model.extra = np.random.default_rng(0)
    with pytest.raises(NotCacheable, match="outside tinyseg"):
        describe(model, model.state_dict())
    model.extra = model
    with pytest.raises(NotCacheable, match="contains itself"):
        describe(model, names)
    del model.extra
    monkeypatch.setattr(UNet, "_forward", lambda self, x, training: x)
    with pytest.raises(NotCacheable, match="was changed by"):
        describe(model, model.state_dict())


def test_arrays_are_described_by_their_numbers() -> None:
    one, other = np.zeros(3), np.zeros(3)
    assert describe(one, {}) == describe(other, {})
    other[1] = -0.0
    assert len({describe(x, {}) for x in (one, other, one.astype("f4"), one[:2])}) == 4


# 4. Files


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def recompiles(home: Path) -> None:
    """A step is made as if nothing were there, and is stored again."""
    step = make_step()
    assert np.isfinite(step(*make_batch()).numbers()["loss"])
    assert step.origin == KEPT
    again = make_step()
    again(*make_batch())
    assert again.origin == TAKEN


def spoil(home: Path, change: Any) -> None:
    for path in files(home):
        path.write_bytes(change(path.read_bytes()))


def test_a_planted_pickle_is_never_loaded_and_damage_is_mended(home: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    planted = b"{}\n" + pickle.dumps(Trap(trap))
    with pytest.raises(pickle.UnpicklingError, match="does not need posix"):
        unpack(pickle.dumps(Trap(trap)))  # even if it had the right digest
    spoil(home, lambda content: content[:47] + planted)
    recompiles(home)
    assert not trap.exists()


class Call:
    """Unpickling it calls a function."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_a_step_may_name_listed_types_only_and_no_function_of_tinygrad(tmp_path: Path) -> None:
    """`tinygrad.helpers.system` runs a command."""
    command = f"touch {tmp_path / 'trapped'}"
    for trap in (Call(helpers.system, command), Call(helpers.getenv, "HOME"), Call(eval, "1")):
        with pytest.raises(pickle.UnpicklingError, match="a step does not need"):
            unpack(pickle.dumps(trap))
    for module, name in (("tinygrad.uop.ops", "UOp.unique"), ("tinygrad", "helpers.system")):
        with pytest.raises(pickle.UnpicklingError, match=f"need {module}.{name}"):
            _Unpickler(io.BytesIO()).find_class(module, name)
    assert not (tmp_path / "trapped").exists()
    found = {(module, name): getattr(import_module(module), name) for module, name in TRUSTED}
    assert all(isinstance(thing, type) for thing in found.values())


def test_what_could_not_be_loaded_again_is_not_stored() -> None:
    for value in (helpers.system, os.mkdir, Trap):
        with pytest.raises(NotSerializable, match=r"it needs .*(system|mkdir|Trap)"):
            _Pickler(io.BytesIO(), set()).dump(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content[:3000] + bytes([content[3000] ^ 1]) + content[3001:],
        lambda content: b"tinyseg step 1\n" + content[15:],
    ],
)
def test_what_is_damaged_is_not_taken(home: Path, change: Any) -> None:
    cache = StepCache()
    keys = [path.stem for path in files(home)]
    assert all(cache.load(key) for key in keys)
    spoil(home, change)
    assert [cache.load(key) for key in keys] == [None] * len(keys)


def test_a_whole_file_under_another_name_is_not_taken(home: Path) -> None:
    cache, (one, other) = StepCache(), files(home)[:2]
    other.write_bytes(one.read_bytes())
    assert cache.load(one.stem)
    assert cache.load(other.stem) is None


def test_a_step_that_computes_something_else_than_when_it_was_stored_is_compiled_anew(
    home: Path,
) -> None:
    cache = StepCache()
    for path in files(home):
        content = cache.load(path.stem)
        assert content is not None
        header, _, program = content.partition(b"\n")
        facts = {**json.loads(header), "proof": "0" * 64}
        cache.store(path.stem, json.dumps(facts).encode() + b"\n" + program)
    recompiles(home)


def test_a_first_call_that_fails_leaves_the_state_as_it_was(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, (image, label) = make_step(), make_batch()
    before = {name: tensor.numpy().copy() for name, tensor in step.state.items()}

    def fail(self: object, inputs: object) -> str:
        copy_(step.state["model.head.weight"], np.ones((1, 2, 1, 1), np.float32))
        raise KeyboardInterrupt

    monkeypatch.setattr(GuardedJit, "_proof", fail)
    with pytest.raises(KeyboardInterrupt):
        step(image, label)
    for name, tensor in step.state.items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)


posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no such modes")


@posix
def test_files_that_others_could_read_or_write_are_not_taken(home: Path) -> None:
    cache, path = StepCache(), files(home)[0]
    for mode in (0o620, 0o602, 0o640, 0o604):
        path.chmod(mode)
        assert cache.load(path.stem) is None, oct(mode)
    path.chmod(0o600)
    assert cache.load(path.stem)
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))
    assert cache.load(path.stem) is None


@posix
def test_a_folder_open_to_others_switches_the_cache_off(home: Path) -> None:
    (home / "tinyseg" / "steps").chmod(0o770)
    with pytest.raises(CacheOff, match="chmod go-rwx"):
        StepCache()
    step = make_step()
    assert step._guarded._open(make_batch()) is None
    assert step.origin.startswith("compiled; not cached: ")


@posix
def test_all_that_is_written_is_private(warm: Path) -> None:
    folder = warm / "tinyseg" / "steps"
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(modes) == 2
    assert set(modes.values()) == {0o600}


def test_a_folder_that_cannot_be_made_switches_the_cache_off(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheOff):
        StepCache(tmp_path / "file" / "steps")


def test_writers_at_the_same_time_leave_a_whole_file(tmp_path: Path) -> None:
    payloads = [bytes([number]) * 200_000 for number in range(8)]

    def work(payload: bytes) -> bool:
        cache = StepCache(tmp_path / "steps")
        for _ in range(10):
            cache.store("key", payload)
            if cache.load("key") not in payloads:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, payloads))
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == ["key.step"]


def test_the_least_recently_used_step_goes_first(tmp_path: Path) -> None:
    cache = StepCache(tmp_path, limit=3000)
    for number, key in enumerate("abc"):
        cache.store(key, bytes(900))
        os.utime(tmp_path / f"{key}.step", (number, number))
    assert cache.load("a")  # used just now
    stale = tmp_path / "dead.partial"
    stale.write_bytes(b"")
    os.utime(stale, (time.time() - 9999, time.time() - 9999))
    cache.store("d", bytes(900))
    assert [key for key in "abcd" if cache.load(key)] == ["a", "c", "d"]
    assert not stale.exists()
    assert cache.info().bytes <= 3000


def test_the_command_line_tells_and_clears(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info"]) == 0
    assert "2 compiled steps, " in capsys.readouterr().out
    speed_files().store("a compiler", b"{}")
    assert main(["cache", "clear"]) == 0
    said = capsys.readouterr().out
    assert "2 compiled steps removed" in said
    assert "1 measurements of the fastest compiler removed" in said
    assert speed_files().info().files == 0
    assert StepCache().info().files == 0


@pytest.mark.slow
def test_plain_steps_and_steps_without_a_canary_leave_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make_step(jit=False)(*make_batch())
    make_step(canary=False)(*make_batch())
    assert files(tmp_path) == []


def test_made_up_numbers_are_valid_anywhere() -> None:
    from tinyseg.jit.guarded import _random_like

    rng = np.random.default_rng(0)
    weight: Array = _random_like(rng, np.zeros((8, 4, 3, 3), np.float32))
    assert weight.dtype == np.float32
    assert 0 < weight.min() < weight.max() < 1 / 36
    assert set(_random_like(rng, np.zeros((4, 9), np.uint8)).ravel()) == {0, 1}
