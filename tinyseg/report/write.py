"""From run folders to the file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tinyseg.files import write_atomic
from tinyseg.report.collect import collect
from tinyseg.report.page import build_page
from tinyseg.run import Run


def report(
    runs: Sequence[Run],
    out: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    images: int = 50,
    say: Callable[[str], None] = print,
) -> None:
    """Scores runs on the images of `split` that all of them have in it and writes one HTML file.

    `data` is the first run's own when it is not given. At most `images` are shown, spread evenly
    from the worst to the best; the scores and curves are those of all. Raises a TinysegError when
    the runs have no such images or other classes.
    """
    page = build_page(collect(runs, data or runs[0].facts.source, split, images, say))
    write_atomic(out, page)
