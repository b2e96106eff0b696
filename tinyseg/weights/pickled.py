"""The data in a pickle, without its code: nothing is imported and nothing of the file is called.

`pickletools.genops` splits the bytes into opcodes, and a stack machine follows those that build
texts, numbers, tuples, lists and dicts. A class or a function is only its name here: calls of the
names in CALLS build data, a call of any other name gives an `Unread`, which holds that name.
"""

import math
import pickletools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any

MOST_OPCODES = 1_000_000
"""A checkpoint has about 50 for each tensor; more would take minutes and gigabytes."""
LARGEST_KEY = 2**32
"""Of the memo; larger numbers could be chosen to collide in a dict."""
LONGEST_REASON = 100


@dataclass(frozen=True)
class Name:
    """A class or a function that a pickle refers to."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Unread:
    """An object of another class: its name and, where there is one, its dict of attributes."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """Numbers that lie outside the pickle, by their key."""

    dtype: str
    """The name of PyTorch's class, such as FloatStorage."""
    key: str
    count: int
    start: int = 0
    """Where a view of another storage begins."""


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """Lies on the stack where a tuple, list or dict begins."""


_MARK = _Mark()


class Unpickler:
    """Reads one pickle after the other from a stream; ValueError for what is none."""

    def __init__(self, stream: IO[bytes]):
        self.stream, self.opcodes = stream, 0
        self.storages: dict[str, Storage] = {}
        """Every storage that was referred to, by key."""
        self.unread: dict[str, None] = {}
        """Every class and function of which something was left out."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return the value of the next pickle."""
        self.stack, self.memo = [], {}
        try:
            with warnings.catch_warnings(action="ignore"):  # of backslashes in damaged texts
                return self._load()
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            reason = str(error)[:LONGEST_REASON] or type(error).__name__
            raise ValueError(f"a pickle that is damaged or not of torch.save: {reason}") from None

    def _load(self) -> Any:
        for opcode, argument, _ in pickletools.genops(self.stream):
            self.opcodes += 1
            if self.opcodes > MOST_OPCODES:
                raise ValueError(f"it has more than {MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                return self.stack.pop()
            self._follow(opcode.name, argument)
        raise ValueError("it has no end")

    def _follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._put(int(argument))
            case "MEMOIZE":
                self._put(len(self.memo))
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[int(argument)])
            case "POP":
                stack.pop()
            case "POP_MARK":
                self._since_mark()
            case "DUP":
                stack.append(stack[-1])
            case _ if name in _VALUES:
                stack.append(argument)
            case _ if not self._build_container(name):
                self._build_object(name, argument)

    def _build_container(self, name: str) -> bool:
        """Follow an opcode of tuples, lists, sets and dicts; return whether it was one.

        A set is a list here: nothing that is read is one, and a list does not hash its items.
        """
        stack = self.stack
        match name:
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                last = [stack.pop() for _ in range(int(name[-1]))]
                stack.append(tuple(reversed(last)))
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "LIST" | "FROZENSET":
                stack.append(self._since_mark())
            case "DICT":
                stack.append(_named(self._since_mark()))
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self._since_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._extend([key, value])
            case "SETITEMS":
                self._extend(self._since_mark())
            case _:
                return False
        return True

    def _build_object(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "GLOBAL":
                module, _, called = argument.partition(" ")
                stack.append(Name(module, called))
            case "STACK_GLOBAL":
                called, module = stack.pop(), stack.pop()
                stack.append(Name(str(module), str(called)))
            case "REDUCE" | "NEWOBJ":
                arguments, called = stack.pop(), stack.pop()
                stack.append(self._call(called, arguments))
            case "NEWOBJ_EX":
                _, arguments, called = stack.pop(), stack.pop(), stack.pop()
                stack.append(self._call(called, arguments))
            case "BUILD":
                state, target = stack.pop(), stack[-1]
                if isinstance(target, Unread) and isinstance(state, dict):
                    target.state = state
            case "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            case _:
                raise ValueError(f"opcode {name}, which no tensor needs")

    def _since_mark(self) -> list[Any]:
        stack, start = self.stack, len(self.stack) - 1
        while stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError
        items = stack[start + 1 :]
        del stack[start:]
        return items

    def _put(self, key: int) -> None:
        if not 0 <= key < LARGEST_KEY:
            raise KeyError
        self.memo[key] = self.stack[-1]

    def _extend(self, items: list[Any]) -> None:
        """Add to the list or dict on the stack; what belongs to an object of others is left out."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, dict):
            target.update(_named(items))

    def _call(self, called: Any, arguments: Any) -> Any:
        if not isinstance(called, Name):
            raise TypeError
        function = CALLS.get((called.module, called.name))
        if function is None:
            self.unread[str(called)] = None
            return Unread(str(called))
        return function(*arguments)

    def _persistent(self, identity: Any) -> Any:
        """Return the storage, or the class, that an identity of PyTorch stands for."""
        if identity[0] == "module":
            return identity[1]  # with its source code, which is not read
        kind, named, key, _location, count, *rest = identity
        view = rest[0] if rest else None
        if kind != "storage" or not isinstance(named, Name) or not isinstance(key, str):
            raise ValueError("a reference to something that is no storage of PyTorch")
        if not _is_count(count):
            raise ValueError(f"storage {key} has no size")
        storage = Storage(named.name, key, count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key} has two types or sizes")
        if view is None:
            return storage
        _, start, size = view
        if not (_is_count(start) and _is_count(size) and start + size <= count):
            raise ValueError(f"a view that leaves storage {key}")
        return Storage(named.name, key, size, start)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _named(items: list[Any]) -> dict[str, Any]:
    """Return the entries under a text; no others are read, and their keys could be hard to hash."""
    if len(items) % 2:
        raise IndexError
    pairs = zip(items[::2], items[1::2], strict=True)
    return {key: value for key, value in pairs if isinstance(key, str)}


# What may be called


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple | list):
        raise TypeError
    if not all(map(_is_count, (offset, *shape, *strides))) or len(shape) != len(strides):
        raise ValueError("a tensor with a bad shape, stride or offset")
    if len(shape) > 32:
        raise ValueError(f"a tensor of {len(shape)} dimensions")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if math.prod(shape) and not (last < storage.count and math.prod(shape) <= storage.count):
        raise ValueError(
            f"a tensor of shape {tuple(shape)} in a storage of {storage.count} numbers"
        )
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _from_type(function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    """Build a subclass of Tensor as the tensor that it is."""
    if not isinstance(function, Name) or (function.module, function.name) not in _TENSORS:
        raise TypeError
    return _TENSORS[function.module, function.name](*arguments)


def _ordered_dict(pairs: Any = (), *_: Any) -> dict[str, Any]:
    return _named([value for key, item in pairs for value in (key, item)])


def _first(value: Any, *_: Any) -> Any:
    return value


_TENSORS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
}
CALLS: dict[tuple[str, str], Callable[..., Any]] = {
    **_TENSORS,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch", "Size"): _first,
    ("collections", "OrderedDict"): _ordered_dict,
}
"""All that a pickle can call, by module and name."""


_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes that push their own argument."""
