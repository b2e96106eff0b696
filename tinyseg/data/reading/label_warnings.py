"""Say what was decided about labels, and where object and background may be swapped."""

from collections.abc import Mapping, Sequence

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.reading.cases import CaseFacts
from tinyseg.data.reading.label_map import ranges_text, swapped_text
from tinyseg.data.sample import name_some

ENCLOSED = 0.95
"""Share of the border from which what lies there encloses the rest."""
USUAL, LIKE = 4, 0.8
"""Labels that show what is usual, and the share of them that must be alike."""
_REMARKS = {
    "stored": "store white as 0, or have a gray palette that runs backwards: the stored value "
    "counts, as in ImageJ and QuPath, not the gray that viewers show",
    "alpha": "are plain but for their transparency (alpha), which is read as the mask",
    "turned": "fit their image only as its pixels are stored: turned as EXIF turns the image",
    "scaled": "have another size than their image, of the same aspect: scaled by nearest neighbor",
    "fractions": "hold fractions from 0 to 1, which are read as 0 to 255",
}


def label_warnings(
    facts: Sequence[CaseFacts], table: Mapping[int, int], scanned: bool
) -> list[str]:
    """Return what was decided about mask files, and what may be swapped, a line each."""
    masks = [mask for fact in facts for mask in fact.masks]
    binary = {*table.values()} <= {0, 1, IGNORE}
    lines = []
    for remark, text in _REMARKS.items():
        files = [mask.path.name for mask in masks if remark in mask.remark.split()]
        if files:
            swap = f"; if that swaps object and background set {swapped_text(table)}"
            swap *= remark == "stored" and binary and scanned
            lines.append(f"{len(files)} of {len(masks)} masks ({name_some(files)}) {text}{swap}")
    return lines + (_swapped(facts, table, scanned) if binary else [])


def _swapped(facts: Sequence[CaseFacts], table: Mapping[int, int], scanned: bool) -> list[str]:
    """Return warnings of two classes whose foreground encloses the background."""
    both, enclosing, enclosed = 0, dict[str, float](), dict[str, float]()
    for fact in facts:
        ids = fact.classes(table)
        if not ({0, 1} <= {*ids.tolist()} and fact.lay.border):
            continue
        both += 1
        share = fact.lay.border_share(ids == 1, ids != IGNORE)
        if share >= ENCLOSED or share <= 1 - ENCLOSED:
            group = enclosing if share >= ENCLOSED else enclosed
            group[fact.case.name] = fact.lay.contrast(ids == 1, ids == 0)
    if 2 * len(enclosing) > both:
        what = f"in {len(enclosing)} of {both} masks ({name_some(enclosing)}) the foreground lies "
        what += "along the border of the image and encloses the background; if the object is what "
        return [f"{what}it encloses set {swapped_text(table)}"] * scanned
    usual = float(np.nansum(np.sign([*enclosed.values()])))
    swapped = [name for name, contrast in enclosing.items() if contrast * usual < 0]
    if not swapped or len(enclosed) < USUAL or abs(usual) < LIKE * len(enclosed):
        return _bright_share(facts, table) * scanned
    return [
        f"in {len(swapped)} of {both} masks ({name_some(swapped)}) object and background look "
        "swapped: unlike in the others, the foreground encloses what is as bright as objects are "
        "elsewhere; invert these masks"
    ]


def _bright_share(facts: Sequence[CaseFacts], table: Mapping[int, int]) -> list[str]:
    share = sum(f.foreground(table) for f in facts) / max(1, sum(f.pixels for f in facts))
    if share <= 0.5:
        return []
    background = ranges_text([value for value, class_id in table.items() if class_id == 0])
    return [
        f"{share:.0%} of all pixels are foreground; if the value {background} is the object set "
        f"{swapped_text(table)}"
    ]
