"""All that could spoil a run on a dataset, found before it: `tinyseg data check`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tinyseg.common.findings import Finding, printable, table, tally, worst
from tinyseg.common.threads import Progress
from tinyseg.config import Config
from tinyseg.data.checks.contents import (
    class_findings,
    duplicate_findings,
    fold_findings,
    split_findings,
)
from tinyseg.data.checks.inspection import Inspected, file_findings, inspect_files
from tinyseg.data.dataset import Dataset
from tinyseg.data.reading.label_map import find_label_map, parse_labels, scans_rest
from tinyseg.data.reading.layouts import Layout, find_cases
from tinyseg.data.sources import find_named
from tinyseg.data.splits.split import Folds, Split, draw_split, make_folds
from tinyseg.errors import DataError

STOPS = "a run stops before it starts"


@dataclass(frozen=True)
class Check:
    """The findings of a check."""

    source: str
    images: int
    """How many a run would see."""
    findings: tuple[Finding, ...]
    split: Split | None = None
    """What a run would use, if it can be drawn."""
    folds: Folds | None = None
    """What the split is one of, with data.folds."""

    @property
    def level(self) -> str:
        """The worst level; "error" when a run would be spoiled."""
        return worst(self.findings)

    def table(self, width: int = 100) -> str:
        """For people: the findings, the worst first, and a verdict."""
        verdict = {"error": "FAIL: mend the errors before training", "warning": "PASS, but look"}
        last = f"{verdict.get(self.level, 'PASS')} ({tally(self.findings)})"
        head = printable(f"{self.source}: {self.images} images")
        return "\n".join([head, "", table(self.findings, width), "", last])

    def to_json(self) -> dict[str, Any]:
        """Everything, with complete lists."""
        told = {"source": self.source, "images": self.images, "level": self.level}
        findings = [finding.to_json() for finding in self.findings]
        drawn = {"split": self.split, "folds": self.folds}
        return {**told, "findings": findings, **{k: asdict(v) for k, v in drawn.items() if v}}


def check(source: str | Path, config: Config, progress: Progress | None = None) -> Check:
    """Checks a dataset as a run with this config would see it; every file is read.

    DataError when there is nothing that could be checked: no folder, or no images in it.
    """
    source, findings, layout, scanned = str(source), list[Finding](), None, False
    if not source.startswith("sim:"):
        layout, known = _layout(source, config)
        scanned = known is None
        seen = inspect_files(layout.cases, known, _half(progress, 0))
        findings += file_findings(seen, layout, config.data)
        findings += _label_findings(seen, config) if scanned else []
        layout = replace(layout, cases=tuple(one.case for one in seen if one.usable))
        if not layout.cases:
            return Check(source, 0, tuple(findings))
    try:
        dataset = Dataset(source, config.data, layout=layout, progress=_half(progress, 1))
    except DataError as error:
        told = any(str(error) == finding.seen for finding in findings)
        findings += [] if told else [Finding("error", "labels", str(error), STOPS)]
        return Check(source, len(layout.cases) if layout else 0, tuple(findings))
    findings += class_findings(dataset, config.data, scanned)
    try:
        split = draw_split(dataset, config.data)
        dealt = config.data.folds and not config.data.split_file
        folds = make_folds(dataset, config.data) if dealt else None
    except DataError as error:
        findings += [Finding("error", "split", str(error)), *duplicate_findings(dataset)]
        return Check(source, len(dataset), tuple(findings))
    findings += duplicate_findings(dataset, split)
    findings += split_findings(dataset, split, config)
    findings += fold_findings(dataset, folds) if folds else []
    return Check(source, len(dataset), tuple(findings), split, folds)


def _half(progress: Progress | None, half: int) -> Progress | None:
    """The files are read twice: one by one, then as a run reads them."""
    return progress and (lambda done, total: progress(half * total + done, 2 * total))


def _layout(source: str, config: Config) -> tuple[Layout, Mapping[int, int] | None]:
    """The cases, and what their mask values mean when that is known before a scan."""
    named = find_named(source)
    if named:
        return named.layout, named.label_map
    given = parse_labels(config.data.labels)
    known = given if given is not None and not scans_rest(config.data.labels) else None
    return find_cases(Path(source), strict=False), known


def _label_findings(seen: Sequence[Inspected], config: Config) -> list[Finding]:
    """What the scan of the mask values makes of them."""
    masks = [mask for one in seen if one.usable for mask in one.masks]
    if not masks:
        return []
    try:
        found = find_label_map(masks, parse_labels(config.data.labels) or {})
    except DataError as error:
        return [Finding("error", "labels", str(error), STOPS)]
    return [
        Finding("note" if text.endswith("255 is ignored") else "warning", "labels", text)
        for text in found.warnings
    ]
