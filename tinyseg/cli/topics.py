"""`tinyseg help`: the pages of the documentation, which are part of the package."""

import argparse
from importlib.resources import files
from importlib.resources.abc import Traversable

from tinyseg.cli.parser import parse
from tinyseg.cli.table import COMMANDS
from tinyseg.common.spec import did_you_mean
from tinyseg.errors import TinysegError

FOLDER = files("tinyseg") / "docs"


def help(options: argparse.Namespace) -> int:
    """Print a page, the help of a command, or the list of pages."""
    topic, pages = " ".join(options.topic).removesuffix(".md"), _pages(FOLDER)
    commands = {command.name for command in COMMANDS}
    if topic in pages:
        print(pages[topic].read_text(encoding="utf-8"))
    elif topic in commands:
        parse([*options.topic, "--help"])
    elif topic:
        close = did_you_mean(topic, [*pages, *commands]) or "; `tinyseg help` lists the pages"
        raise TinysegError(f"no page on {topic!r}{close}")
    else:
        width = max(map(len, pages), default=0)
        print("Pages (read one with `tinyseg help TOPIC`):")
        for name, page in pages.items():
            title = page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            print(f"  {name:{width}}  {title}")
    return 0


def _pages(folder: Traversable, prefix: str = "") -> dict[str, Traversable]:
    """Return the pages by their topics, those in a folder as "folder/topic"."""
    pages: dict[str, Traversable] = {}
    if not folder.is_dir():
        return pages
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            pages |= _pages(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".md"):
            pages[prefix + entry.name.removesuffix(".md")] = entry
    return pages
