"""The reference pages of tinyseg/docs, written from the code: `python -m tinyseg.cli.reference`."""

import argparse
import ast
from dataclasses import fields
from functools import partial
from itertools import pairwise
from pathlib import Path

from tinyseg import config
from tinyseg.cli.parser import parser
from tinyseg.config import sections

DOCS = Path(__file__).parents[1] / "docs"


def settings_page() -> str:
    """Return settings.md: each setting with its default and the text below it in config/."""
    texts = _field_texts(Path(sections.__file__).read_text(encoding="utf-8"))
    lines = ["# All settings", "", "Written from `tinyseg/config/sections.py`; do not edit.", ""]
    for section, part in config.SECTIONS.items():
        lines += [f"## {section}", "", "| setting | default | meaning |", "|---|---|---|"]
        for field in fields(part):
            meaning = texts[part.__name__, field.name].replace("|", "\\|")
            lines.append(f"| `{section}.{field.name}` | `{field.default!r}` | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _field_texts(source: str) -> dict[tuple[str, str], str]:
    """Return the string below each field of each class, in one line."""
    texts = {}
    for part in ast.parse(source).body:
        if isinstance(part, ast.ClassDef):
            for field, text in pairwise(part.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    words = " ".join(str(ast.literal_eval(text.value)).split())
                    texts[part.name, ast.unparse(field.target)] = words
    return texts


def commands_page() -> str:
    """Return commands.md: the help of every command."""
    lines = ["# All commands", "", "Written from the command line's own help; do not edit.", ""]
    for command in _commands(parser()):
        command.formatter_class = partial(command.formatter_class, width=96)  # type: ignore[call-arg]
        lines += [f"## {command.prog}", "", "```", command.format_help().strip(), "```", ""]
    return "\n".join(lines)


def _commands(top: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of the commands below `top` that do something."""
    groups = [a for a in top._actions if isinstance(a, argparse._SubParsersAction)]
    below = [one for group in groups for one in dict.fromkeys(group.choices.values())]
    return [leaf for one in below for leaf in _commands(one)] if below else [top]


PAGES = {"settings.md": settings_page, "commands.md": commands_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
