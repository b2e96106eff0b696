"""What is in a file of weights, as a table for people and as JSON."""

from typing import Any

from tinyseg.common.findings import printable
from tinyseg.weights.file import Weights
from tinyseg.weights.layouts import layout_of, prefix_of
from tinyseg.weights.settings import settings_of

MOST = 10
"""Names of what is not read in the table; JSON has all."""


def table(weights: Weights) -> str:
    """Return names, shapes and types of all tensors, their total and their layout."""
    facts = to_dict(weights)
    rows = [(t["name"], t["shape"], t["dtype"]) for t in facts["tensors"]]
    texts = [(name, "x".join(map(str, shape)) or "scalar", dtype) for name, shape, dtype in rows]
    widths = [max(len(row[column]) for row in texts) for column in (0, 1)]
    lines = [f"{n:{widths[0]}}  {s:{widths[1]}}  {d}".rstrip() for n, s, d in texts]
    numbers = sum(array.size for array in weights.tensors.values())
    layout = facts["layout"] or "unknown: no names of a program that tinyseg knows"
    if facts["prefix"]:
        layout += f", behind {facts['prefix']}"
    lines += [
        "",
        f"format   {weights.format}",
        f"total    {len(rows)} tensors, {numbers:,} numbers, {_megabytes(weights):.1f} MB",
        f"layout   {layout}",
    ]
    if facts["settings"]:
        lines.append(f"settings {facts['settings']}")
    if weights.unread:
        more = f" and {len(weights.unread) - MOST} more" if len(weights.unread) > MOST else ""
        lines.append(printable(f"not read {', '.join(weights.unread[:MOST])}{more}"))
    return "\n".join(lines)


def to_dict(weights: Weights) -> dict[str, Any]:
    """Return the same as a dict for JSON."""
    prefix = prefix_of(weights.tensors)
    layout = layout_of(weights.tensors)
    return {
        "format": weights.format,
        "layout": layout.name if layout else None,
        "prefix": prefix,
        "settings": settings_of(weights.tensors),
        "tensors": [
            {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in weights.tensors.items()
        ],
        "unread": list(weights.unread),
    }


def _megabytes(weights: Weights) -> float:
    return sum(array.nbytes for array in weights.tensors.values()) / 1e6
