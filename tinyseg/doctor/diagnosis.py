"""The doctor's round: every check in order, cause before symptom, and what they found together."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tinyseg.doctor.data import DATA_CHECKS, LOOK_CHECKS
from tinyseg.doctor.finished import FINISHED_CHECKS
from tinyseg.doctor.labels import LABEL_CHECKS
from tinyseg.doctor.learning import LEARNING_CHECKS
from tinyseg.doctor.loss import LOSS_CHECKS
from tinyseg.doctor.network import NETWORK_CHECKS
from tinyseg.doctor.pipeline import PIPELINE_CHECKS
from tinyseg.doctor.project import Project
from tinyseg.doctor.step import STEP_CHECKS
from tinyseg.errors import TinysegError
from tinyseg.findings import Finding, printable, table, tally, worst
from tinyseg.progress import Progress

Check = Callable[[Project], list[Finding]]

STAGES: dict[str, tuple[Check, ...]] = {
    "data": DATA_CHECKS,
    "labels": (*LABEL_CHECKS, *LOOK_CHECKS),
    "pipeline": PIPELINE_CHECKS,
    "loss": LOSS_CHECKS,
    "network": NETWORK_CHECKS,
    "step": STEP_CHECKS,
    "learning": LEARNING_CHECKS,
    "run": FINISHED_CHECKS,
}
"""From cause to symptom: an error ends the round, as what follows might come from it."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found, in the order of the checks."""

    source: str
    findings: tuple[Finding, ...]
    seconds: dict[str, float]
    """What each stage took."""

    @property
    def level(self) -> str:
        """The worst level; "error" when training cannot work."""
        return worst(self.findings)

    @property
    def first(self) -> Finding | None:
        """The first error, or without one the first warning: the likely cause."""
        for level in ("error", "warning"):
            for finding in self.findings:
                if finding.level == level:
                    return finding
        return None

    @property
    def verdict(self) -> str:
        """In a line: how it is, and how many findings there are of each level."""
        words = {
            "error": "SICK: begin with the first error",
            "warning": "It may learn; look at the first warning",
        }
        return f"{words.get(self.level, 'HEALTHY')} ({tally(self.findings)})"

    def table(self, width: int = 100) -> str:
        """For people: the findings, the worst first, and the verdict."""
        head = printable(f"{self.source}, examined in {sum(self.seconds.values()):.0f} s")
        return "\n".join([head, "", table(self.findings, width), "", self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Everything but pictures."""
        first = self.first
        return {
            "source": self.source,
            "level": self.level,
            "first": first.to_json() if first else None,
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def diagnose(project: Project, stages: Sequence[str] = tuple(STAGES)) -> Diagnosis:
    """Examines a project; it, its files and its runs stay as they were.

    A stage with an error is the last one, but for the checks of a finished run, which need no
    training. What a check cannot do raises no error: its reason is a finding. DataError when there
    are no images at all.
    """
    found, skipped, done = list[Finding](), list[str](), 0
    seconds: dict[str, float] = {}
    with Progress("doctor", sum(len(STAGES[stage]) for stage in stages)) as progress:
        for stage in stages:
            if worst(found) == "error" and stage != "run":
                skipped.append(stage)
                continue
            begun = time.monotonic()
            for check in STAGES[stage]:
                progress.update(done, note=f"{stage}: {check.__name__.replace('_', ' ')}")
                found += _run(check, project, stage)
                done += 1
            seconds[stage] = time.monotonic() - begun
    if skipped:
        why = "what they would see may be but symptoms of the error"
        remedy = "mend it, then call the doctor again"
        seen = f"not examined: {', '.join(skipped)}"
        found.append(Finding("note", "doctor", seen, why, remedy))
    return Diagnosis(project.source, tuple(found), seconds)


def _run(check: Check, project: Project, stage: str) -> list[Finding]:
    try:
        return check(project)
    except TinysegError as error:
        if stage == "data":  # no folder, or no image in it: there is nothing to examine
            raise
        return [Finding("error", stage, str(error))]
    except Exception as error:
        if not project.foreign:  # then the fault is the doctor's own
            raise
        lines = traceback.format_exception(error)[-4:]
        seen = f"the project's own parts raise {type(error).__name__}: {error}"
        told = tuple(line.rstrip() for text in lines for line in text.splitlines())
        return [Finding("error", "exception", seen, evidence=told)]


__all__ = ["STAGES", "Diagnosis", "diagnose"]
