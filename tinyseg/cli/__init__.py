"""The command line: options in, the functions of the other rooms called, text and files out.

No room imports this one. Exit codes: 0 success, 1 a check failed, 2 bad input, 130 interrupted,
143 terminated.
"""

import os
import signal
import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # as in `typing`, whose import would be a further moment without Ctrl-C
if TYPE_CHECKING:
    from typing import Any, NoReturn

_ENDINGS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    As a program (without `arguments`) it answers Ctrl-C and SIGTERM with one line at any time: at
    once while modules are imported, as KeyboardInterrupt while the command runs, not any more after
    it. What the caller has ignored or handled stays as it is.
    """
    untouched = (signal.default_int_handler, signal.SIG_DFL)
    program = arguments is None
    signals = [n for n in _ENDINGS if program and signal.getsignal(n) in untouched]
    _handle(signals, _leave)
    from tinyseg.cli.parser import parse

    options = parse(arguments)
    from tinyseg.cli.execute import command_of, execute

    command = command_of(options)
    try:
        _handle(signals, _interrupt)
        return execute(command, options)
    except KeyboardInterrupt as error:
        _handle(signals, signal.SIG_IGN)
        number = error.args[0] if error.args else signal.SIGINT
        print(_ENDINGS[number], file=sys.stderr)
        return 128 + int(number)
    finally:
        _handle(signals, signal.SIG_IGN)


def _handle(signals: Sequence[int], handler: "Any") -> None:
    for number in signals:
        signal.signal(number, handler)


def _leave(number: int, frame: object) -> "NoReturn":
    os.write(2, f"{_ENDINGS[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def _interrupt(number: int, frame: object) -> "NoReturn":
    sys.unraisablehook = lambda _: None  # of objects that the interrupt leaves half made
    raise KeyboardInterrupt(signal.Signals(number))
