"""DSB-2018: cell nuclei of the Data Science Bowl 2018, one mask file for each nucleus."""

from collections.abc import Mapping
from pathlib import Path

from tinyseg.data.reading.layouts import find_cases
from tinyseg.data.sources.source import Archive, Named, Source


def _find(root: Path, options: Mapping[str, str]) -> Named:
    """Find stage1_train/ID/images/ID.png with all of stage1_train/ID/masks/*.png."""
    layout = find_cases(root / "stage1_train")
    return Named(layout, {0: 0, 255: 1}, ("background", "nucleus"))


DSB2018 = Source(
    title="DSB-2018: 670 microscope images of cell nuclei",
    terms="CC0; cite Caicedo et al., Nature Methods 16, 2019",
    archives=(
        Archive(
            "https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
            gives=("stage1_train",),
            folder="stage1_train",
        ),
    ),
    find=_find,
    options={},
)
