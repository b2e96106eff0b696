"""Faults of images, masks and their way to the network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fault import CONFIG, Fault, cells
from PIL import Image

from tinyseg.doctor import Project
from tinyseg.inference.predictor import Predictor
from tinyseg.models import UNet

Array = np.ndarray[Any, np.dtype[Any]]


def masks(folder: Path) -> list[Path]:
    return sorted((folder / "masks").iterdir())


def change(
    folder: Path, function: Callable[[Array], Array], every: int = 1, first: int = 0
) -> None:
    """Rewrites masks."""
    for path in masks(folder)[first::every]:
        Image.fromarray(function(np.array(Image.open(path)))).save(path)


def broken(
    function: Callable[[Array], Array], *settings: str, every: int = 1
) -> Callable[[Path], Project]:
    def plant(folder: Path) -> Project:
        change(cells(folder), function, every)
        return Project(folder, CONFIG.override(settings))

    return plant


def settings(*texts: str) -> Callable[[Path], Project]:
    return lambda folder: Project(cells(folder), CONFIG.override(texts))


def with_pipeline(
    pipeline: Callable[[Array, Array], tuple[Array, Array]],
) -> Callable[[Path], Project]:
    return lambda folder: Project(cells(folder), CONFIG, pipeline=pipeline)


def shuffled(folder: Path) -> Project:
    paths = masks(cells(folder))
    contents = [path.read_bytes() for path in paths]
    order = np.random.default_rng(3).permutation(len(paths))
    for path, place in zip(paths, order, strict=True):
        path.write_bytes(contents[place])
    return Project(folder, CONFIG)


def some_swapped(folder: Path) -> Project:
    """Names that sort 1, 10, 2: six masks stand one place further."""
    paths = masks(cells(folder))[4:10]
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    return Project(folder, CONFIG)


def blended(mask: Array) -> Array:
    """As a bilinear resize to half and back leaves it: grey edges."""
    image, (height, width) = Image.fromarray(mask), mask.shape
    half = image.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
    return np.array(half.resize((width, height), Image.Resampling.BILINEAR))


def bilinear(image: Array, label: Array) -> tuple[Array, Array]:
    """A resize by 1.5 and back to size, smooth for the label too."""
    size = label.shape[0]
    big = Image.fromarray(label).resize((size * 3 // 2,) * 2, Image.Resampling.BILINEAR)
    return image, np.array(big.resize((size, size), Image.Resampling.BILINEAR))


def split_file(folder: Path, train: list[str], val: list[str]) -> str:
    path = folder.parent / f"{folder.name}-split.json"
    path.write_text(json.dumps({"train": train, "val": val}))
    return f"data.split_file={path}"


def copy(folder: Path, name: str, other: str) -> None:
    for part in ("images", "masks"):
        (source,) = (folder / part).glob(f"{name}.*")
        shutil.copy(source, source.with_name(f"{other}{source.suffix}"))


def names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "images").iterdir())


def leaked(folder: Path) -> Project:
    """Three training images lie among the validation images too."""
    known = names(cells(folder))
    for name in known[:3]:
        copy(folder, name, f"copy_{name}")
    train, val = known[:24], [*known[24:], *(f"copy_{name}" for name in known[:3])]
    return Project(folder, CONFIG.override([split_file(folder, train, val)]))


def validated_on_training(folder: Path) -> Project:
    known = names(cells(folder))
    for name in known[:8]:
        copy(folder, name, f"val_{name}")
    val = [f"val_{name}" for name in known[:8]]
    return Project(folder, CONFIG.override([split_file(folder, known, val)]))


def one_image(folder: Path) -> Project:
    known = names(cells(folder))
    for name in known[1:]:
        copy(folder, known[0], name)
    train, val = known[:24], known[24:]
    return Project(folder, CONFIG.override([split_file(folder, train, val)]))


def not_a_number(folder: Path) -> Project:
    path = sorted((cells(folder) / "images").iterdir())[5]
    grey = np.array(Image.open(path).convert("L")).astype(np.float32) / 255
    grey[10:14, 10:14] = np.nan
    path.unlink()
    Image.fromarray(grey).save(path.with_suffix(".tif"))
    return Project(folder, CONFIG)


def normalised_in_training_only(folder: Path) -> Project:
    data, model = cells(folder), UNet(3, 1, base_channels=8, depth=1)
    raw = Project(data, CONFIG.override(["data.normalize=none"])).input_pipeline
    return Project(data, CONFIG, model=model, predictor=Predictor(model, raw))


def cropped(share: float) -> Callable[[Path], Project]:
    """Images are cut to their middle and resized, masks are not."""

    def plant(folder: Path) -> Project:
        for path in (cells(folder) / "images").iterdir():
            image = Image.open(path)
            edge = round(image.width * (1 - share) / 2)
            box = (edge, edge, image.width - edge, image.height - edge)
            image.crop(box).resize(image.size).save(path)
        return Project(folder, CONFIG)

    return plant


def letterboxed(folder: Path) -> Project:
    """Images keep their aspect between bars, masks are stretched over them."""
    for path in (cells(folder) / "images").iterdir():
        image = Image.open(path)
        whole = Image.new(image.mode, image.size)
        flat = image.resize((image.width, image.height * 2 // 3))
        whole.paste(flat, (0, image.height // 6))
        whole.save(path)
    return Project(folder, CONFIG)


FAULTS = [
    Fault("shuffled masks", "shuffled", shuffled),
    Fault("some masks swapped", "shuffled", some_swapped),
    Fault(
        "masks flipped by augmentation", "alignment", with_pipeline(lambda x, y: (x, y[:, ::-1]))
    ),
    Fault("images flipped by augmentation", "alignment", with_pipeline(lambda x, y: (x[::-1], y))),
    Fault("masks blended by a bilinear resize", "labels", broken(blended)),
    Fault("masks blended in the pipeline", "alignment", with_pipeline(bilinear)),
    Fault("inverted masks", "inverted", broken(lambda mask: 255 - mask)),
    Fault("every third mask inverted", "inverted", broken(lambda mask: 255 - mask, every=3)),
    Fault("shifted masks", "moved", broken(lambda mask: np.roll(mask, (4, -3), (0, 1)))),
    Fault("flipped masks", "moved", broken(lambda mask: mask[:, ::-1])),
    Fault("images cropped, masks not", "scaled", cropped(0.7)),
    Fault("images letterboxed, masks not", "scaled", letterboxed),
    Fault("255 as class id", "labels", settings("data.labels=0:0,1:1,255:ignore")),
    Fault(
        "trimap read as binary",
        "full masks",
        broken(lambda mask: np.where(mask > 0, 1, 2).astype(np.uint8), "data.labels=0:0,1-255:1"),
    ),
    Fault("all masks empty", "labels", broken(lambda mask: mask * 0)),
    Fault(
        "images of 0..255", "input range", settings("data.normalize=fixed(mean=[0],std=[0.0039])")
    ),
    Fault("normalised in training only", "prediction", normalised_in_training_only),
    Fault("duplicates across the split", "leak", leaked),
    Fault("validation on the training images", "val in train", validated_on_training),
    Fault("NaN in one image", "unreadable", not_a_number),
    Fault("one image repeated", "one image", one_image),
]
