"""Check a dataset for everything that could ruin a run, before training: `tinyseg data check`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyseg.common.findings import Finding, printable, table, tally, worst
from tinyseg.common.threads import Progress
from tinyseg.config import Config
from tinyseg.data.annotations import find_annotations
from tinyseg.data.checks.inspection import DEPTHS, file_findings, inspect_files
from tinyseg.data.checks.labels import label_findings
from tinyseg.data.checks.split import STOPS, duplicate_findings, fold_findings, split_findings
from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.input_statistics import channel_names
from tinyseg.data.reading.frames import split_frames
from tinyseg.data.reading.label_map import parse_labels, scans_rest
from tinyseg.data.reading.layouts import Layout, find_cases
from tinyseg.data.sources import find_named
from tinyseg.data.splits.split import Folds, Split, draw_split, make_folds
from tinyseg.errors import DataError


@dataclass
class Check:
    """The findings of a check."""

    source: str
    images: int = 0
    """The number of images that a run would use."""
    findings: list[Finding] = field(default_factory=list)
    split: Split | None = None
    """The split that a run would use, if it can be drawn."""
    folds: Folds | None = None
    """The folds that the split is one of, with data.folds."""

    @property
    def level(self) -> str:
        """The worst level; "error" when a run would be spoiled."""
        return worst(self.findings)

    def table(self, width: int = 100) -> str:
        """Return text for people: the findings, the worst first, and a verdict."""
        verdict = {
            "error": "FAIL: fix the errors before training",
            "warning": "PASS, but read the warnings",
        }
        last = f"{verdict.get(self.level, 'PASS')} ({tally(self.findings)})"
        head = printable(f"{self.source}: {self.images} images")
        return "\n".join([head, "", table(self.findings, width), "", last])

    def to_json(self) -> dict[str, Any]:
        """Return everything, with complete lists."""
        findings = [finding.to_json() for finding in self.findings]
        found = {"source": self.source, "images": self.images, "level": self.level}
        splits = {"split": self.split, "folds": self.folds}
        return found | {"findings": findings} | {k: asdict(v) for k, v in splits.items() if v}


def check(source: str | Path, config: Config, progress: Progress | None = None) -> Check:
    """Check a dataset as a run with this config would use it; every file is read.

    DataError when there is nothing to check: no folder, or no images in it.
    """
    found, layout = Check(str(source)), None
    if not found.source.startswith("sim:"):
        layout, label_map = _layout(found.source, config)
        layout = split_frames(layout, config.data.pages)
        inspected = inspect_files(
            layout.cases, label_map, _half(progress, 0), config.data.pages == "channels"
        )
        usable = [one for one in inspected if not one.faults]
        found.findings += file_findings(inspected, layout, config.data)
        found.images = len(usable)
        layout = replace(layout, cases=tuple(one.case for one in usable))
        if not usable:
            return found
    try:
        progress = _half(progress, 1)
        dataset = Dataset(found.source, config.data, layout=layout, progress=progress)
    except DataError as error:
        if all(str(error) != finding.seen for finding in found.findings):
            found.findings.append(Finding("error", "labels", str(error), STOPS))
        return found
    found.images = len(dataset)
    found.findings += _pixel_findings(dataset)
    found.findings += label_findings(dataset, config.data)
    try:
        found.split = draw_split(dataset, config.data)
        if config.data.folds and not config.data.split_file:
            found.folds = make_folds(dataset, config.data)
    except DataError as error:
        found.split = None
        found.findings += [Finding("error", "split", str(error)), *duplicate_findings(dataset)]
        return found
    found.findings += duplicate_findings(dataset, found.split)
    found.findings += split_findings(dataset, found.split, config)
    found.findings += fold_findings(dataset, found.folds) if found.folds else []
    return found


def _half(progress: Progress | None, half: int) -> Progress | None:
    """Return progress over both readings of the files: one by one, then as a run reads them."""
    return progress and (lambda done, total: progress(half * total + done, 2 * total))


def _layout(source: str, config: Config) -> tuple[Layout, Mapping[int, int] | None]:
    """Return the cases, and the label map when it is known before the masks are read."""
    data = config.data
    if named := find_named(source):
        return named.layout, named.label_map
    drawn = None if data.masks else find_annotations(Path(source), data)
    if drawn and drawn.label_map:
        return drawn.layout, drawn.label_map
    layout = (
        drawn.layout
        if drawn
        else find_cases(Path(source), strict=False, images=data.images, masks=data.masks)
    )
    if layout.class_names:
        return layout, {class_id: class_id for class_id in range(len(layout.class_names))}
    complete = not scans_rest(data.labels)
    return layout, parse_labels(data.labels) if complete else None


def _pixel_findings(dataset: Dataset) -> Iterator[Finding]:
    """Yield the channels of the images, and which stored values become black and white."""
    ranges = {kind: list(map(str, found)) for kind, found in dataset.ranges.items()}
    values = "".join(f", {kind} values {' or '.join(found)}" for kind, found in ranges.items())
    yield Finding("ok", "channels", f"{', '.join(channel_names(dataset.channels))}{values}")
    if any(len(found) > 1 for found in ranges.values()):
        yield Finding("warning", "bit depths", "12-bit images among 16-bit ones", *DEPTHS)
