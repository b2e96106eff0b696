"""Runs beside baselines as a table: text, Markdown or CSV."""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

HEADS = ("run", "Dice", "IoU", "Dice/image", "IoU/image", "Dice (empty = 1)", "HD 95", "threshold")
Row = Sequence[str]


def rows_of(data: dict[str, Any]) -> list[Row]:
    """Return a head, a row for each run and a row for each baseline, of the data of `collect`.

    After the scores come the settings in which runs differ.
    """
    differing = [] if data["settings"]["with_defaults"] else data["settings"]["rows"]
    runs = [
        [
            run["title"],
            *_numbers(run["summary"]),
            "" if run["softmax"] else f"{run['threshold']:.3f}",
            *(values[index] for _, *values in differing),
        ]
        for index, run in enumerate(data["runs"])
    ]
    rest = [""] * (1 + len(differing))
    baselines = [[b["rule"], *_numbers(b["summary"]), *rest] for b in data["baselines"]]
    return [[*HEADS, *(key for key, *_ in differing)], *runs, *baselines]


def _numbers(values: Sequence[float | None]) -> Row:
    return ["" if value is None else f"{value:.4f}" for value in values]


def as_text(rows: Sequence[Row]) -> str:
    """Return aligned columns: texts to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [text.rjust(width) for text, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines) + "\n"


def as_markdown(rows: Sequence[Row]) -> str:
    """Return a table for GitHub and the like."""
    head, *body = (["".join(map(_escaped, text)) for text in row] for row in rows)
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))


def _escaped(letter: str) -> str:
    return f"\\{letter}" if letter in "\\|<>*_`[]" else letter if letter.isprintable() else "?"


def as_csv(rows: Sequence[Row]) -> str:
    """Return CSV for spreadsheets and scripts."""
    buffer = StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
