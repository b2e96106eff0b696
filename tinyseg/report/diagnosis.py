"""Findings in a page: as plain values, and a page of their own."""

from collections.abc import Iterable
from typing import Any

from tinyseg.common.findings import LEVELS, Finding
from tinyseg.doctor import Diagnosis
from tinyseg.report.encode import data_uri
from tinyseg.report.page import DIAGNOSIS, build_page


def findings_of(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings for the page, the worst first, pictures as data: URIs."""
    ordered = sorted(findings, key=lambda finding: -LEVELS.index(finding.level))
    rows = [{**one.to_json(), "picture": _uri(one)} for one in ordered]
    return [{**one, "evidence": list(one["evidence"])} for one in rows]


def diagnosis_page(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as one HTML file that works from disk and fetches nothing."""
    findings = findings_of(diagnosis.findings)
    data = {**diagnosis.to_json(), "findings": findings, "verdict": diagnosis.verdict}
    return build_page(data, DIAGNOSIS)


def _uri(finding: Finding) -> str:
    picture = finding.picture
    return "" if picture is None else data_uri(picture, picture.shape[:2])
