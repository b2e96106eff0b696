"""From run folders to the file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tinyseg.common.files import check_output, write_atomic
from tinyseg.common.findings import Finding
from tinyseg.doctor import STAGES, EvaluatedRun, Project, check_run, diagnose
from tinyseg.drawing.plots import draw_curves
from tinyseg.errors import RunError
from tinyseg.evaluation.groups import as_runs
from tinyseg.inference.run import Run
from tinyseg.report.collect import collect
from tinyseg.report.page import build_page
from tinyseg.report.table import as_csv, as_markdown, as_text, rows_of

Written = Callable[[dict[str, Any]], str]
TEXTS: dict[str, Written] = {
    ".html": build_page,
    ".txt": lambda data: as_text(rows_of(data)),
    ".md": lambda data: as_markdown(rows_of(data)),
    ".csv": lambda data: as_csv(rows_of(data)),
}
DRAWN = ".png"


def report(
    runs: Sequence[Run | Sequence[Run]],
    out: str | Path,
    data: str | Path | None = None,
    split: str = "val",
    images: int = 50,
    say: Callable[[str], None] = print,
    doctor: bool = False,
    force: bool = False,
    channels: Sequence[int] = (),
) -> str:
    """Score runs on the images that are in `split` of all; write one file and return the table.

    The suffix of `out` decides: .html is the page, .txt, .md and .csv the table of runs and
    baselines, .png the curves. `data` defaults to that of the first run. The page shows at most
    `images`, spread evenly from the worst to the best; scores and curves are of all images. It
    has the findings of each run and, with `doctor`, those of a whole diagnosis of its data and
    settings, which takes about a minute for each run. The folds of a cross-validation
    (`load_runs`) count as one run, see `evaluate`. `channels`, numbered from 1, are those that the
    page shows as red, green and blue. Raises a TinysegError when the
    runs have no such images or other classes, or, without `force`, when `out` is a file that
    tinyseg has not written.
    """
    out = Path(out)
    if out.suffix not in (*TEXTS, DRAWN):
        raise RunError(f"{out}: its name must end in {', '.join(TEXTS)} or {DRAWN}")
    if images < 0:
        raise RunError(f"{images} images cannot be shown: it must be 0 or more")
    check_output(out, force)
    page, data = out.suffix == ".html", data or as_runs(runs[0])[0].facts.source
    if doctor and not page:
        raise RunError(f"{out}: --doctor needs a page; give a name that ends in .html")
    folds = next((some for some in map(as_runs, runs) if len(some) > 1), None)
    if doctor and folds:
        raise RunError(
            f"{folds[0].folder.parent}: the doctor examines a single run; give one of its folds"
        )
    if page:
        collected = collect(
            runs, data, split, images, say, _whole if doctor else check_run, channels
        )
    else:
        collected = collect(runs, data, split, 0, say)
    if out.suffix == DRAWN:
        draw_curves(out, collected["runs"], collected["classes"])
    else:
        write_atomic(out, TEXTS[out.suffix](collected))
    return as_text(rows_of(collected))


def _whole(case: EvaluatedRun) -> list[Finding]:
    """Return the findings for the data it was trained on, and those of its evaluation here."""
    stages = [stage for stage in STAGES if stage != "run"]
    here = set(case.run.split.train) <= set(case.dataset.names)
    project = Project(case.dataset.source if here else case.run.facts.source, run=case.run)
    return [*diagnose(project, stages).findings, *check_run(case)]
