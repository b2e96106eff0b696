"""BUSI: breast ultrasound; several masks for some images, equal images under two names."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tinyseg.data.reading.layouts import Layout, find_cases
from tinyseg.data.sources.source import Archive, Named, Option, Source

_KINDS = ("benign", "malignant", "normal")


def _find(root: Path, options: Mapping[str, str]) -> Named:
    """Find KIND/KIND (n).png with KIND (n)_mask.png, _mask_1.png ...; normals are all black."""
    layouts = {kind: find_cases(root / kind) for kind in options["kinds"].split(",")}
    cases = [
        replace(case, name=f"{kind}/{case.name}")
        for kind, layout in layouts.items()
        for case in layout.cases
    ]
    warnings = [line for layout in layouts.values() for line in layout.warnings]
    return Named(Layout(tuple(cases), tuple(warnings)), {0: 0, 255: 1}, ("background", "lesion"))


BUSI = Source(
    title="BUSI: 780 breast ultrasound images",
    terms="CC0 on Kaggle; cite Al-Dhabyani et al., Data in Brief 28, 2020",
    archives=(Archive("https://scholar.cu.edu.eg/Dataset_BUSI.zip", _KINDS),),
    find=_find,
    options={"kinds": Option(_KINDS, several=True)},
    top="Dataset_BUSI_with_GT",
)
