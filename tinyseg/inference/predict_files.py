"""Predictions as files: a mask for each image, in the values of the run's own masks."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tinyseg.common.arrays import Array
from tinyseg.common.progress import Progress
from tinyseg.data import DriftMonitor
from tinyseg.data.prepare.resize import place_image
from tinyseg.data.reading.decode import count_pages
from tinyseg.data.reading.layouts import find_images
from tinyseg.errors import DataError, TinysegError
from tinyseg.inference.manifest import Manifest
from tinyseg.inference.mask_files import write_class_names, write_mask
from tinyseg.inference.predictor import predict_each, to_classes
from tinyseg.inference.run import Run
from tinyseg.inference.tta import choose_views, combine_runs


@dataclass(frozen=True)
class Written:
    """What `predict` wrote."""

    masks: tuple[Path, ...]
    """Also those that were there already."""
    problems: tuple[str, ...]
    """A line for each image that could not be used."""


def predict(
    run: Run,
    paths: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    probability: bool = False,
    say: Callable[[str], None] = print,
    threshold: float | None = None,
    others: Sequence[Run] = (),
    tta: str = "",
    postprocess: str | None = None,
    force: bool = False,
) -> Written:
    """Write a mask (PNG) for each image file, or for each image in a folder, into `out`.

    Masks have the image's size and the values of the masks the run was trained on; small values
    get a palette, so that no prediction looks black. A TIFF of several pages gives a mask for each:
    NAME_0001.png and so on. An interrupted call is continued, and what is done and unchanged is not
    done again (see `Manifest`). An image that cannot be used is reported and omitted.

    Args:
        run: The trained network.
        paths: Images, and folders of images.
        out: The folder for masks.
        probability: Whether 16-bit pictures of the probability are added in the folder
            probability/ (one folder more for each of several foreground classes).
        say: Where messages go.
        threshold: Replaces the run's.
        others: Runs whose probabilities and thresholds are averaged with this one's.
        tta: Test-time augmentation: names of `tta.VIEWS` joined with "+", or "auto" for those that
            training showed.
        postprocess: Replaces the run's, see `Postprocess`.
        force: Whether files that were not written by `predict` are replaced.

    Raises:
        DataError: No image can be used, or a mask would overwrite an image or, without `force`,
            a file that was not written here.
    """
    runs, out, clean = [run, *others], Path(out), run.postprocess(postprocess)
    threshold = fmean(one.threshold_or(threshold) for one in runs)
    tta = choose_views(tta, runs, say)
    stacked = run.config.data.pages == "channels"
    jobs = _find_jobs([paths] if isinstance(paths, str | Path) else paths, out, stacked)
    manifest = Manifest(out, _key(runs, tta, threshold, clean.text, probability))
    todo = [job for job in jobs if not manifest.has(job.file, job.page, job.mask)]
    if not force:
        _protect_files(todo, manifest)
    done = len(jobs) - len(todo)
    if done:
        say(f"{done} of {len(jobs)} masks are there already, made by the same run and settings")
    written = {job.mask for job in jobs} - {job.mask for job in todo}
    problems, monitor = list[str](), DriftMonitor()
    network = combine_runs(runs, tta)
    images = _readable(todo, runs, problems)
    predictions = predict_each(lambda images: network(images, monitor), images) if todo else ()
    with Progress("predicting", len(jobs), done) as progress:
        for job, p_khw in predictions:
            try:
                with manifest.writing(job.file, job.page, job.mask):
                    mask = clean(to_classes(p_khw, threshold))
                    label_map = run.facts.label_map
                    write_mask(out, job.mask, mask, label_map, p_khw if probability else None)
                written.add(job.mask)
            except OSError as error:
                problems.append(f"{out / job.mask}: cannot be written ({error.strerror})")
            progress.update(len(written) + len(problems))
    for problem in problems:
        say(f"left out: {problem}")
    if drift := monitor.warning(run.facts.input_statistics):
        say(f"warning: {drift}")
    if not written:
        raise DataError(f"none of {len(jobs)} images can be used; the first: {problems[0]}")
    write_class_names(out, run.facts.class_names, run.facts.label_map, force)
    return Written(tuple(out / job.mask for job in jobs if job.mask in written), tuple(problems))


def _find_jobs(paths: Sequence[str | Path], out: Path, stacked: bool) -> list["_Job"]:
    jobs = list(_jobs([Path(path) for path in paths], stacked))
    if not jobs:
        raise DataError(f"{', '.join(map(str, paths))}: no image there; give files or folders")
    _protect_images(jobs, out)
    return jobs


@dataclass(frozen=True)
class _Job:
    """An image, and where its mask goes."""

    file: Path
    page: int | None
    """Of a TIFF of several."""
    mask: Path
    """Relative to the output folder."""
    problem: str = ""
    """Why its pages cannot be counted."""


def _key(runs: Sequence[Run], *settings: object) -> str:
    """Return a digest of all that shapes what is written."""
    return hashlib.sha256(repr(([run.key for run in runs], settings)).encode()).hexdigest()


def _jobs(paths: Sequence[Path], stacked: bool) -> Iterator[_Job]:
    """Yield the images with the names of their masks, each name once."""
    taken: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        for file in _files(path):
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            pages, problem = ([None], "") if stacked else _pages(file)
            for page in pages:
                number = "" if page is None else f"_{page + 1:04}"
                target = name.with_name(f"{name.stem}{number}.png")
                if target in taken:  # a.jpg and a.png would share a.png
                    target = name.with_name(f"{name.name}{number}.png")
                while target in taken:
                    target = target.with_name(f"{target.name}.png")
                taken.add(target)
                yield _Job(file, page, target, problem)


def _pages(file: Path) -> tuple[Iterable[int | None], str]:
    """Return the pages of a TIFF that has several, or why they cannot be counted."""
    if file.suffix.casefold() in (".tif", ".tiff"):
        try:
            count = count_pages(file)
        except DataError as error:
            return [None], str(error)
        if count > 1:
            return range(count), ""
    return [None], ""


def _protect_images(jobs: Sequence[_Job], out: Path) -> None:
    # realpath: `resolve` fails on a link that points to itself
    images = {os.path.realpath(job.file) for job in jobs}
    for job in jobs:
        if os.path.realpath(out / job.mask) in images:
            raise DataError(
                f"{out / job.mask} would be overwritten by its mask; give another folder for masks"
            )


def _protect_files(jobs: Sequence[_Job], manifest: Manifest) -> None:
    others = [job.mask for job in jobs if not manifest.ours(job.mask)]
    if others:
        raise DataError(
            f"{manifest.folder / others[0]}: {len(others)} files there were not written by "
            "predict, or have been changed since; give another --out, or --force to replace them"
        )


def _files(path: Path) -> list[Path]:
    """Return the file, or a folder's images: PNG first, so that these keep their names."""
    if not path.is_dir():
        return [path]
    return sorted(find_images(path), key=lambda file: (file.suffix.casefold() != ".png", file))


def _readable(
    jobs: Sequence[_Job], runs: Sequence[Run], problems: list[str]
) -> Iterator[tuple[_Job, Array]]:
    """Yield the images that can be used, and note the problems of the others."""
    for job in jobs:
        if job.problem:
            problems.append(job.problem)
            continue
        try:
            image = runs[0].load_image(job.file, job.page)
        except TinysegError as error:
            problems.append(str(error))
            continue
        try:
            for data in (run.config.data for run in runs):
                place_image(image.shape[0], image.shape[1], data.size, data.fit)
        except TinysegError as error:
            problems.append(f"{job.file}: {error}")
            continue
        yield job, image
