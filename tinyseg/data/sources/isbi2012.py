"""ISBI-2012: membranes of nerve cells in an electron microscope, the U-Net paper's benchmark."""

from collections.abc import Mapping
from pathlib import Path

from tinyseg.data.layout import find_cases
from tinyseg.data.sources.source import Archive, Named, Option, Source

_CLASSES = {"membrane": ("cell", "membrane"), "cell": ("membrane", "cell")}


def _find(root: Path, options: Mapping[str, str]) -> Named:
    """train/image/N.png with train/label/N.png; the 30 test images have no labels.

    In the labels 0 is membrane and 255 cell. Membrane is the foreground here: the rare class
    (22 % of the pixels), and what the challenge is about.
    """
    foreground = options["foreground"]
    dark = int(foreground == "membrane")
    return Named(find_cases(root), {0: dark, 255: 1 - dark}, _CLASSES[foreground])


ISBI2012 = Source(
    title="ISBI-2012: 30 electron microscopy images of membranes",
    terms="non-commercial; cite Cardona et al., PLoS Biology 8(10), 2010",
    archives=(Archive("https://downloads.imagej.net/ISBI-2012-challenge.zip"),),
    files=("train/image", "train/label"),
    find=_find,
    options={"foreground": Option(("membrane", "cell"))},
)
