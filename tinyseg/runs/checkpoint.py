"""Checkpoints: safetensors files with PyTorch's names, and facts as JSON in the header.

The format (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON
header of name -> dtype, shape, data_offsets, then the data. `__metadata__` holds texts: "tinyseg"
is our JSON, "digest" covers it together with the names, types, shapes and bytes of all tensors, so
that a damaged file is recognized. ("sha256", of version 0.1, covers JSON and bytes only.)
"""

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import dtypes

from tinyseg.common.arrays import Array
from tinyseg.common.files import partial_of, write_atomic
from tinyseg.device.tensors import copy_
from tinyseg.errors import RunError

DTYPES = {
    **{"F16": np.float16, "F32": np.float32, "F64": np.float64, "BOOL": np.bool_},
    **{"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64},
    **{"U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64},
}
BFLOAT16 = "BF16"
"""Read as float32, which represents it exactly; NumPy has no such type."""
UNREADABLE = ("C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0")
"""The format's types that neither NumPy nor training has."""
LATEST = ("last.safetensors", "previous.safetensors")
MOST_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""


def save(path: str | Path, tensors: dict[str, Array], facts: dict[str, Any]) -> None:
    """Write tensors and facts (for JSON) into one file, atomically."""
    header: dict[str, Any] = {}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": _dtype_name(name, array),
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(facts)
    data = [np.ascontiguousarray(a).reshape(-1).view(np.uint8).data for a in tensors.values()]
    digest = _digest(json.dumps(header) + text, *data)
    header["__metadata__"] = {"tinyseg": text, "digest": digest}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    # joined once: each copy of the state costs as much as its digest
    write_atomic(path, b"".join([len(head).to_bytes(8, "little"), head, *data]))


def load(path: str | Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return tensors and facts of a file; RunError when it is missing, truncated or altered.

    Files of other programs (no digest) are read too, in every dtype of NumPy and in bfloat16 (as
    float32); their facts are empty.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return _parse(content)
    except NotImplementedError as error:
        raise RunError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{path}: damaged or no safetensors file ({error})") from None


def load_latest(folder: Path) -> tuple[dict[str, Array], dict[str, Any], Path]:
    """Return the newest undamaged checkpoint of a run: last, or the one before it."""
    problems: list[str] = []
    for name in LATEST:
        try:
            tensors, facts = load(folder / name)
        except RunError as error:
            problems.append(str(error))
            continue
        return tensors, facts, folder / name
    raise RunError(f"{folder}: no checkpoint to continue from ({'; '.join(problems)})")


def any_in(folder: Path) -> bool:
    """Return whether a run has a checkpoint to resume from, damaged or not."""
    return any((folder / name).exists() for name in LATEST)


def rotate(folder: Path, whole: bool = False) -> None:
    """Make the last checkpoint the previous one; after a kill here, the previous one is used.

    A damaged last one, as after a resume from the one before, does not replace an undamaged one.
    It is read to find out, unless it is known to be `whole`.
    """
    last = folder / "last.safetensors"
    try:
        if not whole:
            load(last)
        last.replace(folder / "previous.safetensors")
    except (RunError, FileNotFoundError):
        return


def share(path: Path, other: Path) -> None:
    """Give a checkpoint a second name, atomically; neither file is ever written in place."""
    partial = partial_of(other)
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
        partial.replace(other)
    except OSError:  # not every file system has links
        write_atomic(other, path.read_bytes())
    finally:
        partial.unlink(missing_ok=True)  # also where both were one file before


def assign(state: dict[str, Any], arrays: dict[str, Array], prefix: str, where: str) -> None:
    """Copy arrays into the Tensors of the same name; RunError when one is missing or differs.

    A number of another width is converted, such as a counter of PyTorch (int64) into an int32.
    """
    for name, tensor in state.items():
        array = arrays.get(prefix + name)
        if array is None or array.shape != tuple(tensor.shape):
            stored = "missing" if array is None else f"of shape {array.shape}"
            raise RunError(f"{where}: {prefix}{name} is {stored}, the model needs {tensor.shape}")
        if (array.dtype.kind == "f") != dtypes.is_float(tensor.dtype):
            raise RunError(
                f"{where}: {prefix}{name} is {array.dtype}, the model needs {tensor.dtype}"
            )
    for name, tensor in state.items():
        copy_(tensor, arrays[prefix + name])


def _parse(content: bytes) -> tuple[dict[str, Array], dict[str, Any]]:
    length = int.from_bytes(content[:8], "little")
    if not 2 <= length <= min(MOST_HEADER_BYTES, len(content) - 8):
        raise ValueError("the header is cut off")
    header = json.loads(content[8 : 8 + length])
    data = memoryview(content)[8 + length :]
    metadata = header.pop("__metadata__", {})
    text = metadata.get("tinyseg", "{}")
    if "tinyseg" in metadata and not metadata.keys() & {"digest", "sha256"}:
        raise ValueError("it has no digest: altered")
    for key, described in (("digest", json.dumps(header)), ("sha256", "")):
        if key in metadata and metadata[key] != _digest(described + text, data):
            raise ValueError("its digest does not match: cut off or altered")
    facts = json.loads(text)
    if not isinstance(facts, dict):
        raise ValueError("its facts are no JSON object")
    tensors = {name: _tensor(name, entry, data) for name, entry in header.items()}
    _check_places([entry["data_offsets"] for entry in header.values()], len(data))
    return tensors, facts


def _tensor(name: str, entry: dict[str, Any], data: memoryview) -> Array:
    start, end = entry["data_offsets"]
    shape, stored = tuple(entry["shape"]), entry["dtype"]
    dtype = np.uint16 if stored == BFLOAT16 else DTYPES.get(stored)
    if stored in UNREADABLE:
        raise NotImplementedError(
            f"{name} has dtype {stored}, which tinyseg does not read; save it as F32 or F16"
        )
    if dtype is None:
        raise ValueError(f"{name} has dtype {stored}; known: {BFLOAT16}, {', '.join(DTYPES)}")
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise ValueError(f"{name} has a bad shape or place")
    if end > len(data) or end - start != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{name} does not fit its place")
    array = np.frombuffer(data[start:end], dtype).reshape(shape)
    return (array.astype(np.uint32) << 16).view(np.float32) if stored == BFLOAT16 else array


def _check_places(places: list[list[int]], size: int) -> None:
    """As the format asks: the tensors neither overlap nor leave a gap."""
    end = 0
    for start, stop in sorted(places):
        if start != end:
            raise ValueError("its tensors overlap or leave a gap")
        end = stop
    if end != size:
        raise ValueError(f"its tensors end at byte {end} of {size}")


def _digest(text: str, *data: memoryview) -> str:
    digest = hashlib.sha256(text.encode())
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _dtype_name(name: str, array: Array) -> str:
    for known, dtype in DTYPES.items():
        if array.dtype == dtype:
            return known
    raise RunError(f"{name} has dtype {array.dtype}, which a checkpoint cannot hold")
