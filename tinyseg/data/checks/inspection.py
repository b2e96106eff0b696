"""Inspect every file of a dataset by itself, so that all faults are found, not only the first."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tinyseg.common.findings import Finding, listed
from tinyseg.common.threads import Progress, in_threads
from tinyseg.config import DataConfig
from tinyseg.data.reading.cases import read_image, read_mask
from tinyseg.data.reading.fit_mask import fit_mask
from tinyseg.data.reading.label_map import check_known, in_colors
from tinyseg.data.reading.layouts import Case, Layout
from tinyseg.data.reading.mask_facts import MaskFacts, count_values, mask_facts
from tinyseg.errors import DataError

FAULTS = {
    "unreadable": (
        "files that cannot be read",
        "training would stop with an error",
        "replace them, or remove them together with their image or mask",
    ),
    "mask sizes": (
        "masks that do not fit their image",
        "mask and image pixels cannot be aligned",
        "export image and mask at the same size; resize masks with nearest-neighbor interpolation",
    ),
    "mask values": (
        "masks with values that have no class",
        "training would stop with an error",
        "give each value a class in data.labels, or ignore it (VALUE:ignore)",
    ),
}
"""What a run cannot read: the finding, why it matters, and what to do."""


DEPTHS = (
    "each depth is scaled to black and white by its own range of values",
    'if all share one scale set data.range="LOW,HIGH", e.g. data.range="0,4095"',
)
"""Of images of several depths: why it matters, and what to do."""


@dataclass
class InspectedCase:
    """What the files of one case hold."""

    case: Case
    mode: str = ""
    """How the image is stored, see `Decoded`."""
    shape: tuple[int, int, int] | None = None
    """Rows, columns, channels (1 if gray) of the image; None when it is unreadable."""
    flat: bool = False
    """Whether all pixels of the image are equal."""
    more_frames: bool = False
    """Whether a file holds more frames than the one that is used."""
    masks: list[MaskFacts] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    """A key of FAULTS and a line for each."""

    @property
    def deep(self) -> bool:
        """Whether the image is stored with more than 8 bits."""
        return self.mode.startswith(("I", "F", "16-bit")) or " x " in self.mode * (
            not self.mode.endswith("uint8")
        )

    @contextmanager
    def collect(self, fault: str) -> Iterator[None]:
        """Keep a DataError as a fault instead of raising it."""
        try:
            yield
        except DataError as error:
            self.faults.append((fault, str(error)))


def inspect_files(
    cases: Sequence[Case],
    label_map: Mapping[int, int] | None,
    progress: Progress | None = None,
    stacked: bool = False,
) -> list[InspectedCase]:
    """Decode every file of every case, in threads; check mask values if there is a label map."""
    return list(in_threads(lambda case: _inspect(case, label_map, stacked), cases, progress))


def _inspect(case: Case, label_map: Mapping[int, int] | None, stacked: bool) -> InspectedCase:
    one, orientation = InspectedCase(case), 1
    with one.collect("unreadable"):
        image, one.more_frames, one.mode, orientation = read_image(case, stacked)
        one.shape, one.flat = image.shape, bool((image == image[:1, :1]).all())
    for number, path in enumerate(case.masks):
        if case.annotation and not one.shape:
            continue  # it is drawn at the size of the image
        with one.collect("unreadable"):
            mask = read_mask(case, number, one.shape[:2] if one.shape else ())
            one.more_frames = one.more_frames or mask.more_frames
            one.masks.append(mask_facts(mask, path))
            with one.collect("mask sizes"):
                if one.shape:
                    fit_mask(mask, one.shape[:2], orientation, path, case.image)
            known = case.labels or label_map
            with one.collect("mask values"):
                if known and not in_colors(one.masks[-1:], known):
                    check_known(count_values(mask.pixels)[0].tolist(), known, path)
    return one


def file_findings(
    inspected: Sequence[InspectedCase], layout: Layout, config: DataConfig
) -> Iterator[Finding]:
    """Yield what can be said of the files without the meaning of their labels."""
    for name, (title, why, remedy) in FAULTS.items():
        lines = [line for one in inspected for fault, line in one.faults if fault == name]
        yield from listed("error", name, title, lines, why, remedy)
    unpaired = [f"image without mask: {name}" for name in layout.bare]
    unpaired += [f"mask without image: {name}" for name in layout.orphans]
    why = "every image needs a mask of the same name, all black where there is no object"
    remedy = "add or rename the missing file, or remove this one"
    yield from listed(
        "error" if config.strict else "warning",
        "pairs",
        "images without masks or masks without images, left out",
        unpaired,
        why,
        remedy,
    )
    names = _short_names(inspected)
    readable = {names[one.case.name]: one for one in inspected if one.shape}
    yield from _sizes({name: one.shape[:2] for name, one in readable.items() if one.shape}, config)
    alpha = [name for name, one in readable.items() if one.mode.endswith("A")]
    yield from listed("note", "alpha", "images with transparency, which is ignored", alpha)
    deep = [name for name, one in readable.items() if one.deep]
    title = f"images with more than 8 bits, of {len(readable)}"
    if len(deep) < len(readable):
        yield from listed("warning", "bit depths", title, deep, *DEPTHS)
    if config.color == "auto":
        yield from _colors({name: one.shape[2] for name, one in readable.items() if one.shape})
    if layout.taken:
        yield Finding("ok", "layout", layout.taken)
    yield from (Finding("note", "layout", text) for text in layout.warnings)
    flat = [name for name, one in readable.items() if one.flat]
    why = "they contain no information; often an export failed"
    remedy = "look at them; export them again or remove them"
    yield from listed(
        "warning", "flat images", "images with the same value in all pixels", flat, why, remedy
    )
    title = "files with several frames, of which only the first is used"
    frames = [names[one.case.name] for one in inspected if one.more_frames]
    remedy = (
        "set data.pages=channels if the pages of a TIFF are channels, data.pages=frames to use all"
    )
    yield from listed("note", "frames", title, frames, remedy=remedy)


def _short_names(inspected: Sequence[InspectedCase]) -> dict[str, str]:
    """Return image files by the name of their case, without the folders that all share."""
    files = [str(path) for one in inspected for path in (one.case.image, *one.case.masks)]
    root = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return {one.case.name: os.path.relpath(one.case.image, root) for one in inspected}


def _sizes(sizes: Mapping[str, tuple[int, int]], config: DataConfig) -> Iterator[Finding]:
    if not sizes:
        return
    distinct = sorted(set(sizes.values()), key=lambda size: size[0] * size[1])
    smallest, largest = (f"{rows} x {cols}" for rows, cols in (distinct[0], distinct[-1]))
    text = f"{len(distinct)} sizes, {smallest} to {largest}" if len(distinct) > 1 else smallest
    how = {"resize": "scaled to", "pad": "padded to"}.get(config.fit, "tiled by")
    text = f"{text} pixels, {how} {config.size} x {config.size}"
    yield Finding("ok", "image sizes", text)
    if config.fit == "pad":
        large = {name: size for name, size in sizes.items() if max(size) > config.size}
        lines = [f"{name}: {rows} x {cols} pixels" for name, (rows, cols) in large.items()]
        side = -(-max(map(max, distinct)) // 16) * 16
        why = "they do not fit with data.fit=pad, and training would stop with an error"
        remedy = "set data.fit=tile or resize" + f", or data.size={side}" * (side <= 4096)
        title = f"images larger than data.size={config.size}"
        yield from listed("error", "image sizes", title, lines, why, remedy)


def _colors(channels: Mapping[str, int]) -> Iterator[Finding]:
    color = [name for name, count in channels.items() if count == 3]
    gray = [name for name, count in channels.items() if count == 1]
    few, many = sorted((gray, color), key=len)
    one, other = ("gray", "color") if few is gray else ("color", "gray")
    title = f"{one} images among {len(many)} {other} ones"
    why = "data.color=auto reads all images as RGB if any has color"
    remedy = "set data.color=grey or data.color=rgb"
    if many:
        level = "note" if few is gray else "warning"
        yield from listed(level, "color", title, few, why, remedy)
