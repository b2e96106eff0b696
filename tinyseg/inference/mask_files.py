"""Masks and probabilities as image files, with the values of the masks a run was trained on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tinyseg.common.arrays import Array
from tinyseg.common.files import write_atomic
from tinyseg.config import IGNORE
from tinyseg.data.reading.label_map import ANY, value_text
from tinyseg.data.reading.mask_pixels import COLOR, is_color
from tinyseg.drawing.pictures import palette, write_png

PROBABILITY = "probability"
"""The folder of the probabilities, inside that of the masks."""
CLASSES = "classes.txt"
"""Which class each value of the masks is."""
DARK = 64
"""Grays below this look black."""


def write_mask(
    out: Path, name: Path, classes_hw: Array, label_map: dict[int, int], p_khw: Array | None = None
) -> None:
    """Write the mask out/name of class ids (H, W), and the probabilities (K, H, W) if any."""
    write_png(out / name, mask_picture(classes_hw, label_map))
    if p_khw is None:
        return
    foreground = {"": 0} if len(p_khw) == 1 else {str(k): k for k in range(1, len(p_khw))}
    for folder, channel in foreground.items():
        deep = (np.clip(p_khw[channel], 0, 1) * 65535).round().astype(np.uint16)
        write_png(out / PROBABILITY / folder / name, Image.fromarray(deep))


def write_class_names(
    out: Path, class_names: Sequence[str], label_map: dict[int, int], force: bool
) -> None:
    """Write out/classes.txt, "value name" on each line, if classes have names of their own.

    A file that is there stays without `force`.
    """
    if not class_names or list(class_names) == [f"class {k}" for k in range(len(class_names))]:
        return
    values = file_values(label_map)
    lines = (f"{value_text(int(values[k]))} {name}\n" for k, name in enumerate(class_names))
    if force or not (out / CLASSES).exists():
        write_atomic(out / CLASSES, "".join(lines))


def file_values(label_map: dict[int, int]) -> Array:
    """Return the value that masks have in files for each class id (256,): the inverse label map.

    Where several values mean one class, the background takes the smallest, others the largest; the
    class of all other values ("*") takes 0 or 255. Class ids stand for numbers beyond 16 bits.
    """
    values, named = np.arange(256), [value for value in label_map if value != ANY]
    for class_id in {*label_map.values()} - {IGNORE}:
        same = [value for value in named if label_map[value] == class_id]
        same = same or [next(v for v in (255 * (class_id > 0), *range(256)) if v not in named)]
        values[class_id] = min(same) if class_id == 0 else max(same)
    deep = any(value > 65535 and not is_color(value) for value in values.tolist())
    return np.arange(256) if deep else values


def mask_picture(classes_hw: Array, label_map: dict[int, int]) -> Image.Image:
    """Return class ids (H, W) as a picture with the values of the run's mask files."""
    by_class = file_values(label_map)
    values, used = by_class[classes_hw], by_class[sorted({*label_map.values()} - {IGNORE})]
    if max(used) >= COLOR:
        packed = np.where(values < COLOR, values * 0x010101, values)
        planes = np.stack([packed >> 16, packed >> 8, packed], axis=2) & 255
        return Image.fromarray(planes.astype(np.uint8))
    if max(used) > 255:
        return Image.fromarray(values.astype(np.uint16))
    picture = Image.fromarray(values.astype(np.uint8))
    if any(0 < value < DARK for value in used):
        # in colors: of a palette of grays readers take the grays, not the values
        picture.putpalette(palette(256).tobytes())
    return picture
