"""The parser of the command line, made of the table of commands."""

import argparse
import difflib
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from tinyseg.cli.options import Command
from tinyseg.cli.table import COMMANDS, GROUPS
from tinyseg.common import VERSION


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options of one command; --help, --version and wrong usage end the program."""
    return parser().parse_args(arguments)


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    top = Parser("tinyseg", description="Train image segmentation networks on tinygrad.")
    top.add_argument(
        "--version",
        action="version",
        version=f"tinyseg {VERSION}",
        help="print the version and exit",
    )
    groups = {"": top.add_subparsers(required=True, metavar="COMMAND")}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            about = GROUPS[group]
            made = groups[""].add_parser(group, help=about, description=about)
            groups[group] = made.add_subparsers(required=True, metavar="ACTION")
        _add(groups[group].add_parser(name, **_texts(command)), command)
    return top


def _texts(command: Command) -> dict[str, Any]:
    about = textwrap.fill(f"{command.summary} {command.details}", 80)
    return {
        "help": command.summary,
        "description": about,
        "epilog": f"example:\n  {command.example}",
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def _add(made: argparse.ArgumentParser, command: Command) -> None:
    outputs = {}
    for one in command.options:
        action = made.add_argument(*one.flags, **one.settings)
        if one.writes is not None:
            outputs[action.dest] = one.writes
    function = command.name.replace(" ", "_")
    made.set_defaults(function=function, outputs=outputs)


class Parser(argparse.ArgumentParser):
    """Errors name the command or the option that was meant, under that command's own usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but refuse unknown words here, not in the parser above."""
        words = sys.argv[1:] if args is None else args
        self._refuse_unknown(words)
        found, rest = super().parse_known_args(words, namespace)
        if rest:
            self.error(f"{rest[0]!r} is one argument too many")
        return found, rest

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        flags = [flag for action in self._actions for flag in action.option_strings]
        commands = next((a.choices for a in self._actions if a.nargs == argparse.PARSER), None)
        for word in words:
            if word == "--":
                return
            if word.startswith("--") and " " not in word:
                flag = word.partition("=")[0]
                if not any(known.startswith(flag) for known in flags):
                    self._unknown("option", flag, flags)
            elif commands and not word.startswith("-"):
                if word not in commands:
                    self._unknown("command", word, commands)
                return  # what follows is for the command's own parser

    def _unknown(self, what: str, word: str, known: Iterable[str]) -> NoReturn:
        close = difflib.get_close_matches(word, list(known), n=1)
        advice = f"did you mean {close[0]}?" if close else f"see {self.prog} --help"
        self.error(f"unknown {what} {word}; {advice}")
