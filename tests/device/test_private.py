"""Each private part of tinygrad is as tinyseg needs it; what fails here says what would break."""

import ast
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Device, Tensor, TinyJit, UOp, dtypes
from tinygrad.helpers import Context
from tinygrad.uop.ops import Ops

from tinyseg.device.choose import backend
from tinyseg.device.private import PARTS, Part
from tinyseg.device.tensors import to_device

PACKAGE = Path(__file__).parents[2] / "tinyseg"
PUBLIC = {f"tinygrad.{name}" for name in ("Tensor", "Device", "TinyJit", "Context", "dtypes")}
PUBLIC |= {"tinygrad", "tinygrad.nn", "tinygrad.helpers", "tinygrad.dtype.dtypes"}
PUBLIC |= {"tinygrad.helpers.Context", "tinygrad.helpers.ContextVar"}

SIGNATURES = {
    "tinygrad.Tensor.is_param_": ("self", "is_param"),
    "tinygrad.Tensor._next_counter": ("device", "num"),
    "tinygrad.Tensor.custom_kernel": ("self", "lst", "fxn", "grad_fxn"),
    "tinygrad.TinyJit.add_linear": ("self", "linear", "var_vals"),
    "tinygrad.codegen.to_program": ("ast", "renderer"),
    "tinygrad.device.Buffer.copyin": ("self", "mv"),
    "tinygrad.device.Compiler.compile_cached": ("self", "src"),
    "tinygrad.engine.jit.CapturedJit": (
        *("ret", "linear", "expected_names", "expected_input_info"),
    ),
    "tinygrad.engine.jit.GraphRunner": ("linear", "input_uops"),
    "tinygrad.engine.realize._resolve": ("b", "inputs"),
    "tinygrad.engine.realize.get_call_arg_uops": ("call",),
    "tinygrad.runtime.support.compiler_cpu.ClangJITCompiler": ("arch", "cachekey"),
    "tinygrad.runtime.support.elf.jit_loader": ("obj", "base", "link_libs"),
    "tinygrad.renderer.Estimates": ("ops", "lds", "mem"),
    "tinygrad.codegen.opt.Opt": ("op", "axis", "arg"),
}
"""Arguments in their order, of what tinyseg calls or overrides."""


def is_here(part: Part) -> bool:
    """Whether the dotted name leads to something."""
    head, *rest = part.name.split(".")[1:]
    thing = importlib.import_module("tinygrad")
    for name in (head, *rest):
        if not hasattr(thing, name):
            try:
                importlib.import_module(f"{thing.__name__}.{name}")
            except (ImportError, AttributeError):
                return False
        thing = getattr(thing, name)
    wanted = SIGNATURES.get(part.name)
    return wanted is None or tuple(inspect.signature(thing).parameters) == wanted


def first_call_is_captured() -> bool:
    jit, calls = TinyJit(lambda x: (calls.append(1), (x + 1).realize())[1]), []
    jit.cnt = 1
    x = to_device(np.zeros(2, np.float32))
    return [jit(x).tolist() for _ in range(3)] == [[1, 1]] * 3 and len(calls) == 1


def captured_is_replayed() -> bool:
    jit = TinyJit(lambda x: (x + 1).realize())
    x, y = (to_device(np.full(2, value, np.float32)) for value in (0, 5))
    before = jit.captured
    jit(x), jit(x)
    return before is None and jit.captured([y.uop.base], {}).tolist() == [6, 6]


def assignment_is_undone() -> bool:
    tensor = to_device(np.zeros(2, np.float32))
    before = tensor.uop
    tensor.assign(tensor + 1)
    tensor.uop = before
    return tensor.tolist() == [0, 0]


def draws_go_by(name: str) -> Callable[[], bool]:
    def check() -> bool:
        device = backend().device
        Tensor._next_counter(device, 0)
        before, value = Tensor.rand(3).tolist(), getattr(Tensor, name)[device]
        changed = {device: (value + 1).realize()}
        usual = getattr(Tensor, name)
        setattr(Tensor, name, {**usual, **changed})
        try:
            return Tensor.rand(3).tolist() != before
        finally:
            setattr(Tensor, name, usual)

    return check


def buffers_reach_their_tensor() -> bool:
    tensor = Tensor.empty(2, device=backend().device)
    buffer = tensor.uop.buffer.ensure_allocated()
    buffer.copyin(np.array([1, 2], np.float32).view(np.uint8).data)
    held = buffer.as_memoryview(allow_zero_copy=True)
    return tensor.tolist() == [1, 2] and bytes(held) == np.array([1, 2], np.float32).tobytes()


