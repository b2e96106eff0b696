"""Check what the labels of a dataset hold."""

from collections.abc import Iterator, Mapping

import numpy as np

from tinyseg.common.findings import Finding, listed
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.resize import prepare_label
from tinyseg.data.reading.label_map import is_foreground, ranges_text

RARE = 0.01
"""Share of foreground below which a plain loss may learn to predict nothing."""
GUESS = "decided from the masks alone, so it could be wrong"

Pixels = Mapping[str, Mapping[int, int]]
"""For each image the number of pixels of each class id in its label."""


def pixels_of(dataset: Dataset) -> Pixels:
    """Return the pixels of each class, for each image."""
    return {name: dataset.class_pixels(index) for index, name in enumerate(dataset.names)}


def foreground_share(counts: Mapping[int, int]) -> float:
    """Return the share of foreground among the pixels that are not ignored."""
    valid = sum(count for class_id, count in counts.items() if class_id != IGNORE)
    return (valid - counts.get(0, 0)) / valid if valid else 0.0


def class_name(dataset: Dataset, class_id: int) -> str:
    """Return "class 1 lesion", "class 1" if it has no name, or "ignored"."""
    if class_id == IGNORE:
        return "ignored"
    name = dataset.class_names[class_id]
    return name if name == f"class {class_id}" else f"class {class_id} {name}"


def label_findings(dataset: Dataset, config: DataConfig) -> Iterator[Finding]:
    """Yield what the labels hold, and what was decided about them."""
    for text in dataset.label_warnings:
        seen, _, remedy = text.partition("; ")
        yield Finding("warning", "labels", seen, GUESS, remedy)
    yield from (Finding("note", "labels", text) for text in dataset.label_notes)
    pixels = pixels_of(dataset)
    yield _classes(dataset, pixels)
    shares = {name: foreground_share(counts) for name, counts in pixels.items()}
    empty = [name for name, share in shares.items() if not share]
    title, level, why, remedy = f"masks without foreground, of {len(pixels)}", "note", "", ""
    if len(empty) > len(pixels) / 2:
        level, why = "warning", "most training steps contain only background"
        remedy = "check whether objects are lost; if not, remove some masks"
    yield from listed(level, "empty masks", title, empty, why, remedy)
    ignored = [name for name, counts in pixels.items() if set(counts) == {IGNORE}]
    title, remedy = "masks in which every pixel is ignored", "check data.labels, or remove them"
    why = "they do not contribute to training or scores"
    yield from listed("warning", "ignored masks", title, ignored, why, remedy)
    full = [name for name, share in shares.items() if share == 1 and dataset.classes == 2]
    level = "error" if len(full) == len(pixels) else "warning"
    why = "often a mask that was exported without its background, or one of several values (a "
    why += "trimap of 1, 2 and 3) that is read as if all above 0 were one class"
    remedy = 'look at them; give each value its class, e.g. data.labels="1:1,2:0,3:ignore"'
    yield from listed(
        level, "full masks", "masks in which every pixel is foreground", full, why, remedy
    )
    title = f"masks that lose all objects when scaled to data.size={config.size}"
    lost, why = _lost(dataset, shares, config), "the network is trained to predict background there"
    yield from listed("warning", "lost objects", title, lost, why, "raise data.size")
    yield from _foreground(float(np.mean([*shares.values()])))


def _classes(dataset: Dataset, pixels: Pixels) -> Finding:
    total = max(1, sum(sum(counts.values()) for counts in pixels.values()))
    lines = []
    for class_id in (*range(dataset.classes), IGNORE):
        count = sum(counts.get(class_id, 0) for counts in pixels.values())
        masks = sum(class_id in counts for counts in pixels.values())
        some = ranges_text([value for value, c in dataset.label_map.items() if c == class_id])
        where = f"{count / total:.2%} of the pixels, in {masks} of {len(pixels)} masks"
        if class_id != IGNORE or count:
            lines.append(f"{class_name(dataset, class_id)} (mask value {some}): {where}")
    return Finding("ok", "classes", f"{dataset.classes} classes", evidence=tuple(lines))


def _lost(dataset: Dataset, shares: Mapping[str, float], config: DataConfig) -> Iterator[str]:
    for name, share in shares.items():
        # only what is small is looked at: fewer than 16 pixels are left of its area
        if config.fit == "resize" and 0 < share * config.size**2 < 16:
            label = dataset[name].label
            assert label is not None  # it has foreground
            if not is_foreground(prepare_label(label, config.size, config.fit)).any():
                yield name


def _foreground(share: float) -> Iterator[Finding]:
    if 0 < share < RARE:
        seen = f"{share:.2%} of the pixels are foreground"
        why = "cross-entropy alone may learn to predict nothing"
        remedy = 'keep the default loss, which has a Dice term, or set train.loss="focal_tversky"'
        yield Finding("note", "foreground", seen, why, remedy)
