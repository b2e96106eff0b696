"""Imports go one way, and what only one place may do is done in that place only."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tinyseg.device.private import PARTS

PACKAGE = Path(__file__).parents[1] / "tinyseg"

ROOMS = (
    # a room imports rooms below it (later in this list) and nothing above or beside it
    ("__main__",),
    ("__init__",),
    ("cli",),
    ("report",),
    ("doctor",),
    ("training",),
    ("evaluation",),
    ("inference",),
    ("weights",),
    ("runs",),
    ("drawing",),
    ("models",),
    ("nn",),
    ("losses", "metrics", "augment"),
    ("data",),
    ("jit",),
    ("kernels",),
    ("device",),
    ("common",),
    ("config",),
    ("errors",),
)
FLOOR = {room: -number for number, rooms in enumerate(ROOMS) for room in rooms}
WITHOUT = {
    # room: what it must never import, though it lies lower
    "data": {"tinygrad", "device", "kernels", "jit"},
    "metrics": {"data", "tinygrad"},
    "losses": {"data"},
    "augment": {"data"},
    "runs": {"losses"},
    "inference": {"losses"},
    "evaluation": {"losses"},
    "drawing": {"tinygrad"},
    "config": {"tinygrad"},
}
RUNTIME = {"tinygrad", "numpy", "PIL", "scipy"}
OPTIONAL = {"device": {"ziglang"}, "data": {"tifffile", "pydicom", "nibabel"}}
"""Packages of an extra, and the one room that may try to import them."""


def files() -> list[Path]:
    docs = PACKAGE / "docs"
    return [path for path in sorted(PACKAGE.rglob("*.py")) if docs not in path.parents]


def room_of(path: Path) -> str:
    """The room that a file belongs to: its folder, or its own name."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in files():
        yield path, ast.parse(path.read_text(encoding="utf-8"), str(path))


class Imports(ast.NodeVisitor):
    """All modules that a file imports, also inside functions; not what only type checkers see."""

    def __init__(self, path: Path):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        self.package = parts[:-1]
        self.found: list[tuple[int, str]] = []

    def visit_If(self, node: ast.If) -> None:
        guarded = ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in node.orelse if guarded else ast.iter_child_nodes(node):
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(node.lineno, alias.name) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self.package[: len(self.package) + 1 - node.level] if node.level else ()
        source = ".".join([*base, *([node.module] if node.module else [])])
        # `from tinyseg import checkpoint` imports a module, `from tinyseg.errors import X` a name
        names = [f"{source}.{alias.name}" for alias in node.names]
        self.found += [(node.lineno, name) for name in (names if source == "tinyseg" else [source])]

    def visit_Call(self, node: ast.Call) -> None:
        called, first = ast.unparse(node.func), node.args[0] if node.args else None
        if called in ("import_module", "importlib.import_module", "__import__"):
            text = first.value if isinstance(first, ast.Constant) else "tinyseg.<computed>"
            self.found.append((node.lineno, str(text)))
        self.generic_visit(node)


def imports(path: Path, tree: ast.Module) -> list[tuple[int, str]]:
    reader = Imports(path)
    reader.visit(tree)
    return reader.found


def own_name(imported: str) -> str | None:
    """The room that an imported name of tinyseg belongs to."""
    top, _, rest = imported.partition(".")
    if top != "tinyseg":
        return None
    name = rest.partition(".")[0]
    return name if name in FLOOR else "__init__"


def test_the_list_has_every_room_and_no_other() -> None:
    assert {room_of(path) for path in files()} == set(FLOOR)


