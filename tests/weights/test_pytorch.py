"""The reader of PyTorch's files: what torch.save wrote is read, and nothing in it is run."""

import io
import os
import pickle
import random
import re
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from weights.formula import saved_arrays

from tinyseg.errors import WeightsError
from tinyseg.weights import read_weights, table
from tinyseg.weights.pickled import MOST_OPCODES, Unpickler
from tinyseg.weights.pytorch import MAGIC

GOLDENS = Path(__file__).parent / "goldens"
FILES = [GOLDENS / "zip.pt", GOLDENS / "legacy.pt"]


class Call:
    """A pickle that calls any function when Python's own module loads it."""

    def __init__(self, function: object, *arguments: object):
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple:
        return self.function, self.arguments


def archive(path: Path, data: bytes, records: dict[str, bytes], compress: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("a/data.pkl", data)
        for name, content in records.items():
            file.writestr(f"a/{name}", content)
    return path


def tensor_opcodes(
    shape: tuple = (2,), strides: tuple = (1,), offset: int = 0, count: int = 4, key: str = "0"
) -> bytes:
    """The opcodes of {"w": tensor}, as torch.save writes them."""
    parts = [b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n("]
    parts += [b"(U\x07storagectorch\nFloatStorage\n", pickle.dumps(key, 2)[2:-1], b"U\x03cpu"]
    parts += [pickle.dumps(count, 2)[2:-1], b"tQ"]
    parts += [pickle.dumps(value, 2)[2:-1] for value in (offset, shape, strides)]
    return b"".join([*parts, b"\x89Nt", b"Rs."])


@pytest.mark.parametrize("path", FILES, ids=["zip", "legacy"])
def test_what_torch_saved_is_read_to_the_bit(path: Path) -> None:
    weights, expected = read_weights(path), saved_arrays()
    assert list(weights.tensors) == list(expected)
    for name, array in expected.items():
        found = weights.tensors[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        assert found.tobytes() == array.tobytes(), name
    assert np.shares_memory(weights.tensors["base"], weights.tensors["transposed"])
    assert weights.unread == ("epoch", "note", "optimizer", "argparse.Namespace")
    assert "base        4x6     float32" in table(weights)


def test_a_pickled_network_is_read_without_its_class() -> None:
    weights = read_weights(GOLDENS / "module.pt")
    assert {name: a.shape for name, a in weights.tensors.items()} == {
        "0.weight": (2, 1, 3, 3),
        **{f"1.{name}": (2,) for name in ("weight", "bias", "running_mean", "running_var")},
        "1.num_batches_tracked": (),
    }
    assert "torch.nn.modules.container.Sequential" in weights.unread


def run_marker(path: Path) -> tuple:
    """Calls that would leave a file, by functions that ought never to be reached."""
    command = f"touch {path}"
    code = f"open({str(path)!r}, 'w')"
    return (
        Call(os.system, command),
        Call(eval, code),
        Call(exec, code),
        Call(getattr, Call(__import__, "os"), "system"),
        Call(open, str(path), "w"),
        Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        Call(np.save, str(path), [1]),
    )


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_call_in_a_file_is_made(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    for number, call in enumerate(run_marker(marker)):
        data = pickle.dumps({"w": call, "state_dict": {"x": call, "y": [call]}}, protocol)
        with pytest.raises(WeightsError, match=r"no tensors by name|opcode"):
            read_weights(archive(tmp_path / f"{number}.pt", data, {}))
        legacy = b"".join(pickle.dumps(v, 2) for v in (MAGIC, 1001, {})) + data
        (tmp_path / "legacy.pt").write_bytes(legacy + pickle.dumps([], 2))
        with pytest.raises(WeightsError, match=r"no tensors by name|opcode|not of torch|damaged"):
            read_weights(tmp_path / "legacy.pt")
    assert not marker.exists()


def test_a_call_next_to_tensors_is_named_and_not_made(tmp_path: Path) -> None:
    data = tensor_opcodes()[:-2] + b"U\x01xcposix\nsystem\n(U\x09touch xyztRs."
    data = data[:3] + b"(" + data[3:-2] + b"u."
    weights = read_weights(archive(tmp_path / "a.pt", data, {"data/0": bytes(16)}))
    assert list(weights.tensors) == ["w"]
    assert weights.unread == ("posix.system",)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"shape": (5,)}, "storage of 4 numbers"),
        ({"offset": 3}, "storage of 4 numbers"),
        ({"strides": (4,)}, "storage of 4 numbers"),
        ({"shape": (2**40,), "strides": (0,)}, "storage of 4 numbers"),
        ({"shape": (-1,)}, "bad shape"),
        ({"strides": (-1,)}, "bad shape"),
        ({"offset": -1}, "bad shape"),
        ({"shape": (2**70,)}, "bad shape"),
        ({"shape": (True,)}, "bad shape"),
        ({"shape": (1,) * 40, "strides": (1,) * 40}, "40 dimensions"),
        ({"shape": (2, 2)}, "bad shape"),
        ({"count": 2**40}, "cut off"),
        ({"count": -1}, "no size"),
        ({"key": "../../x"}, "missing"),
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(
    tmp_path: Path, tensor: dict, message: str
) -> None:
    path = archive(tmp_path / "a.pt", tensor_opcodes(**tensor), {"data/0": bytes(16)})
    with pytest.raises(WeightsError, match=message):
        read_weights(path)


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"}U\x01a" * depth + b"K\x01" + b"s" * depth + b"."


HOSTILE = {
    "nested": nested(2000),
    "laughs": b"\x80\x02}q\x00" + b"0}(U\x01ah\x00U\x01bh\x00uq\x00" * 60 + b".",
    "itself": b"\x80\x02}q\x00U\x01ah\x00s.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f\x00.",
    "text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes": b"\x80\x05\x8e" + struct.pack("<Q", 2**60) + b"abc.",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "memo": b"\x80\x02Np99999999999999999999\n.",
    "no memo": b"\x80\x02h\x07.",
    "empty": b"\x80\x02.",
    "mark": b"\x80\x02(.",
    "unhashable": b"\x80\x02}(]K\x01u.",
    "extension": b"\x80\x02\x82\x01.",
    "references": b"\x80\x02K\x01Q.",
    "storage": b"\x80\x02(U\x07storageU\x01aU\x010U\x03cpuK\x04tQ.",
    "end": b"\x80\x02}",
    "recursion": b"\x80\x02" + b"(" * 20_000 + b"t" * 20_000 + b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_one_line_soon_and_in_little_memory(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.pt", HOSTILE[name], {})
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    assert time.perf_counter() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_the_number_of_opcodes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_OPCODES <= 1_000_000
    monkeypatch.setattr("tinyseg.weights.pickled.MOST_OPCODES", 100)
    with pytest.raises(ValueError, match="more than 100 opcodes"):
        Unpickler(io.BytesIO(b"]" * 101 + b".")).load()


def test_a_zip_archive_that_unpacks_or_overlaps_is_refused(tmp_path: Path) -> None:
    data = tensor_opcodes()
    path = archive(tmp_path / "a.pt", data, {"data/0": bytes(10**6)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match=r"overlap|compressed"):
        read_weights(path)
    archive(path, data, {"data/0": bytes(16)})
    path.write_bytes(path.read_bytes().replace(b"data/0", b"data.pkl"[:6]))
    with pytest.raises(WeightsError, match="missing"):
        read_weights(path)


@pytest.mark.parametrize("path", FILES, ids=["zip", "legacy"])
def test_damaged_files_are_one_line(tmp_path: Path, path: Path) -> None:
    """Truncations, flipped bytes, inserted and removed ranges: read, or refused by name."""
    whole, draw, target = path.read_bytes(), random.Random(0), tmp_path / "a.pt"
    refused = []
    for _ in range(120):
        content = bytearray(whole)
        at = draw.randrange(len(content))
        match draw.randrange(4):
            case 0:
                del content[at:]
            case 1:
                del content[at : at + draw.randrange(1, 40)]
            case 2:
                content[at:at] = draw.randbytes(draw.randrange(1, 9))
            case _:
                for _ in range(draw.randrange(1, 6)):
                    content[draw.randrange(len(content))] = draw.randrange(256)
        target.write_bytes(content)
        try:
            read_weights(target)
        except WeightsError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert not [message for message in refused if "\n" in message]


def test_an_altered_number_in_a_zip_archive_is_noticed(tmp_path: Path) -> None:
    content = bytearray(FILES[0].read_bytes())
    at = content.index(np.arange(24, dtype=np.float32).tobytes())
    content[at + 3] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pt: base: its record .* is altered"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither safetensors nor"),
        (b"BM" + bytes(100), "neither safetensors nor"),
        (b"PK\x03\x04" + bytes(50), "zip"),
        (pickle.dumps({"w": 1}, 4), "not of torch.save"),
        (b"\x80", "pickle"),
        ((20).to_bytes(8, "little") + b'{"w": 1}', "damaged"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / "a")
    with pytest.raises(WeightsError, match="no such file"):
        read_weights(tmp_path)


def test_a_storage_of_a_name_that_the_list_lacks_is_refused(tmp_path: Path) -> None:
    content = (GOLDENS / "legacy.pt").read_bytes()
    path = tmp_path / "damaged.pt"
    for found in re.finditer(rb"\d{14}", content):
        path.write_bytes(content[: found.start()] + b"x" + content[found.start() + 1 :])
        with pytest.raises(WeightsError):
            read_weights(path)
