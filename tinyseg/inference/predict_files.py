"""Predictions as files: masks with the values of the run's own masks, names kept."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image

from tinyseg.common.arrays import Array
from tinyseg.common.progress import Progress
from tinyseg.config import IGNORE
from tinyseg.data import DriftMonitor, load_image
from tinyseg.data.prepare.resize import place_image
from tinyseg.data.reading.decode import COLOR, count_pages
from tinyseg.data.reading.layouts import find_images
from tinyseg.drawing.pictures import palette, write_png
from tinyseg.errors import DataError, TinysegError
from tinyseg.inference.manifest import Manifest
from tinyseg.inference.predictor import to_classes
from tinyseg.inference.run import Run
from tinyseg.inference.tta import PredictFunction, combine_runs

PROBABILITY = "probability"
"""The folder of the probabilities, inside that of the masks."""
DARK = 64
"""Greys below this are taken for black by the eye."""


@dataclass(frozen=True)
class Written:
    """What `predict` did."""

    masks: tuple[Path, ...]
    """Also those that were there already."""
    problems: tuple[str, ...]
    """A line for each image that could not be used."""


def predict(
    run: Run,
    paths: Sequence[str | Path],
    out: str | Path,
    probability: bool = False,
    say: Callable[[str], None] = print,
    threshold: float | None = None,
    others: Sequence[Run] = (),
    tta: str = "",
    postprocess: str | None = None,
    force: bool = False,
) -> Written:
    """Writes a mask (PNG) for each image file, or for each image in a folder, into `out`.

    A TIFF of several pages gives a mask for each: NAME_0001.png and so on. Images are read as they
    are needed; a call that was cut off is continued, and what is done and unchanged is not done
    again (see `Manifest`). With `others` the probabilities (and thresholds) of several runs are
    averaged, with `tta` those of each image seen in several ways, see `parse_tta`. `postprocess`
    replaces the run's, see `Postprocess`.

    Masks have the image's size and the values of the masks the run was trained on, so that they
    can stand in for them; small values get a palette, so that no prediction looks black. With
    `probability`, 16-bit pictures of it are added in the folder probability/ (one folder more for
    each of several foreground classes). `threshold` replaces the run's. An image that cannot be
    used is reported and left out; DataError when there is no other, when a mask would overwrite
    an image, and when it would replace a file that was not written here, unless `force`.
    """
    runs, tidy = [run, *others], run.postprocess(postprocess)
    threshold = fmean(one.threshold_or(threshold) for one in runs)
    jobs = list(_jobs([Path(path) for path in paths]))
    if not jobs:
        raise DataError(f"{', '.join(map(str, paths))}: no image there; give files or folders")
    out = Path(out)
    _keep_images(jobs, out)
    ledger = Manifest(out, _key(runs, tta, threshold, tidy.text, probability))
    left = [job for job in jobs if not ledger.has(job.file, job.page, job.mask)]
    if not force:
        _keep_files(left, ledger)
    before = len(jobs) - len(left)
    if before:
        say(f"{before} of {len(jobs)} masks are there already, made by the same run and settings")
    written = {job.mask for job in jobs} - {job.mask for job in left}
    problems: list[str] = []
    images = _readable(left, runs, problems)
    monitor = DriftMonitor()
    with Progress("predicting", len(jobs), before) as progress:
        for job, p_khw in _predicted(combine_runs(runs, tta), images, monitor) if left else ():
            try:
                classes_hw = tidy(to_classes(p_khw, threshold))
                out.mkdir(parents=True, exist_ok=True)
                ledger.begin(job.mask)
                write(
                    out, job.mask, classes_hw, run.facts.label_map, p_khw if probability else None
                )
                ledger.add(job.file, job.page, job.mask)
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
    masks = tuple(out / job.mask for job in jobs if job.mask in written)
    return Written(masks, tuple(problems))


def write(
    out: Path, name: Path, classes_hw: Array, label_map: dict[int, int], p_khw: Array | None
) -> None:
    """Writes the mask out/name of class ids (H, W); given (K, H, W), also the probabilities."""
    write_png(out / name, mask_picture(classes_hw, label_map))
    if p_khw is not None:
        _write_probability(out, name, p_khw)


def file_values(label_map: dict[int, int]) -> Array:
    """For each class id the value that masks have in files (256,): the inverse of a label map.

    Where several values mean one class, the background takes the smallest, others the largest.
    """
    values = np.arange(256)
    for kind in {*label_map.values()} - {IGNORE}:
        meaning = [value for value, to in label_map.items() if to == kind]
        values[kind] = min(meaning) if kind == 0 else max(meaning)
    return values


def mask_picture(classes_hw: Array, label_map: dict[int, int]) -> Image.Image:
    """Class ids (H, W) as a picture with the values of the run's mask files."""
    values = file_values(label_map)[classes_hw]
    used = [value for value, kind in label_map.items() if kind != IGNORE]
    if max(used) >= COLOR:
        packed = np.where(values < COLOR, values * 0x010101, values)
        planes = np.stack([packed >> 16, packed >> 8, packed], axis=2) & 255
        return Image.fromarray(planes.astype(np.uint8))
    if max(used) > 255:
        return Image.fromarray(values.astype(np.uint16))
    picture = Image.fromarray(values.astype(np.uint8))
    if any(0 < value < DARK for value in used):
        # in colours: of a palette of greys readers take the greys, not the values
        picture.putpalette(palette(256).tobytes())
    return picture


