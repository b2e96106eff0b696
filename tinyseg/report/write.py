"""From run folders to the file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tinyseg.errors import RunError
from tinyseg.files import write_atomic
from tinyseg.plots import draw_curves
from tinyseg.report.collect import collect
from tinyseg.report.page import build_page
from tinyseg.report.table import as_csv, as_markdown, as_text, rows_of
from tinyseg.run import Run

Written = Callable[[dict[str, Any]], str]
TEXTS: dict[str, Written] = {
    ".html": build_page,
    ".txt": lambda data: as_text(rows_of(data)),
    ".md": lambda data: as_markdown(rows_of(data)),
    ".csv": lambda data: as_csv(rows_of(data)),
}
DRAWN = ".png"


def report(
    runs: Sequence[Run],
    out: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    images: int = 50,
    say: Callable[[str], None] = print,
) -> str:
    """Scores runs on the images of `split` that all have in it; writes one file, returns the table.

    The name's end says which: .html is the page, .txt, .md and .csv the table of runs beside
    baselines, .png the curves (needs matplotlib). `data` is the first run's own when it is not
    given. The page shows at most `images`, spread evenly from the worst to the best; scores and
    curves are those of all. Raises a TinysegError when the runs have no such images or other
    classes.
    """
    out = Path(out)
    if out.suffix not in (*TEXTS, DRAWN):
        raise RunError(f"{out}: its name must end in {', '.join(TEXTS)} or {DRAWN}")
    if images < 0:
        raise RunError(f"{images} images cannot be shown: it must be 0 or more")
    shown = images if out.suffix == ".html" else 0
    found = collect(runs, data or runs[0].facts.source, split, shown, say)
    if out.suffix == DRAWN:
        draw_curves(out, found["runs"], found["classes"])
    else:
        write_atomic(out, TEXTS[out.suffix](found))
    return as_text(rows_of(found))
