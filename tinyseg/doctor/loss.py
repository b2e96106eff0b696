"""Placeholder."""

from collections.abc import Callable

from tinyseg.doctor.project import Project
from tinyseg.findings import Finding

LOSS_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = ()
