"""PyTorch's files (.pth, .pt, .ckpt): zip archives, and the format before version 1.6."""

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.weights.pickled import Storage, StoredTensor, Unpickler, Unread

ZIP, LEGACY = "PyTorch (zip)", "PyTorch (legacy pickle)"
MAGIC = 0x1950A86A20F9469CFC6C
"""The first number in a file of the format before version 1.6."""
DTYPES: dict[str, Any] = {
    **{"FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16},
    **{"LongStorage": np.int64, "IntStorage": np.int32, "ShortStorage": np.int16},
    **{"CharStorage": np.int8, "ByteStorage": np.uint8, "BoolStorage": np.bool_},
    "BFloat16Storage": np.uint16,  # widened to float32, which represents it exactly
}
MOST_RECORDS = 20_000
"""Of a zip archive; there is one for each storage."""
PARTS = ("state_dict", "model_state_dict", "network_weights", "model", "net", "network")
"""Keys under which training scripts, Lightning and nnU-Net save the weights of the network."""
MOST_CHARACTERS = 1000
"""Of a name."""

Content = tuple[dict[str, Array], tuple[str, ...]]
"""Arrays by name, and the names of what else is in the file."""
ReadRecord = Callable[[str], memoryview]


def read_zip(content: bytes) -> Content:
    """Read an archive of `torch.save`; ValueError where it is damaged or holds no tensors."""
    records = _records(content)
    pickles = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip archive, but not of torch.save: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{folder}code/") for name in records):
        raise ValueError("a TorchScript archive; save the network's state_dict() with torch.save")
    order = records.get(f"{folder}byteorder")
    if order and bytes(_record(content, order)) == b"big":
        raise ValueError("its numbers are big-endian, which is not read")
    machine = Unpickler(io.BytesIO(_record(content, records[pickles[0]])))
    root = machine.load()

    def read(key: str) -> memoryview:
        name = f"{folder}data/{key}"
        if name not in records:
            raise ValueError(f"its record data/{key} is missing")
        return _record(content, records[name])

    return _content(root, machine, read)


def read_legacy(content: bytes) -> Content:
    """Read five pickles and the storages behind them; ValueError where that is damaged."""
    stream = io.BytesIO(content)
    machine = Unpickler(stream)
    if machine.load() != MAGIC:
        raise ValueError("a pickle, but not of torch.save")
    _version, _system, root, keys = (machine.load() for _ in range(4))
    if not isinstance(keys, list):
        raise ValueError("its list of storages is missing")
    places: dict[str, slice] = {}
    start = stream.tell()
    for key in keys:
        storage = machine.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in places:
            raise ValueError("its list of storages does not fit its tensors")
        count = int.from_bytes(content[start : start + 8], "little")
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} numbers, not {storage.count}")
        end = start + 8 + count * np.dtype(_dtype(storage)).itemsize
        places[key] = slice(start + 8, end)
        start = end
    if machine.storages.keys() - places.keys():
        raise ValueError("its list of storages does not fit its tensors")
    data = memoryview(content)
    return _content(root, machine, lambda key: data[places[key]])


# 1. The records of a zip archive, which lie in the file as they are


def _records(content: bytes) -> dict[str, zipfile.ZipInfo]:
    if content.count(b"PK\x01\x02") > MOST_RECORDS:
        raise ValueError(f"it has more than {MOST_RECORDS} records")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise ValueError(str(error)) from None
    records = {entry.filename: entry for entry in entries}
    if len(records) < len(entries) or sum(e.file_size for e in entries) > len(content):
        raise ValueError("its records overlap")
    return records


def _record(content: bytes, entry: zipfile.ZipInfo) -> memoryview:
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        raise ValueError("its records are compressed, which torch.save never does")
    head = content[entry.header_offset : entry.header_offset + 30]
    lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    start = entry.header_offset + 30 + lengths
    data = memoryview(content)[start : start + entry.file_size]
    if head[:4] != b"PK\x03\x04" or len(data) < entry.file_size:
        raise ValueError(f"its record {entry.filename} is cut off")
    if entry.CRC and zlib.crc32(data) != entry.CRC:  # PyTorch may leave it out (0)
        raise ValueError(f"its record {entry.filename} is altered: its CRC does not match")
    return data


# 2. From the value of the pickle to arrays


def _content(root: Any, machine: Unpickler, read: ReadRecord) -> Content:
    state, others = _state_dict(root)
    found = _collect(state)
    if not found:
        held = ", ".join(others + list(machine.unread)) or type(root).__name__
        raise ValueError(f"it holds no tensors by name, only {held}: save a state_dict()")
    storages: dict[Storage, Array] = {}
    arrays = {}
    for name, tensor in found.items():
        try:
            arrays[name] = _array(tensor, storages, read)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return arrays, (*others, *machine.unread)


def _state_dict(root: Any) -> tuple[Any, list[str]]:
    """Return the weights in what was saved, and the keys of all else next to them."""
    if isinstance(root, dict):
        key = next((key for key in PARTS if isinstance(root.get(key), dict | Unread)), None)
        if key is not None:
            return root[key], [other for other in root if other != key]
    return root, []


def _collect(value: Any) -> dict[str, StoredTensor]:
    """Name the tensors in dicts, and in the dicts of whole networks, as a state_dict does."""
    found: dict[str, StoredTensor] = {}
    waiting = [("", value)]
    visits = 0
    while waiting:
        name, value = waiting.pop()
        visits += 1  # a dict may hold itself, or others many times
        if visits > MOST_RECORDS or len(name) > MOST_CHARACTERS:
            raise ValueError(f"its dicts are too deep, or hold more than {MOST_RECORDS} things")
        if isinstance(value, StoredTensor):
            found[name or "tensor"] = value
        elif isinstance(value, Unread):
            parts = (value.state.get(part) for part in ("_parameters", "_buffers", "_modules"))
            waiting += [(name, part) for part in parts if isinstance(part, dict)][::-1]
        elif isinstance(value, dict):
            read = [(k, v) for k, v in value.items() if isinstance(v, StoredTensor | dict | Unread)]
            waiting += [(f"{name}.{key}" if name else key, item) for key, item in reversed(read)]
    return found


def _array(tensor: StoredTensor, storages: dict[Storage, Array], read: ReadRecord) -> Array:
    if tensor.storage not in storages:
        storages[tensor.storage] = _numbers(tensor.storage, read)
    numbers = storages[tensor.storage]
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, numbers.dtype)
    strides = [step * numbers.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, strides, writeable=False
    )


def _numbers(storage: Storage, read: ReadRecord) -> Array:
    dtype = np.dtype(_dtype(storage))
    start = storage.start * dtype.itemsize
    data = read(storage.key)[start : start + storage.count * dtype.itemsize]
    if len(data) < storage.count * dtype.itemsize:
        raise ValueError(f"its storage {storage.key} is cut off")
    numbers = np.frombuffer(data, dtype)
    if storage.dtype == "BFloat16Storage":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers


def _dtype(storage: Storage) -> Any:
    if storage.dtype not in DTYPES:
        raise ValueError(f"numbers of PyTorch's {storage.dtype}, which is not read: save float32")
    return DTYPES[storage.dtype]
