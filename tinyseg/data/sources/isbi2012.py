"""ISBI-2012: membranes of nerve cells in an electron microscope, the U-Net paper's benchmark."""

from collections.abc import Mapping
from pathlib import Path

from tinyseg.data.reading.decode import count_pages
from tinyseg.data.reading.layouts import Case, Layout, find_cases
from tinyseg.data.sources.source import Archive, Named, Option, Source
from tinyseg.errors import DataError

_STACKS = ("train-volume.tif", "train-labels.tif")
_CLASSES = {"membrane": ("cell", "membrane"), "cell": ("membrane", "cell")}


def _find(root: Path, options: Mapping[str, str]) -> Named:
    """Find the challenge's stacks, or their pages as train/image/N.png and train/label/N.png.

    In the labels 0 is membrane and 255 cell. Membrane is the foreground here: the rare class
    (22 % of the pixels), and what the challenge is about.
    """
    foreground = options["foreground"]
    dark = int(foreground == "membrane")
    layout = _stacks(root) if (root / _STACKS[0]).exists() else find_cases(root)
    return Named(layout, {0: dark, 255: 1 - dark}, _CLASSES[foreground])


def _stacks(root: Path) -> Layout:
    volume, labels = (root / name for name in _STACKS)
    pages, labeled = count_pages(volume), count_pages(labels)
    if pages != labeled:
        raise DataError(f"{labels}: {labeled} pages, but {volume} has {pages}; restore both")
    cases = (Case(f"train/{page}", volume, (labels,), page=page) for page in range(pages))
    return Layout(tuple(cases), ())


ISBI2012 = Source(
    title="ISBI-2012: 30 electron microscopy images of membranes",
    terms="non-commercial; cite Cardona et al., PLoS Biology 8(10), 2010",
    archives=(Archive("https://downloads.imagej.net/ISBI-2012-challenge.zip", _STACKS),),
    or_files=("train/image", "train/label"),
    find=_find,
    options={"foreground": Option(("membrane", "cell"))},
    top="ISBI-2012-challenge",
)
