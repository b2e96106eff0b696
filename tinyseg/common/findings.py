"""The result of a check: how severe, what was seen, why it matters, what to do, the evidence."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

LEVELS = ("ok", "note", "warning", "error")
"""From harmless to what would make a run useless."""


@dataclass(frozen=True)
class Finding:
    """One result of a check in words; `check` and `level` are for programs."""

    level: str
    """ok, note, warning or error."""
    check: str
    """Which check it is from, a word or two; several findings may share one."""
    seen: str
    """What was seen."""
    why: str = ""
    """Why it matters."""
    remedy: str = ""
    """What to do, with the exact setting or command."""
    evidence: tuple[str, ...] = ()
    """File names or numbers, all of them."""
    picture: np.ndarray[Any, np.dtype[Any]] | None = field(default=None, compare=False, repr=False)
    """An image that shows it, (H, W, 3) uint8."""

    def to_json(self) -> dict[str, Any]:
        """Return all fields but the picture, for a JSON file."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "picture"}


def listed(
    level: str, check: str, seen: str, evidence: Iterable[object], why: str = "", remedy: str = ""
) -> list[Finding]:
    """Return a finding with the evidence, each piece once, and its number; none without any."""
    texts = tuple(dict.fromkeys(map(str, evidence)))
    return [Finding(level, check, f"{seen}: {len(texts)}", why, remedy, texts)] if texts else []


def worst(findings: Iterable[Finding]) -> str:
    """Return the highest level among the findings; ok when there is none."""
    return max((f.level for f in findings), key=LEVELS.index, default="ok")


def tally(findings: Sequence[Finding]) -> str:
    """Return the number of findings of each level but ok, the worst first; or "all well"."""
    counts = {level: sum(f.level == level for f in findings) for level in LEVELS[:0:-1]}
    return (
        ", ".join(f"{n} {level}{'s' * (n > 1)}" for level, n in counts.items() if n) or "all well"
    )


def table(findings: Sequence[Finding], width: int = 100, most: int = 5) -> str:
    """Return the findings as text, the worst first, with at most so many lines of evidence each."""
    ordered = sorted(findings, key=lambda f: -LEVELS.index(f.level))
    return "\n".join(line for finding in ordered for line in _lines(finding, width, most))


def printable(text: str) -> str:
    """Return a text without control characters, which a file name may contain."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _lines(finding: Finding, width: int, most: int) -> list[str]:
    head = f"{finding.level:8}{finding.check:13} "
    lines = _wrap(finding.seen, head, " " * len(head), width)
    for word, text in (("why:", finding.why), ("do:", finding.remedy)):
        lines += _wrap(text, f"{'':8}{word:>13} ", " " * len(head), width) if text else []
    for text in finding.evidence[:most]:
        lines += _wrap(text, f"{'':8}- ", f"{'':10}", width)
    left = len(finding.evidence) - most
    return lines + ([f"{'':8}- and {left} more"] if left > 0 else [])


def _wrap(text: str, first: str, rest: str, width: int) -> list[str]:
    return textwrap.wrap(
        printable(text),
        width,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
