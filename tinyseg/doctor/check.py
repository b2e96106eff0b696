"""What a check is: a function from a project to findings, each said in one call."""

from collections.abc import Callable, Iterable
from functools import partial, wraps

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.doctor.project import Project

Check = Callable[[Project], list[Finding]]


def finding(
    level: str,
    check: str,
    what: str,
    why: str = "",
    remedy: str = "",
    evidence: Iterable[str] = (),
    picture: Array | None = None,
) -> list[Finding]:
    """Return one finding, as the list that a check returns."""
    return [Finding(level, check, what, why, remedy, tuple(evidence), picture)]


ok, note, warning, error = (partial(finding, level) for level in ("ok", "note", "warning", "error"))


def only_if(condition: Callable[[Project], bool]) -> Callable[[Check], Check]:
    """Return a decorator for checks that apply to some projects only; others pass them."""

    def decorate(check: Check) -> Check:
        @wraps(check)
        def conditional(project: Project) -> list[Finding]:
            return check(project) if condition(project) else []

        return conditional

    return decorate


custom_only = only_if(lambda project: project.custom)
needs_loss = only_if(lambda project: project.loss_is_known)
