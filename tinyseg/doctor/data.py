"""What images and labels say before any network sees them."""

from collections.abc import Callable

from tinyseg.data.check import check
from tinyseg.doctor.project import Project
from tinyseg.findings import Finding


def files(project: Project) -> list[Finding]:
    """All that `tinyseg data check` knows."""
    return list(check(project.source, project.config).findings)


DATA_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (files,)
