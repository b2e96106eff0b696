"""The doctor's round: every check in order, cause before symptom, and what they found together."""

import os
import sysconfig
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tinygrad

from tinyseg.common.findings import Finding, printable, table, tally, worst
from tinyseg.common.progress import Progress
from tinyseg.doctor.checks.data import DATA_CHECKS, LOOK_CHECKS
from tinyseg.doctor.checks.finished import FINISHED_CHECKS
from tinyseg.doctor.checks.labels import LABEL_CHECKS
from tinyseg.doctor.checks.learning import LEARNING_CHECKS
from tinyseg.doctor.checks.loss import LOSS_CHECKS
from tinyseg.doctor.checks.network import NETWORK_CHECKS
from tinyseg.doctor.checks.pipeline import PIPELINE_CHECKS
from tinyseg.doctor.checks.step import STEP_CHECKS
from tinyseg.doctor.project import Project
from tinyseg.errors import TinysegError

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

EXCEPTION = "exception"
MOST_LETTERS = 200
"""Of an exception's message; tinygrad's can have thousands."""
INNER = (
    str(Path(tinygrad.__file__).parent),
    str(Path(np.__file__).parent),
    sysconfig.get_path("stdlib"),
    str(Path(__file__).parents[1]),
)
"""Folders of code that is not the user's: of tinygrad, NumPy, Python and ours."""
GENERATED = ("<string>", "<frozen ")
"""How the names of code without a file begin: tinygrad compiles its rewrite rules so."""
KNOWN = {
    "unwrap(t.grad)": "a parameter has no gradient: give the optimizer the parameters of this very "
    "model, and call loss.backward() before optimizer.step()",
    "Tensor.training must be enabled": "wrap the step in `with Tensor.train():`",
    "broadcast": "compare the shapes: images (B, C, H, W), labels (B, H, W), logits (B, K, H, W)",
}
"""What is often behind an exception, by a piece of its message or of the line that raised it."""


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
    count = sum(len(STAGES[stage]) for stage in stages)
    with project.kept(), Progress("doctor", count) as progress:
        for stage in stages:
            if worst(found) == "error" and stage != "run":
                skipped.append(stage)
                continue
            begun = time.monotonic()
            told = list[Finding]()
            for check in STAGES[stage]:
                progress.update(done, note=f"{stage}: {check.__name__.replace('_', ' ')}")
                done += 1
                told += _run(check, project, stage, worst(told) == "error")
            found += told
            seconds[stage] = time.monotonic() - begun
    if skipped:
        why = "what they would see may be but symptoms of the error"
        remedy = "mend it, then call the doctor again"
        seen = f"not examined: {', '.join(skipped)}"
        found.append(Finding("note", "doctor", seen, why, remedy))
    return Diagnosis(project.source, tuple(found), seconds)


def _run(check: Check, project: Project, stage: str, sick: bool) -> list[Finding]:
    """What a check finds; what it raises is an error, but not where an error is told already."""
    try:
        return check(project)
    except TinysegError as error:
        if stage == "data":  # no folder, or no image in it: there is nothing to examine
            raise
        return [] if sick else [Finding("error", stage, str(error))]
    except Exception as error:
        if not project.foreign:  # then the fault is the doctor's own
            raise
        return [] if sick else [_exception(error)]


def _exception(error: Exception) -> Finding:
    """One line for an exception in the user's own parts: which, and where in their code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_inner(frame.filename)]
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0][:MOST_LETTERS] if lines else 'without a message'}"
    where = f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    evidence = tuple(f"{one.filename}:{one.lineno} {one.name}: {one.line}" for one in own[-3:])
    where_to_look = f"{text} {[frame.line for frame in frames]}"
    remedy = next((remedy for mark, remedy in KNOWN.items() if mark in where_to_look), "")
    seen = f"the project's own parts raise {text}{where}"
    why = "nothing behind it can be examined"
    return Finding("error", EXCEPTION, seen, why, remedy or "mend it there", evidence)


def _is_inner(filename: str) -> bool:
    """Whether a file is of code that is not the user's."""
    return filename.startswith(GENERATED) or any(
        filename.startswith(f"{folder}{os.sep}") for folder in INNER
    )


__all__ = ["STAGES", "Diagnosis", "diagnose"]
