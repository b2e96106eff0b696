"""The diagnosis: all checks, causes before symptoms, and the findings that they return."""

import os
import sysconfig
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tinygrad

from tinyseg.common.findings import Finding, printable, table, tally, worst
from tinyseg.common.progress import Progress
from tinyseg.doctor.check import Check, error, note
from tinyseg.doctor.checks.data import DATA_CHECKS, INPUT_CHECKS
from tinyseg.doctor.checks.labels import LABEL_CHECKS
from tinyseg.doctor.checks.loss import LOSS_CHECKS
from tinyseg.doctor.checks.memorization import MEMORIZATION_CHECKS
from tinyseg.doctor.checks.network import NETWORK_CHECKS
from tinyseg.doctor.checks.optimizer import OPTIMIZER_CHECKS
from tinyseg.doctor.checks.pipeline import PIPELINE_CHECKS
from tinyseg.doctor.checks.run import RUN_CHECKS
from tinyseg.doctor.checks.signal import SIGNAL_CHECKS, SUSPICIONS
from tinyseg.doctor.checks.step import STEP_CHECKS
from tinyseg.doctor.checks.update import UPDATE_CHECKS
from tinyseg.doctor.project import Project
from tinyseg.errors import ConfigError, TinysegError

STAGES: dict[str, tuple[Check, ...]] = {
    "data": DATA_CHECKS,
    "labels": (*LABEL_CHECKS, *INPUT_CHECKS),
    "pipeline": PIPELINE_CHECKS,
    "loss": LOSS_CHECKS,
    "network": (*SIGNAL_CHECKS, *NETWORK_CHECKS),
    "step": STEP_CHECKS,
    "update": (*OPTIMIZER_CHECKS, *UPDATE_CHECKS),
    "memorization": MEMORIZATION_CHECKS,
    "run": RUN_CHECKS,
}
"""Causes come before symptoms; after an error only a finished run is examined."""

QUICK = ("data", "labels", "pipeline", "loss", "network")
"""Stages that compile and run no training step."""
LEARNING = ("step", "update", "memorization")
"""Stages that train; a warning or an error in them confirms suspicions of those before."""

MAX_MESSAGE = 200
"""Characters of an exception's message; tinygrad's can have thousands."""
OTHERS_CODE = (
    str(Path(tinygrad.__file__).parent),
    str(Path(np.__file__).parent),
    sysconfig.get_path("stdlib"),
    str(Path(__file__).parents[1]),
)
"""Folders of code that is not the user's."""
GENERATED_CODE = ("<string>", "<frozen ")
"""What the file names of generated code start with; tinygrad compiles its rewrite rules so."""
KNOWN_REMEDIES = {
    "unwrap(t.grad)": "a parameter has no gradient: give the optimizer the parameters of this very "
    "model, and call loss.backward() before optimizer.step()",
    "Tensor.training must be enabled": "wrap the step in `with Tensor.train():`",
    "broadcast": "compare the shapes: images (B, C, H, W), labels (B, H, W), logits (B, K, H, W)",
}
"""Remedies by a part of an exception's message or of a line that it passed through."""


