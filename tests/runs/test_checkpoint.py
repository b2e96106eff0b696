import gc
import hashlib
import json
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor
from tinygrad.nn.state import safe_load, safe_save

from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import RunError
from tinyseg.runs import checkpoint as module
from tinyseg.runs.checkpoint import any_in, assign, load, load_latest, rotate, save, share

RNG = np.random.default_rng(0)
TENSORS = {
    "model.down.0.conv1.weight": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
    "half": RNG.standard_normal(5).astype(np.float16),
    "model.dropout.key": np.array([2**32 - 1, 7], np.uint32),
    "counts": np.array([-(2**31), 0, 2**31 - 1], np.int32),
    "scalar": np.array(1.5, np.float32),
    "none": np.zeros((0, 3), np.float32),
    "special": np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
    "turned": RNG.standard_normal((6, 4)).astype(np.float32).T,
    "größe": np.ones(1, np.float32),
}
FACTS = {"position": {"epoch": 3, "best_dice": 0.25}, "text": 'é"\\', "best": float("-inf")}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    assert list(one) == list(other)
    for name, array in one.items():
        assert (array.dtype, array.shape) == (other[name].dtype, other[name].shape), name
        assert array.tobytes() == other[name].tobytes(), name
    return True


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header, also an impossible one."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(head) if length is None else length).to_bytes(8, "little") + head + data


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_all_dtypes_and_shapes_and_the_facts_go_round(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", TENSORS, FACTS)
    tensors, facts = load(tmp_path / "a.safetensors")
    assert same(tensors, TENSORS)
    assert facts == FACTS
    save(tmp_path / "b.safetensors", {}, {})
    assert load(tmp_path / "b.safetensors") == ({}, {})


def test_what_is_loaded_can_be_copied_to_the_device(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", TENSORS, {})
    for name, array in load(tmp_path / "a.safetensors")[0].items():
        if array.size:
            target = to_device(np.zeros_like(array))
            copy_(target, array)
            np.testing.assert_array_equal(target.numpy(), array, err_msg=name)


@pytest.mark.parametrize("dtype", [np.complex64, ">f4", "U3", object])
def test_a_dtype_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, dtype: object
) -> None:
    with pytest.raises(RunError, match=r"weights has dtype .*, which a checkpoint cannot hold"):
        save(tmp_path / "a.safetensors", {"weights": np.zeros(2, dtype)}, {})
    assert not list(tmp_path.iterdir())


def test_the_independent_reader_understands_our_files(tmp_path: Path) -> None:
    kept = {name: array for name, array in TENSORS.items() if array.size}
    save(tmp_path / "a.safetensors", kept, FACTS)
    loaded = safe_load(tmp_path / "a.safetensors")
    assert same({name: tensor.numpy() for name, tensor in loaded.items()}, kept)


def test_we_understand_the_files_of_the_independent_writer(tmp_path: Path) -> None:
    kept = {name: array for name, array in TENSORS.items() if array.size}
    tensors = {name: Tensor(array) for name, array in kept.items()}
    safe_save(tensors, str(tmp_path / "a.safetensors"), {"format": "pt"})
    loaded, facts = load(tmp_path / "a.safetensors")
    assert same(loaded, kept)
    assert facts == {}


def test_the_header_is_aligned_as_the_format_asks(tmp_path: Path) -> None:
    for length in range(1, 9):
        save(tmp_path / "a.safetensors", {"n" * length: np.ones(2, np.float32)}, {})
        content = (tmp_path / "a.safetensors").read_bytes()
        assert int.from_bytes(content[:8], "little") % 8 == 0
        assert content[8:9] == b"{"


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"w": np.arange(6, dtype=np.float32), "key": np.ones(2, np.uint32)}, {"epoch": 3})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(RunError, match=r"a\.safetensors: damaged or no safetensors file"):
            load(path)
    path.write_bytes(whole + b"\x00")
    with pytest.raises(RunError, match="damaged"):
        load(path)