def one_graph_without_batches() -> bool:
    with Context(JIT_BATCH_SIZE=0):
        jit = TinyJit(lambda x: ((x + 1).contiguous() * 2).realize())
        x = to_device(np.zeros(2, np.float32))
        jit(x), jit(x)
    return len(jit.captured.linear.src) == 1 or Device[backend().device].graph is None


def operations_have_their_names() -> bool:
    used = {
        node.attr
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Ops"
    }
    by_name = {"BIND", "BUFFER", "CALL", "CUSTOM_FUNCTION", "RESHAPE", "UNIQUE"}
    return not (used | by_name) - set(Ops.__members__)


def device_has(*names: str) -> Callable[[], bool]:
    return lambda: all(hasattr(Device[backend().device], name) for name in names)


def compiler_has(name: str) -> Callable[[], bool]:
    return lambda: hasattr(Device[backend().device].renderer.compiler, name)


CHECKS: dict[str, Callable[[], bool]] = {
    "tinygrad.Tensor.uop": assignment_is_undone,
    "tinygrad.Tensor._device_seeds": draws_go_by("_device_seeds"),
    "tinygrad.Tensor._device_rng_counters": draws_go_by("_device_rng_counters"),
    "tinygrad.TinyJit.cnt": first_call_is_captured,
    "tinygrad.TinyJit.captured": captured_is_replayed,
    "tinygrad.UOp.base": lambda: to_device(np.zeros((2, 2), np.float32)).uop.base.op is Ops.BUFFER,
    "tinygrad.UOp.is_realized": lambda: not UOp.const(dtypes.float, 1.0).is_realized,
    "tinygrad.device.Buffer.as_memoryview": buffers_reach_their_tensor,
    "tinygrad.device.Compiled.graph": device_has("graph", "device"),
    "tinygrad.device.Compiled.renderers": device_has("renderers"),
    "tinygrad.device.Compiler.cachekey": compiler_has("cachekey"),
    "tinygrad.helpers.JIT_BATCH_SIZE": one_graph_without_batches,
    "tinygrad.runtime.ops_cpu.CPUProgram": lambda: all(
        hasattr(Device["CPU"], name)
        for name in ("hw_compute_queue_t", "timeline_signal", "next_timeline")
    ),
    "tinygrad.dtype.DType": lambda: dtypes.float.vec(4).ptr(8).size == 8,
    "tinygrad.uop.ops.Ops": operations_have_their_names,
}
"""What a part must do, where its name alone says too little."""

LIBRARIES = {f"tinygrad.runtime.autogen.{name}" for name in ("llvm", "opencl", "cuda", "nvrtc")}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_tinygrad_has_the_part_as_we_use_it(part: Part) -> None:
    if part.name in LIBRARIES:  # loads a library that need not be on this machine
        found = importlib.util.find_spec(part.name) is not None
    else:
        found = CHECKS[part.name]() if part.name in CHECKS else is_here(part)
    assert found, f"tinygrad has changed {part.name} ({part.purpose}); without it {part.loss}"


def imported(path: Path) -> set[str]:
    tree, found = ast.parse(path.read_text(encoding="utf-8")), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.partition(".")[0] == "tinygrad"}


def test_the_list_has_every_part_that_is_imported_and_no_part_twice() -> None:
    listed = [part.name for part in PARTS]
    assert len(set(listed)) == len(listed)
    used = set().union(*(imported(path) for path in PACKAGE.rglob("*.py")))
    assert used - PUBLIC - set(listed) == set()


def test_every_part_is_still_used() -> None:
    texts = [p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py") if p.name != "private.py"]
    names = {part.name.rpartition(".")[2] for part in PARTS}
    names -= {"CapturedJit"}  # of which only the attributes are used
    assert [name for name in sorted(names) if not any(name in text for text in texts)] == []


def test_the_checks_are_of_parts_that_are_listed() -> None:
    assert {*CHECKS, *SIGNATURES, *LIBRARIES} <= {part.name for part in PARTS}


def test_a_change_is_told_in_plain_words() -> None:
    gone = Part("tinygrad.Tensor.no_such_part", "reads a buffer", "nothing works")
    assert not is_here(gone)
    with pytest.raises(AssertionError, match=r"has changed .*no_such_part.*without it nothing"):
        test_tinygrad_has_the_part_as_we_use_it(gone)
