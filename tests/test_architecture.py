"""Imports go one way, and what only one place may do is done in that place only."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tinyseg"

LAYERS = {
    # nothing below but Python, NumPy, Pillow and SciPy
    "errors": 0,
    "text": 0,
    "files": 0,
    "progress": 0,
    "findings": 0,
    "config": 0,
    "phases": 0,
    "cache": 0,
    "graphs": 0,
    "gpus": 0,
    "backend": 0,
    # operations and pictures
    "draws": 1,
    "kernels": 1,
    "pictures": 1,
    "track": 1,
    "checkpoint": 1,
    "captured": 1,
    "stepcache": 1,
    # layers, and the name of a compiled step
    "nn": 2,
    "stepkey": 2,
    # networks, functions on Tensors or arrays, and the host's side of the data
    "augment": 3,
    "models": 3,
    "losses": 3,
    "metrics": 3,
    "thresholds": 3,
    "data": 3,
    # the step
    "optim": 4,
    "guard": 4,
    "step": 5,
    # image to probabilities, and the run folder around it
    "mosaic": 5,
    "predict": 6,
    "postprocess": 4,
    "nonfinite": 6,
    "run": 7,
    "ensemble": 7,
    "ledger": 0,
    # what drives or reads a run
    "train": 8,
    "evaluate": 8,
    "masks": 8,
    "overfit": 8,
    "folds": 9,
    "preview": 9,
    "plots": 9,
    "report": 9,
    "doctor": 9,
    # the doors
    "commands": 10,
    "cli": 10,
    "__init__": 11,
    "__main__": 11,
}
ALLOWED_WITHIN_A_LAYER = {
    # module: the modules of its own layer that it may use
    "text": {"errors"},
    "files": {"errors"},
    "config": {"errors"},
    "phases": {"config", "errors"},
    "cache": {"errors", "files"},
    "gpus": {"errors"},
    "ensemble": {"run"},
    "backend": {"errors", "cache", "gpus", "graphs"},
    "report": {"plots", "doctor"},
    "cli": {"commands"},
    "__main__": {"__init__"},
}
WITHOUT = {
    # module: what it must never use, though it lies lower
    "data": {"tinygrad", "backend", "kernels", "nn"},
    "losses": {"metrics", "data"},
    "metrics": {"losses", "data", "tinygrad"},
    "thresholds": {"losses", "metrics", "data", "tinygrad"},
    "evaluate": {"train", "step", "optim", "losses"},
    "masks": {"train", "step", "optim", "losses"},
    "predict": {"losses", "optim"},
    "augment": {"losses", "metrics", "data"},
    "pictures": {"tinygrad"},
    "config": {"tinygrad"},
}
RUNTIME = {"tinygrad", "numpy", "PIL", "scipy"}
OPTIONAL = {"backend": {"ziglang"}, "plots": {"matplotlib"}}
"""Packages of an extra, and the one module that may try to import them."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The row of the table that a file belongs to: its folder, or its own name."""
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
    """The row of the table that an imported name of tinyseg belongs to."""
    top, _, rest = imported.partition(".")
    if top != "tinyseg":
        return None
    name = rest.partition(".")[0]
    return name if name in LAYERS else "__init__"


def test_the_table_has_every_module_and_no_other() -> None:
    assert {module_of(path) for path in files()} == set(LAYERS)


def test_imports_go_one_way() -> None:
    wrong = []
    for path, tree in trees():
        module = module_of(path)
        if module == "__init__":
            continue
        for line, imported in imports(path, tree):
            name = own_name(imported)
            if name in (None, module):
                continue
            allowed = name in ALLOWED_WITHIN_A_LAYER.get(module, set())
            if LAYERS[name] >= LAYERS[module] and not allowed:
                wrong.append(f"{path.name}:{line}: {module} imports {name}, which is no lower")
    assert not wrong, "\n".join(wrong)


def test_what_lies_lower_but_is_not_for_all() -> None:
    wrong = []
    for path, tree in trees():
        banned = WITHOUT.get(module_of(path), set())
        for line, imported in imports(path, tree):
            name = own_name(imported) or imported.partition(".")[0]
            if name in banned:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_only_kernels_know_the_programs_of_tinygrad() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: imports {imported}"
        for path, tree in trees()
        for line, imported in imports(path, tree)
        if imported.startswith(("tinygrad.uop", "tinygrad.codegen", "tinygrad.engine"))
        and module_of(path) != "kernels"
        and (module_of(path), imported) != ("backend", "tinygrad.codegen")  # calls the compiler
        and module_of(path) != "graphs"  # runs what is compiled
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_backend_knows_the_compilers_of_tinygrad() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: imports {imported}"
        for path, tree in trees()
        for line, imported in imports(path, tree)
        if imported.startswith(("tinygrad.runtime", "tinygrad.device"))
        and module_of(path) not in ("backend", "graphs", "gpus")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_backend_and_the_cache_folder_read_the_environment() -> None:
    readers = ("backend.py", "gpus.py", "cache.py")
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
        allowed = RUNTIME | OPTIONAL.get(module_of(path), set()) | {"tinyseg", "__future__"}
        for line, imported in imports(path, tree):
            top = imported.partition(".")[0]
            if top not in allowed and top not in sys.stdlib_module_names:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_loaded_from_code_that_is_data() -> None:
    """Nothing that a file could bring is run: no pickle, no eval, no exec.

    `captured` alone may load what `stepcache` has proven to be this user's own, by a keyed digest.
    """
    wrong = []
    for path, tree in trees():
        if module_of(path) == "captured":
            continue
        names = {imported.partition(".")[0] for _, imported in imports(path, tree)}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        called = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
        found = names & {"pickle", "marshal", "shelve", "dill"} | called & {"eval", "exec"}
        wrong += [f"{path.relative_to(PACKAGE)}: {', '.join(sorted(found))}"] if found else []
    assert not wrong, "\n".join(wrong)


def test_files_stay_of_a_size_that_can_be_read() -> None:
    lengths = {path.name: path.read_text(encoding="utf-8").count("\n") for path in files()}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


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