@pytest.mark.parametrize("bit", [0x10, 0x01, 0x20])
def test_every_flipped_bit_is_noticed(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"w": np.arange(6, dtype=np.float32), "key": np.ones(2, np.uint32)}
    save(path, tensors, {"epoch": 3})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(RunError, match=r"a\.safetensors: damaged or no safetensors file"):
            load(path)


def swap_names(header: dict[str, Any]) -> None:
    header["a"], header["b"] = header["b"], header["a"]


def change_type(header: dict[str, Any]) -> None:
    header["a"]["dtype"] = "I32"


def change_shape(header: dict[str, Any]) -> None:
    header["a"]["shape"] = [3, 2]


@pytest.mark.parametrize("change", [swap_names, change_type, change_shape])
def test_other_names_types_and_shapes_are_noticed(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"a": np.zeros((2, 3), np.float32), "b": np.ones((2, 3), np.float32)}, {})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + content[8 + size :])
    with pytest.raises(RunError, match="digest does not match"):
        load(path)


def test_a_checkpoint_of_the_first_version_is_read(tmp_path: Path) -> None:
    facts, data = json.dumps({"epoch": 3}), np.arange(2, dtype=np.float32).tobytes()
    digest = hashlib.sha256(facts.encode() + data).hexdigest()
    header = {
        "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "__metadata__": {"tinyseg": facts, "sha256": digest},
    }
    head = json.dumps(header).encode()
    path = tmp_path / "old.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    tensors, read = load(path)
    assert (tensors["w"].tolist(), read) == ([0.0, 1.0], {"epoch": 3})
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(RunError, match="digest does not match"):
        load(path)