def test_imports_go_down_only() -> None:
    wrong = []
    for path, tree in trees():
        room = room_of(path)
        for line, imported in imports(path, tree):
            name = own_name(imported)
            if name not in (None, room) and FLOOR[name] >= FLOOR[room]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {room} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_what_lies_lower_but_is_not_for_all() -> None:
    wrong = []
    for path, tree in trees():
        banned = WITHOUT.get(room_of(path), set())
        for line, imported in imports(path, tree):
            name = own_name(imported) or imported.partition(".")[0]
            if name in banned:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_only_device_and_kernels_know_the_inside_of_tinygrad() -> None:
    """`device/private.py` lists what that is; `jit/serialize.py` takes a captured step apart."""
    modules = {part.name.rpartition(".")[0] for part in PARTS} - {"tinygrad", "tinygrad.helpers"}
    attributes = {"uop", "captured", "cnt", "renderer", "renderers", "custom_kernel", "copyin"}
    wrong = []
    for path, tree in trees():
        if room_of(path) in ("device", "kernels") or path.name == "serialize.py":
            continue
        found = [(line, name) for line, name in imports(path, tree) if name in modules]
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (
                node.attr in attributes or ast.unparse(node).startswith("Tensor._")
            ):
                found.append((node.lineno, ast.unparse(node)))
        wrong += [f"{path.relative_to(PACKAGE)}:{line}: uses {name}" for line, name in found]
    assert not wrong, "\n".join(wrong)


def test_only_device_cache_folder_and_progress_bar_read_the_environment() -> None:
    readers = ("choose.py", "environment.py", "gpus.py", "cache_dir.py", "progress.py")
    wrong = []
    for path, tree in trees():
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Name) else ""
            names = ("os.environ", "os.getenv", "os.environb", "environ", "getenv")
            imported = isinstance(node, ast.ImportFrom) and any(a.name in names for a in node.names)
            if (text in names or imported) and path.name not in readers:
                wrong.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_only_the_downloader_uses_the_network() -> None:
    network = ("urllib.request", "http.client", "socket", "ssl", "ftplib", "smtplib", "xmlrpc")
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: imports {imported}"
        for path, tree in trees()
        for line, imported in imports(path, tree)
        if imported.startswith(network) and path.name != "download.py"
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_imported_that_is_not_a_dependency() -> None:
    wrong = []
    for path, tree in trees():
        allowed = RUNTIME | OPTIONAL.get(room_of(path), set()) | {"tinyseg", "__future__"}
        for line, imported in imports(path, tree):
            top = imported.partition(".")[0]
            if top not in allowed and top not in sys.stdlib_module_names:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_loaded_from_code_that_is_data() -> None:
    """Nothing that a file could bring is run: no pickle, no eval, no exec.

    `jit/serialize.py` alone may load what `jit/store.py` has proven to be this user's own.
    """
    wrong = []
    for path, tree in trees():
        if path.name == "serialize.py":
            continue
        names = {imported.partition(".")[0] for _, imported in imports(path, tree)}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
        found = names & {"pickle", "marshal", "shelve", "dill"} | called & {"eval", "exec"}
        wrong += [f"{path.relative_to(PACKAGE)}: {', '.join(sorted(found))}"] if found else []
    assert not wrong, "\n".join(wrong)


def test_files_and_functions_stay_of_a_size_that_can_be_read() -> None:
    """At most 400 lines a file, and 50 a function beside its docstring."""
    wrong = []
    for path, tree in trees():
        lines = path.read_text(encoding="utf-8").count("\n")
        wrong += [f"{path.relative_to(PACKAGE)}: {lines} lines"] if lines > 400 else []
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                text = node.body[0] if ast.get_docstring(node) else None
                described = text.end_lineno - text.lineno + 1 if text and text.end_lineno else 0
                size = (node.end_lineno or 0) - node.lineno + 1 - described
                wrong += [f"{path.relative_to(PACKAGE)}: {node.name} {size}"] if size > 50 else []
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f():\n    from tinyseg.cli import main", ["tinyseg.cli"]),
        ("from tinyseg import checkpoint", ["tinyseg.checkpoint"]),
        ("import tinyseg.train as t, torch", ["tinyseg.train", "torch"]),
        ("from . import masks\nfrom .nn import layers", ["tinyseg.masks", "tinyseg.nn"]),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import math", ["math"]),
        ("import importlib\nimportlib.import_module('torch')", ["importlib", "torch"]),
        ("try:\n    import torch\nexcept ImportError:\n    pass", ["torch"]),
    ],
)
def test_the_reader_of_imports_sees_them_all(code: str, expected: list[str]) -> None:
    found = imports(PACKAGE / "module.py", ast.parse(code))
    assert [name for _, name in found] == expected
