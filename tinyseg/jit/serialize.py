"""A captured step as bytes and back: programs without weights.

A step takes its state as arguments, so what is kept is the list of programs, the places of the
arguments, and constants. This is the only module that loads a pickle, and what it may name is
listed: `store` hands out only files that this user alone could have written.
"""

import enum
import io
import pickle
from types import BuiltinFunctionType, FunctionType
from typing import Any

from tinygrad import Tensor, UOp

TRUSTED = {
    ("builtins", "bytearray"),  # the contents of a constant
    ("tinygrad.codegen.opt", "Opt"),
    ("tinygrad.codegen.opt", "OptOps"),
    ("tinygrad.device", "Buffer"),
    ("tinygrad.device", "BufferSpec"),
    ("tinygrad.dtype", "AddrSpace"),
    ("tinygrad.dtype", "ConstFloat"),
    ("tinygrad.dtype", "DType"),
    ("tinygrad.dtype", "ImageDType"),
    ("tinygrad.dtype", "InvalidType"),
    ("tinygrad.dtype", "PtrDType"),
    ("tinygrad.engine.jit", "CapturedJit"),
    ("tinygrad.helpers", "Metadata"),
    ("tinygrad.renderer", "Estimates"),
    ("tinygrad.uop", "Ops"),
    ("tinygrad.uop.ops", "AxisType"),
    ("tinygrad.uop.ops", "CallInfo"),
    ("tinygrad.uop.ops", "KernelInfo"),
    ("tinygrad.uop.ops", "ProgramInfo"),
    ("tinygrad.uop.ops", "UOp"),
}
"""All that a packed step may name: types that hold data, and no function."""


class NotSerializable(Exception):
    """A captured step cannot be kept on disk; the message says why."""


def pack(captured: Any, inputs: list[UOp]) -> bytes:
    """Return the captured step of a TinyJit as bytes; `inputs` are the buffers of its arguments."""
    output, linear = captured.ret.uop, captured.linear
    buffers = {node for node in linear.toposort() if node.op.name == "BUFFER"}
    if buffers & set(inputs):
        raise NotSerializable("an argument is a constant of the compiled step")
    direct, viewed = _written(linear)
    if direct - {output.base}:
        raise NotSerializable("it changes a buffer that is not part of its state")
    file = io.BytesIO()
    _Pickler(file, direct | viewed).dump((type(captured), output, linear))
    return file.getvalue()


def unpack(content: bytes) -> Any:
    """Return a captured step with buffers of its own; call it with a list of buffers and {}."""
    captured_type, output, linear = _Unpickler(io.BytesIO(content)).load()
    return captured_type(Tensor(output), linear, [], [])


def _written(linear: UOp) -> tuple[set[UOp], set[UOp]]:
    """Return the buffers that a step writes: whole ones, and those of which it writes views."""
    direct, viewed = set(), set()
    for call in linear.toposort():
        if call.op.name != "CALL" or call.src[0].op.name == "CUSTOM_FUNCTION":
            continue
        arguments = [source for source in call.src[1:] if source.op.name != "BIND"]
        program = call.src[0]
        outputs = program.arg.outs if program.op.name == "PROGRAM" else (0,)
        for argument in (arguments[index] for index in outputs):
            if argument.op.name == "BUFFER":
                direct.add(argument)
            elif argument.src and argument.src[0].op.name == "BUFFER":
                viewed.add(argument.src[0])
    return direct, viewed


class _Pickler(pickle.Pickler):
    """Omits the contents that the step writes itself, and the numbers of buffers."""

    def __init__(self, file: io.BytesIO, written: set[UOp]):
        super().__init__(file, protocol=5)
        self.written = written

    def persistent_id(self, value: Any) -> int | None:
        # the number may be that of a live buffer where the step is loaded, e.g. of a weight
        return value.arg if isinstance(value, UOp) and value.op.name == "UNIQUE" else None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType | BuiltinFunctionType):
            name = (value.__module__, value.__qualname__)
            if name not in TRUSTED:
                raise NotSerializable(f"it needs {'.'.join(name)}")
        if isinstance(value, enum.Enum):
            return type(value), (value.value,)  # Python 3.11.0 to 3.11.3 would ask for getattr
        if isinstance(value, UOp) and value in self.written:
            make, arguments = value.__reduce__()
            return make, arguments[:6]  # the seventh is the buffer with its contents
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.buffers: dict[int, UOp] = {}

    def persistent_load(self, number: int) -> UOp:
        if number not in self.buffers:
            self.buffers[number] = UOp.unique()
        return self.buffers[number]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in TRUSTED:
            raise pickle.UnpicklingError(f"a step does not need {module}.{name}")
        return super().find_class(module, name)
