"""The command line."""

from tinyseg.cli.parser import main

__all__ = ["main"]
