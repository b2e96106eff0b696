"""The first error or warning names the planted fault, and healthy set-ups have neither."""

from pathlib import Path

import pytest
from corpus import FAULTS
from fault import Fault, Healthy
from healthy import HEALTHY, REAL, real
from planted_own import HEALTHY as OWN

from tinyseg.doctor import diagnose


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_first_finding_names_the_fault(fault: Fault, tmp_path: Path) -> None:
    found = diagnose(fault.plant(tmp_path))
    assert found.first
    assert found.first.check == fault.found_by, found.table()
    assert found.first.why
    # an error that stops a run says its remedy itself
    assert found.first.remedy or ";" in found.first.seen


def alarms(healthy: Healthy, folder: Path) -> list[str]:
    findings = diagnose(healthy.make(folder)).findings
    loud = [f for f in findings if f.level in ("error", "warning") and f.check not in healthy.right]
    return [f"{f.level} {f.check}: {f.seen}" for f in loud]


@pytest.mark.slow
@pytest.mark.parametrize("healthy", [*HEALTHY, *OWN], ids=lambda healthy: healthy.name)
def test_a_healthy_set_up_raises_no_alarm(healthy: Healthy, tmp_path: Path) -> None:
    assert alarms(healthy, tmp_path) == []


@pytest.mark.slow
def test_nor_do_real_images(tmp_path: Path, shared_data: Path) -> None:
    """All of REAL are examined at their full size by bench/doctor.py: they take minutes."""
    assert alarms(Healthy("BUSI", real("busi", "data.size=128"), REAL[0].right), tmp_path) == []
