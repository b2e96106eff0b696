"""A user's own code: `--model FILE.py:CLASS` and `--loss FILE.py:FUNCTION`."""

import difflib
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from tinyseg.errors import TinysegError

_MODULES: dict[Path, ModuleType] = {}
"""Files that were run already: a network and a loss of one file share its module."""


def load_callable(option: str, text: str) -> Callable[..., Any]:
    """Return what FILE.py:NAME names, a class or a function; TinysegError says what is wrong."""
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not file.endswith(".py") or not name.isidentifier():
        raise TinysegError(f"{option} {text}: give FILE.py:NAME, e.g. nets.py:MyNet")
    if not path.is_file():
        raise TinysegError(f"{option} {text}: there is no file {path}")
    module = _MODULES.get(path.resolve()) or _run(path, f"{option} {text}")
    if not hasattr(module, name):
        names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        close = difflib.get_close_matches(name, names, n=1)
        advice = f"did you mean {close[0]}?" if close else f"it has {', '.join(names) or 'nothing'}"
        raise TinysegError(f"{option} {text}: {path} has no {name!r}; {advice}")
    value = getattr(module, name)
    if not callable(value):
        kind = type(value).__name__
        raise TinysegError(f"{option} {text}: {name} is not a class or a function but {kind}")
    return value  # type: ignore[no-any-return]


def make_model(text: str) -> Any:
    """Return the network that the class or function FILE.py:NAME makes without arguments."""
    make = load_callable("--model", text)
    try:
        return make()
    except Exception as error:
        raise _blame(error, Path(text.rpartition(":")[0]), f"--model {text}, made") from error


def _run(path: Path, what: str) -> ModuleType:
    spec = spec_from_file_location(f"_tinyseg_user_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    sys.path.insert(0, str(path.resolve().parent))  # files next to it may be imported
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _blame(error, path, what) from error
    _MODULES[path.resolve()] = module
    return module


def error_in_user_code(error: Exception) -> TinysegError | None:
    """Return an exception that a file of the user's raised as one line; None for any other."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.resolve() in _MODULES:
            return _blame(error, path, f"in {frame.name}, given")
    return None


def _blame(error: Exception, path: Path, what: str) -> TinysegError:
    """Return the error as one line that names the user's file and line."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    if isinstance(error, SyntaxError) and Path(str(error.filename)).resolve() == path.resolve():
        lines = [error.lineno]
    where = f"{path}, line {lines[-1]}" if lines else str(path)
    message = str(error).partition("\n")[0]
    return TinysegError(
        f"{where}: {type(error).__name__}: {message} ({what} from the command line)"
    )