@dataclass(frozen=True)
class _Job:
    """An image, and where its mask goes."""

    file: Path
    page: int | None
    """Of a TIFF of several."""
    mask: Path
    """Relative to the output folder."""


def _key(runs: Sequence[Run], *settings: object) -> str:
    """Of all that shapes what is written."""
    return hashlib.sha256(repr(([run.key for run in runs], settings)).encode()).hexdigest()


def _jobs(paths: Sequence[Path]) -> Iterator[_Job]:
    """Images with the names of their masks; no name is given twice."""
    taken: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        for file in _files(path):
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            for page in _pages(file):
                number = "" if page is None else f"_{page + 1:04}"
                target = name.with_name(f"{name.stem}{number}.png")
                if target in taken:  # a.jpg and a.png would share a.png
                    target = name.with_name(f"{name.name}{number}.png")
                while target in taken:
                    target = target.with_name(f"{target.name}.png")
                taken.add(target)
                yield _Job(file, page, target)


def _pages(file: Path) -> Iterable[int | None]:
    """The pages of a TIFF that has several."""
    if file.suffix.casefold() in (".tif", ".tiff"):
        try:
            count = count_pages(file)
        except DataError:  # told when it is read
            count = 1
        if count > 1:
            return range(count)
    return [None]


def _keep_images(jobs: Sequence[_Job], out: Path) -> None:
    images = {job.file.resolve() for job in jobs}
    for job in jobs:
        if (out / job.mask).resolve() in images:
            raise DataError(
                f"{out / job.mask} would be overwritten by its mask; give another folder for masks"
            )


def _keep_files(jobs: Sequence[_Job], ledger: Manifest) -> None:
    foreign = [job.mask for job in jobs if not ledger.ours(job.mask)]
    if foreign:
        raise DataError(
            f"{ledger.folder / foreign[0]}: {len(foreign)} files there were not written by "
            "predict, or have been changed since; give another --out, or --force to replace them"
        )


def _files(path: Path) -> list[Path]:
    """The file, or a folder's images; those that are PNG keep their names first."""
    if path.is_file():
        return [path]
    return sorted(find_images(path), key=lambda file: (file.suffix.casefold() != ".png", file))


def _readable(
    jobs: Sequence[_Job], runs: Sequence[Run], problems: list[str]
) -> Iterator[tuple[_Job, Array]]:
    for job in jobs:
        try:
            image = load_image(job.file, runs[0].facts.channels, job.page)
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


def _predicted(
    network: PredictFunction, images: Iterator[tuple[_Job, Array]], monitor: DriftMonitor
) -> Iterator[tuple[_Job, Array]]:
    waiting: list[_Job] = []

    def pixels() -> Iterator[Array]:
        for job, image in images:
            waiting.append(job)
            yield image

    for p_khw in network(pixels(), monitor):
        yield waiting.pop(0), p_khw


def _write_probability(out: Path, name: Path, p_khw: Array) -> None:
    classes = (
        {"": p_khw[0]} if len(p_khw) == 1 else {str(k): p_khw[k] for k in range(1, len(p_khw))}
    )
    for folder, p_hw in classes.items():
        deep = (np.clip(p_hw, 0, 1) * 65535).round().astype(np.uint16)
        write_png(out / PROBABILITY / folder / name, Image.fromarray(deep))
