"""The command line: options in, the functions of the other rooms called, text and files out.

No room imports this one. Exit codes: 0 success, 1 a check failed, 2 bad input, 130 interrupted.
"""

import os
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    As a program (without `arguments`) it answers Ctrl-C with one line at any time: at once while
    modules are imported, as KeyboardInterrupt while the command runs, not any more after it.
    """
    program = arguments is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if program:
        signal.signal(signal.SIGINT, _leave)
    from tinyseg.cli.parser import parse

    options = parse(arguments)
    from tinyseg.cli.execute import command_of, execute

    command = command_of(options)
    try:
        if program:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return execute(command, options)
    except KeyboardInterrupt:
        if program:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        if program:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)