HOSTILE = {
    "empty": b"",
    "short": b"\x00\x00\x00",
    "zeros": bytes(64),
    "length of 2^63": raw({}, length=2**63),
    "length of all": raw({}, length=2**64 - 1),
    "length beyond the file": raw({}, length=10**9),
    "length one too long": raw({"w": entry()}, b"", length=len(json.dumps({"w": entry()})) + 1),
    "length one too long, no tensor": raw({}, length=3),
    "no JSON": raw(b"pickled!" * 4),
    "not UTF-8": raw(b"\xff\xfe\x80{}"),
    "list": raw([1, 2]),
    "number": raw(b"17"),
    "null": raw(b"null"),
    "deep": raw(b"[" * 200_000),
    "deep objects": raw(b'{"a":' * 200_000),
    "long number": raw(b'{"w": ' + b"9" * 5000 + b"}"),
    "entry is a list": raw({"w": [1, 2]}),
    "entry is null": raw({"w": None}),
    "no dtype": raw({"w": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "dtype of pickle": raw({"w": entry(dtype="O")}, bytes(4)),
    "dtype is a list": raw({"w": entry(dtype=["F32"])}, bytes(4)),
    "dtype is null": raw({"w": entry(dtype=None)}, bytes(4)),
    "offsets negative": raw({"w": entry(offsets=(-4, 0))}, bytes(4)),
    "offsets turned": raw({"w": entry(offsets=(4, 0))}, bytes(4)),
    "offsets beyond": raw({"w": entry(offsets=(4, 8))}, bytes(4)),
    "offsets huge": raw({"w": entry(offsets=(10**30, 10**30 + 4))}, bytes(4)),
    "offsets three": raw({"w": entry(offsets=(0, 4, 8))}, bytes(8)),
    "offsets texts": raw({"w": entry(offsets=("0", "4"))}, bytes(4)),
    "offsets floats": raw({"w": entry(offsets=(0.0, 4.0))}, bytes(4)),
    "offsets booleans": raw({"w": entry(offsets=(False, 4))}, bytes(4)),
    "offsets number": raw({"w": entry(offsets=4)}, bytes(4)),
    "offsets overlap": raw({"a": entry(), "b": entry()}, bytes(4)),
    "offsets overlap by half": raw({"a": entry(), "b": entry(offsets=(2, 6))}, bytes(8)),
    "hole": raw({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
    "rest": raw({"a": entry()}, bytes(8)),
    "shape of 10^9": raw({"w": entry(shape=(10**9,))}, bytes(4)),
    "shape of 10^9 announced": raw({"w": entry(shape=(10**9,), offsets=(0, 4 * 10**9))}, bytes(4)),
    "shape negative": raw({"w": entry(shape=(-1, -1))}, bytes(4)),
    "shape floats": raw({"w": entry(shape=(1.0,))}, bytes(4)),
    "shape text": raw({"w": entry(shape="1")}, bytes(4)),
    "shape number": raw({"w": entry(shape=1)}, bytes(4)),
    "shape null": raw({"w": entry(shape=None)}, bytes(4)),
    "shape of nothing, huge": raw({"w": entry(shape=(0, 10**30), offsets=(0, 0))}),
    "shape of many axes": raw({"w": entry(shape=(1,) * 1000)}, bytes(4)),
    "metadata list": raw({"__metadata__": ["tinyseg"]}),
    "metadata null": raw({"__metadata__": None}),
    "facts number": raw({"__metadata__": {"tinyseg": 3}}),
    "facts no JSON": raw({"__metadata__": {"tinyseg": "{"}}),
    "facts list": raw({"__metadata__": {"tinyseg": "[]"}}),
    "facts deep": raw({"__metadata__": {"tinyseg": "[" * 100_000}}),
    "facts half a letter": raw({"__metadata__": {"tinyseg": "\ud800", "sha256": "x"}}),
    "digest number": raw({"__metadata__": {"sha256": 3}}),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_run_errors_at_once_and_cost_no_memory(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    gc.disable()  # a collection of all that the tests before have left takes seconds
    tracemalloc.start()
    start = time.thread_time()
    try:
        with pytest.raises(RunError, match=r"a\.safetensors: damaged or no safetensors file"):
            load(path)
        most = tracemalloc.get_traced_memory()[1]
        seconds = time.thread_time() - start
    finally:
        tracemalloc.stop()
        gc.enable()
    assert seconds < 1
    assert most < 50_000_000


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    path, draw = tmp_path / "a.safetensors", random.Random(0)
    header = {"a": entry(), "b": entry("F16", (2, 1), (4, 8)), "__metadata__": {"format": "pt"}}
    good = raw(header, bytes(8))
    path.write_bytes(good)
    assert list(load(path)[0]) == ["a", "b"]
    for _ in range(500):
        content = bytearray(good)
        for _ in range(draw.randrange(1, 5)):
            place = draw.randrange(8, len(content))
            content[place : place + draw.randrange(3)] = draw.randbytes(draw.randrange(3))
        content[:8] = (len(content) - 16).to_bytes(8, "little")
        path.write_bytes(content)
        try:
            load(path)
        except RunError:
            continue


def test_missing_files_and_folders_are_run_errors(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.safetensors: no such checkpoint"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(RunError, match="cannot be read"):
        load(tmp_path)


def put(folder: Path, epoch: int) -> None:
    rotate(folder)
    save(folder / "last.safetensors", {"w": np.full(3, epoch, np.float32)}, {"epoch": epoch})


def test_the_last_checkpoint_is_found_and_the_one_before_is_kept(tmp_path: Path) -> None:
    rotate(tmp_path)
    assert not any_in(tmp_path)
    for epoch in (1, 2, 3):
        put(tmp_path, epoch)
    tensors, facts, path = load_latest(tmp_path)
    assert (facts, path) == ({"epoch": 3}, tmp_path / "last.safetensors")
    assert tensors["w"].tolist() == [3, 3, 3]
    assert load(tmp_path / "previous.safetensors")[1] == {"epoch": 2}
    assert any_in(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "killed"])
def test_the_previous_checkpoint_stands_in_for_a_damaged_last_one(
    tmp_path: Path, damage: str
) -> None:
    for epoch in (1, 2):
        put(tmp_path, epoch)
    last = tmp_path / "last.safetensors"
    content, kept = last.read_bytes(), 1
    if damage == "killed":  # between making room and writing
        rotate(tmp_path)
        kept = 2
    elif damage == "missing":
        last.unlink()
    elif damage == "flipped":
        last.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        last.write_bytes(content[: 0 if damage == "empty" else len(content) - 3])
    assert any_in(tmp_path)
    _, facts, path = load_latest(tmp_path)
    assert (facts, path.name) == ({"epoch": kept}, "previous.safetensors")


def test_a_damaged_last_checkpoint_never_replaces_the_whole_one_before(tmp_path: Path) -> None:
    for epoch in (1, 2):
        put(tmp_path, epoch)
    last = tmp_path / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-3])
    rotate(tmp_path)  # killed now, before the new one is written
    assert load_latest(tmp_path)[1] == {"epoch": 1}


def test_what_is_known_to_be_whole_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate(tmp_path, whole=True)
    put(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "load", None)
        rotate(tmp_path, whole=True)
    assert load(tmp_path / "previous.safetensors")[1] == {"epoch": 1}


@pytest.mark.parametrize("links", [True, False])
def test_a_shared_checkpoint_keeps_its_content_when_the_other_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(module.os, "link", refuse)
    best, last = tmp_path / "best.safetensors", tmp_path / "last.safetensors"
    for epoch in (1, 2):
        put(tmp_path, epoch)
        for _ in range(2):  # also when both are one file already
            share(last, best)
    assert load(best)[1] == {"epoch": 2}
    put(tmp_path, 3)
    assert load(best)[1] == {"epoch": 2}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 3


def test_without_a_whole_checkpoint_both_problems_are_told(tmp_path: Path) -> None:
    (tmp_path / "previous.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint to continue from \(.*last.*previous"):
        load_latest(tmp_path)


def test_every_dtype_of_other_programs_is_read_and_bfloat16_exactly(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for name, dtype in module.DTYPES.items():
        array = np.array([0, 1, 1, 0], dtype)
        path.write_bytes(raw({"w": entry(name, (4,), (0, array.nbytes))}, array.tobytes()))
        assert same(load(path)[0], {"w": array})
    kept = np.array([1.0, -2.5, 3e38, -0.0, np.inf, 2**-126], np.float32)
    top = (kept.view(np.uint32) >> 16).astype(np.uint16)
    path.write_bytes(raw({"w": entry("BF16", (2, 3), (0, 12))}, top.tobytes()))
    wanted = Tensor(top.view(np.uint8)).bitcast("bfloat16").cast("float32").reshape(2, 3).numpy()
    assert same(load(path)[0], {"w": wanted})


def test_a_dtype_that_nobody_here_knows_is_named_and_not_called_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw({"w": entry("F8_E4M3", (4,), (0, 4))}, bytes(4)))
    with pytest.raises(RunError, match=r"a\.safetensors: w has dtype F8_E4M3, which tinyseg does "):
        load(path)


def test_a_counter_of_pytorch_fits_into_another_width_and_a_float_does_not() -> None:
    state = {"n": to_device(np.zeros((), np.int32)), "w": to_device(np.zeros(2, np.float32))}
    arrays = {"n": np.array(7, np.int64), "w": np.array([0.5, 1.0], np.float64)}
    assign(state, arrays, "", "here")
    assert [tensor.numpy().tolist() for tensor in state.values()] == [7, [0.5, 1.0]]
    with pytest.raises(RunError, match="here: n is float64, the model needs"):
        assign(state, {**arrays, "n": np.array(7.0)}, "", "here")
