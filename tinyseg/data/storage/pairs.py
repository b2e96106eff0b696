"""Write samples as a folder of PNG pairs that `Dataset` reads back."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tinyseg.common.threads import Progress
from tinyseg.data.sample import Sample, name_some
from tinyseg.errors import DataError

_LIST = ".tinyseg-pairs.json"


def write_pairs(
    samples: Sequence[Sample], out: str | Path, progress: Progress | None = None
) -> None:
    """Write out/images/NAME.png and out/masks/NAME.png: 0/255 for two classes, else class ids.

    All files are written to a temporary folder first, so that `out` is whole or untouched.
    DataError when `out` holds anything that an earlier call did not write.
    """
    out = Path(out)
    _refuse_others(out)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_all(samples, partial, progress)
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}); choose another") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse_others(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is a file; give the name of a new folder")
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    others = sorted(present - _own_files(out / _LIST) - {_LIST})
    if others:
        raise DataError(
            f"{out}: holds files that are not from an earlier simulation: {name_some(others)}; "
            "give the name of a new folder"
        )


def _own_files(listing: Path) -> set[str]:
    try:
        names = json.loads(listing.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {str(name) for name in names} if isinstance(names, list) else set()


def _write_all(samples: Sequence[Sample], folder: Path, progress: Progress | None) -> None:
    binary = all(_binary(sample.label) for sample in samples)
    files = []
    for done, sample in enumerate(samples):
        files += [f"images/{sample.name}.png"]
        _write(_picture(sample.image), folder / files[-1])
        if sample.label is not None:
            files += [f"masks/{sample.name}.png"]
            label = sample.label * np.uint8(255) if binary else sample.label
            _write(Image.fromarray(label), folder / files[-1])
        if progress:
            progress(done + 1, len(samples))
    (folder / _LIST).write_text(json.dumps(files), encoding="utf-8")


def _binary(label: np.ndarray | None) -> bool:
    return label is None or bool(label.max(initial=0) <= 1)


def _picture(image_hwc: np.ndarray) -> Image.Image:
    if image_hwc.dtype != np.uint8:
        image_hwc = np.floor(image_hwc * 65535 + 0.5).astype(np.uint16)
    return Image.fromarray(image_hwc[..., 0] if image_hwc.shape[2] == 1 else image_hwc)


def _write(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
