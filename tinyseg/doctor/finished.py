"""Placeholder."""

from collections.abc import Callable

from tinyseg.doctor.project import Project
from tinyseg.findings import Finding

FINISHED_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = ()