@dataclass(frozen=True)
class Diagnosis:
    """The findings, in the order of the checks."""

    source: str
    findings: tuple[Finding, ...]
    seconds: dict[str, float]
    """Time of each stage."""

    @property
    def level(self) -> str:
        """The worst level; "error" means that training cannot work."""
        return worst(self.findings)

    @property
    def first(self) -> Finding | None:
        """The first error, or else the first warning: the likely cause."""
        for level in ("error", "warning"):
            for finding in self.findings:
                if finding.level == level:
                    return finding
        return None

    @property
    def verdict(self) -> str:
        """PASS or FAIL and the number of findings of each level."""
        verdicts = {
            "error": "FAIL: fix the first error first",
            "warning": "PASS with warnings: start with the first one",
        }
        return f"{verdicts.get(self.level, 'PASS')} ({tally(self.findings)})"

    def table(self, width: int = 100) -> str:
        """Return the findings as text, the worst first, and the verdict."""
        head = printable(f"{self.source}, examined in {sum(self.seconds.values()):.0f} s")
        return "\n".join([head, "", table(self.findings, width), "", self.verdict])

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pictures."""
        first = self.first
        return {
            "source": self.source,
            "level": self.level,
            "first": first.to_json() if first else None,
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def diagnose(project: Project, stages: Sequence[str] = tuple(STAGES)) -> Diagnosis:
    """Examine a project; it, its files and its runs stay as they were.

    After a stage with an error only a finished run is examined, which needs no training. A check
    that cannot run becomes a finding. Raises DataError if there are no images, and ConfigError for
    a stage that does not exist.
    """
    if wrong := [stage for stage in stages if stage not in STAGES]:
        raise ConfigError(f"there is no stage {wrong[0]!r}: give some of {', '.join(STAGES)}")
    findings, skipped, done = list[Finding](), list[str](), 0
    seconds: dict[str, float] = {}
    count = sum(len(STAGES[stage]) for stage in stages)
    with project.restored(), Progress("doctor", count) as progress:
        for stage in stages:
            if worst(findings) == "error" and stage != "run":
                skipped.append(stage)
                continue
            start, of_stage = time.monotonic(), list[Finding]()
            for check in STAGES[stage]:
                progress.update(done, note=f"{stage}: {check.__name__.replace('_', ' ')}")
                done += 1
                of_stage += _run(check, project, stage, worst(of_stage) == "error")
            findings += of_stage
            if stage in LEARNING and worst(of_stage) in ("warning", "error"):
                findings = _confirmed(findings, worst(of_stage))
            seconds[stage] = time.monotonic() - start
    if skipped:
        findings += note(
            "doctor",
            f"not examined: {', '.join(skipped)}",
            "any problem they find could be a consequence of the error",
            "fix the error, then run `tinyseg doctor` again",
        )
    return Diagnosis(project.source, tuple(findings), seconds)


def _confirmed(findings: list[Finding], level: str) -> list[Finding]:
    """Return the findings with suspicions at the level of what went wrong with the learning.

    A suspicion is a note on what often hurts; it comes before what it explains.
    """
    return [
        replace(one, level=level) if one.check in SUSPICIONS and one.level == "note" else one
        for one in findings
    ]


def _run(check: Check, project: Project, stage: str, failed: bool) -> list[Finding]:
    """Return a check's findings; an exception is an error, unless the stage has one already."""
    try:
        return check(project)
    except TinysegError as exception:
        if stage == "data":  # no folder, or no image in it: there is nothing to examine
            raise
        return [] if failed else error(stage, str(exception), "", "")
    except Exception as exception:
        if not project.custom:  # then this is a bug of the doctor
            raise
        return [] if failed else _raised(exception)


def _raised(exception: Exception) -> list[Finding]:
    """Return the finding for an exception in the user's own code: which one, and where."""
    frames = traceback.extract_tb(exception.__traceback__)
    own = [frame for frame in frames if not _is_others(frame.filename)]
    lines = str(exception).strip().splitlines()
    message = lines[0][:MAX_MESSAGE] if lines else "without a message"
    text = f"{type(exception).__name__}: {message}"
    where = f" in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else ""
    searched = f"{text} {[frame.line for frame in frames]}"
    remedies = [remedy for part, remedy in KNOWN_REMEDIES.items() if part in searched]
    return error(
        "exception",
        f"your own code raises {text}{where}",
        "the checks that follow need this code to run",
        remedies[0] if remedies else "fix the code at this line",
        [f"{one.filename}:{one.lineno} {one.name}: {one.line}" for one in own[-3:]],
    )


def _is_others(filename: str) -> bool:
    return filename.startswith(GENERATED_CODE) or any(
        filename.startswith(f"{folder}{os.sep}") for folder in OTHERS_CODE
    )
