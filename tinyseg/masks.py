"""Predictions as files: masks with the values of the run's own masks, names kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinyseg.backend import Array
from tinyseg.config import IGNORE
from tinyseg.data import Watch, load_image
from tinyseg.data.decode import COLOUR
from tinyseg.data.fit import box_of
from tinyseg.data.layout import find_images
from tinyseg.errors import DataError, TinysegError
from tinyseg.pictures import palette, write_png
from tinyseg.predict import to_classes
from tinyseg.progress import Progress
from tinyseg.run import Run

PROBABILITY = "probability"
"""The folder of the probabilities, inside that of the masks."""
DARK = 64
"""Greys below this are taken for black by the eye."""


@dataclass(frozen=True)
class Written:
    """What `predict` did."""

    masks: tuple[Path, ...]
    problems: tuple[str, ...]
    """A line for each image that could not be used."""


def predict(
    run: Run,
    paths: Sequence[str | Path],
    out: str | Path,
    probability: bool = False,
    say: Callable[[str], None] = print,
    threshold: float | None = None,
) -> Written:
    """Writes a mask (PNG) for each image file, or for each image in a folder, into `out`.

    Masks have the image's size and the values of the masks the run was trained on, so that they
    can stand in for them; small values get a palette, so that no prediction looks black. With
    `probability`, 16-bit pictures of it are added in the folder probability/ (one folder more for
    each of several foreground classes). `threshold` replaces the run's. An image that cannot be
    used is reported and left out; DataError when there is no other, and when a mask would overwrite
    an image.
    """
    threshold = run.threshold_or(threshold)
    jobs = list(_jobs([Path(path) for path in paths]))
    if not jobs:
        raise DataError(f"{', '.join(map(str, paths))}: no image there; give files or folders")
    _keep_images(jobs, Path(out))
    written: list[Path] = []
    problems: list[str] = []
    images = _readable(jobs, run, problems)
    watch = Watch()
    with Progress("predicting", len(jobs)) as progress:
        for name, p_khw in _predicted(run, images, watch):
            try:
                written.append(_write(run, Path(out), name, p_khw, threshold, probability))
            except OSError as error:
                problems.append(f"{Path(out) / name}: cannot be written ({error.strerror})")
            progress.update(len(written) + len(problems))
    for problem in problems:
        say(f"left out: {problem}")
    if unlike := watch.warning(run.facts.contract):
        say(f"warning: {unlike}")
    if not written:
        raise DataError(f"none of {len(jobs)} images can be used; the first: {problems[0]}")
    return Written(tuple(written), tuple(problems))


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
    if max(used) >= COLOUR:
        packed = np.where(values < COLOUR, values * 0x010101, values)
        planes = np.stack([packed >> 16, packed >> 8, packed], axis=2) & 255
        return Image.fromarray(planes.astype(np.uint8))
    if max(used) > 255:
        return Image.fromarray(values.astype(np.uint16))
    picture = Image.fromarray(values.astype(np.uint8))
    if any(0 < value < DARK for value in used):
        # in colours: of a palette of greys readers take the greys, not the values
        picture.putpalette(palette(256).tobytes())
    return picture


def _jobs(paths: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Image files with the names of their masks, relative to the output folder."""
    taken: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        for file in _files(path):
            name = file.relative_to(path) if path.is_dir() else Path(file.name)
            target = name.with_suffix(".png")
            if target in taken:  # a.jpg and a.png would share a.png
                target = name.with_name(f"{name.name}.png")
            while target in taken:
                target = target.with_name(f"{target.name}.png")
            taken.add(target)
            yield file, target


def _keep_images(jobs: Sequence[tuple[Path, Path]], out: Path) -> None:
    images = {file.resolve() for file, _ in jobs}
    for _, target in jobs:
        if (out / target).resolve() in images:
            raise DataError(
                f"{out / target} would be overwritten by its mask; give another folder for masks"
            )


def _files(path: Path) -> list[Path]:
    """The file, or a folder's images; those that are PNG keep their names first."""
    if path.is_file():
        return [path]
    return sorted(find_images(path), key=lambda file: (file.suffix.casefold() != ".png", file))


Image3 = tuple[Path, Array]


def _readable(jobs: Sequence[tuple[Path, Path]], run: Run, problems: list[str]) -> Iterator[Image3]:
    data = run.config.data
    for file, target in jobs:
        try:
            image = load_image(file, run.facts.channels)
        except TinysegError as error:
            problems.append(str(error))
            continue
        try:
            box_of(image.shape[0], image.shape[1], data.size, data.fit)
        except TinysegError as error:
            problems.append(f"{file}: {error}")
            continue
        yield target, image


def _predicted(run: Run, images: Iterator[Image3], watch: Watch) -> Iterator[tuple[Path, Array]]:
    waiting: list[Path] = []

    def pixels() -> Iterator[Array]:
        for name, image in images:
            waiting.append(name)
            yield image

    for p_khw in run.predictor(pixels(), watch):
        yield waiting.pop(0), p_khw


def _write(
    run: Run, out: Path, name: Path, p_khw: Array, threshold: float, probability: bool
) -> Path:
    classes_hw = to_classes(p_khw, threshold)
    write_png(out / name, mask_picture(classes_hw, run.facts.label_map))
    if probability:
        _write_probability(out, name, p_khw)
    return out / name


def _write_probability(out: Path, name: Path, p_khw: Array) -> None:
    classes = (
        {"": p_khw[0]} if len(p_khw) == 1 else {str(k): p_khw[k] for k in range(1, len(p_khw))}
    )
    for folder, p_hw in classes.items():
        deep = (np.clip(p_hw, 0, 1) * 65535).round().astype(np.uint16)
        write_png(out / PROBABILITY / folder / name, Image.fromarray(deep))
