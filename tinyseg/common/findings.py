"""What a check found: how bad, what was seen, why it matters, what to do, and the evidence."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

LEVELS = ("ok", "note", "warning", "error")
"""From harmless to what would spoil a run."""


@dataclass(frozen=True)
class Finding:
    """One result of a check, in words for people; `check` and `level` for programs."""

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
    """What shows it at a glance, (H, W, 3) uint8."""

    def to_json(self) -> dict[str, Any]:
        """All fields but the picture, for a JSON file."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "picture"}


def listed(
    level: str, check: str, seen: str, evidence: Iterable[object], why: str = "", remedy: str = ""
) -> list[Finding]:
    """One finding when there is evidence, each piece once, its number after `seen`; else none."""
    texts = tuple(dict.fromkeys(map(str, evidence)))
    found = Finding(level, check, f"{seen}: {len(texts)}", why, remedy, texts)
    return [found] if texts else []


def worst(findings: Iterable[Finding]) -> str:
    """The highest level among the findings; ok when there is none."""
    return max((f.level for f in findings), key=LEVELS.index, default="ok")


def tally(findings: Sequence[Finding]) -> str:
    """How many there are of each level but ok, the worst first; "all well" without any."""
    counts = {level: sum(f.level == level for f in findings) for level in LEVELS[:0:-1]}
    told = [f"{n} {level}{'s' * (n > 1)}" for level, n in counts.items() if n]
    return ", ".join(told) or "all well"


def table(findings: Sequence[Finding], width: int = 100, most: int = 5) -> str:
    """The findings as text, the worst first; evidence is cut after `most` lines."""
    ordered = sorted(findings, key=lambda f: -LEVELS.index(f.level))
    return "\n".join(line for finding in ordered for line in _lines(finding, width, most))


def printable(text: str) -> str:
    """A text without what a terminal cannot show or would obey: file names may hold any bytes."""
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
