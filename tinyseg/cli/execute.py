"""From parsed options to an exit code: files are protected, errors are one line."""

import argparse
import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from tinyseg.cli.user_code import error_in_user_code
from tinyseg.common.files import check_output
from tinyseg.errors import RunError, TinysegError

Command = Callable[[argparse.Namespace], int]
_NO_MEMORY = ("can't start new thread", "error return without exception set")
"""What Python says, in place of MemoryError, of threads and in imports."""


def execute(command: Command, options: argparse.Namespace) -> int:
    """Run a command; bad input is one line and 2, never a traceback."""
    out, err = (_Stream(stream) for stream in (sys.stdout, sys.stderr))
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", module="PIL")  # we name damaged files ourselves
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=err)
        try:
            _check_outputs(options)
            code = command(options)
            for path in filter(None, (getattr(options, name) for name in options.outputs)):
                print(f"written: {path}")
            sys.stdout.flush()
            return code
        except Exception as error:
            text = _message(options, error)
            if text is None:
                raise
            print(f"error: {text}", file=sys.stderr)
        return 2


def _message(options: argparse.Namespace, error: Exception) -> str | None:
    """Return an error in one line; None for a mistake of ours, which needs its traceback."""
    if isinstance(error, TinysegError):
        return str(error)
    if isinstance(error, MemoryError) or str(error) in _NO_MEMORY:
        return _out_of_memory(options, str(error))
    if (own := error_in_user_code(error)) is not None:
        return str(own)
    if isinstance(error, OSError):
        text = f"{error.filename or 'system'}: {error.strerror}"
        return _out_of_memory(options, text) if error.errno == errno.ENOMEM else text
    return None


def command_of(options: argparse.Namespace) -> Command:
    """Import the function of a command, and with it all that takes time."""
    if options.function == "help":
        from tinyseg.cli import topics

        return topics.help
    from tinyseg.cli import commands

    command: Command = getattr(commands, options.function)
    return command


def _out_of_memory(options: argparse.Namespace, tried: str) -> str:
    command = f"tinyseg {options.function.replace('_', ' ')}"
    what = f" ({' '.join(tried.split())})" if tried else ""
    less = "smaller images, or closing other programs,"
    if "set" in options:
        less = "smaller values of train.batch_size, data.size or model.base_channels"
    return f"out of memory in `{command}`{what}; {less} need less"


def _check_outputs(options: argparse.Namespace) -> None:
    """Raise RunError, before any work, where a file that the command will write has a bad name."""
    for name, suffixes in options.outputs.items():
        path = getattr(options, name)
        if path is None:
            continue
        if suffixes and path.suffix.lower() not in suffixes:
            raise RunError(f"{path}: the name of this file must end in {' or '.join(suffixes)}")
        check_output(path, options.force)


class _Stream:
    """A text stream whose reader may leave, as in `tinyseg train ... | head -1`.

    What is written then goes nowhere and the command goes on; the same where the stream was closed
    from the start. Lines are passed on as they come, and no letter is an error.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if hasattr(self._stream, "reconfigure"):
            self._stream.reconfigure(line_buffering=True, errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._without_reader():
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._without_reader():
            self._stream.flush()

    @contextlib.contextmanager
    def _without_reader(self) -> Any:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
