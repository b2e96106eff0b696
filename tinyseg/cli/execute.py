"""From parsed options to an exit code: files are protected, errors are one line."""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from tinyseg.common.files import written_by_tinyseg
from tinyseg.errors import RunError, TinysegError

Command = Callable[[argparse.Namespace], int]


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
        except TinysegError as error:
            print(f"error: {error}", file=sys.stderr)
        except MemoryError:
            print(
                "error: out of memory; smaller values of train.batch_size, data.size or "
                "model.base_channels need less",
                file=sys.stderr,
            )
        except OSError as error:
            print(f"error: {error.filename or 'system'}: {error.strerror}", file=sys.stderr)
        return 2


def command_of(options: argparse.Namespace) -> Command:
    """Import the function of a command, and with it all that takes time."""
    if options.function == "help":
        from tinyseg.cli import topics

        return topics.help
    from tinyseg.cli import commands

    command: Command = getattr(commands, options.function)
    return command


def _check_outputs(options: argparse.Namespace) -> None:
    """Raise RunError, before any work, where a file that the command will write has a bad name."""
    for name, suffixes in options.outputs.items():
        path = getattr(options, name)
        if path is None:
            continue
        if suffixes and path.suffix.lower() not in suffixes:
            raise RunError(f"{path}: the name of this file must end in {' or '.join(suffixes)}")
        if path.is_dir():
            raise RunError(f"{path} is a folder; give the name of a file to write")
        if path.exists() and not options.force and not written_by_tinyseg(path):
            raise RunError(
                f"{path} exists and was not written by tinyseg; give another name, or "
                "--force to replace it"
            )


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
