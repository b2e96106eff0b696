"""What a case is: a set-up and the words that name what is wrong with it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyseg.common.findings import Finding
from tinyseg.doctor import Project


@dataclass(frozen=True)
class Case:
    """A set-up, and what the doctor should say about it; nothing if it is healthy."""

    name: str
    make: Callable[[Path], Project]
    cause: str = ""
    """A regular expression that the check, the text or the reason of a right finding matches."""
    remedy: str = ""
    """One that a right remedy matches."""
    source: str = ""
    allowed: tuple[str, ...] = ()
    """Checks whose warnings are right for a healthy set-up."""

    def named_by(self, finding: Finding) -> bool:
        """Return whether a finding names the cause."""
        return _in(self.cause, f"{finding.check}: {finding.seen} {finding.why}")

    def remedied_by(self, finding: Finding) -> bool:
        """Return whether a finding has the right remedy."""
        return _in(self.remedy, finding.remedy)


def _in(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None
