"""Inspect every file of a dataset by itself, so that all faults are found, not only the first."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tinyseg.common.findings import Finding, listed
from tinyseg.common.threads import Progress, in_threads
from tinyseg.config import DataConfig
from tinyseg.data.reading.cases import check_same_size
from tinyseg.data.reading.decode import decode_image, decode_mask, stored_mode
from tinyseg.data.reading.label_map import MaskFacts, check_known, count_values, mask_facts
from tinyseg.data.reading.layouts import Case, Layout
from tinyseg.errors import DataError

FAULTS = {
    "unreadable": (
        "files that cannot be read",
        "a run stops before it starts",
        "replace them, or remove them together with their image or mask",
    ),
    "mask sizes": (
        "masks of another size than their image",
        "mask and image pixels cannot be aligned",
        "export image and mask at one size; never scale a mask with smoothing",
    ),
    "mask values": (
        "masks with values that have no class",
        "a run stops before it starts",
        "give each value a class in data.labels, or ignore it (VALUE:ignore)",
    ),
}
"""What a run cannot read: the finding, why it matters, and what to do."""


@dataclass
class InspectedCase:
    """What the files of one case hold."""

    case: Case
    mode: str = ""
    """How the image is stored, see `stored_mode`."""
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
        return self.mode.startswith(("I", "F", "16-bit"))

    @contextmanager
    def collect(self, fault: str) -> Iterator[None]:
        """Keep a DataError as a fault instead of raising it."""
        try:
            yield
        except DataError as error:
            self.faults.append((fault, str(error)))


def inspect_files(
    cases: Sequence[Case], label_map: Mapping[int, int] | None, progress: Progress | None = None
) -> list[InspectedCase]:
    """Decode every file of every case, in threads; check mask values if there is a label map."""
    return list(in_threads(lambda case: _inspect(case, label_map), cases, progress))


def _inspect(case: Case, label_map: Mapping[int, int] | None) -> InspectedCase:
    one = InspectedCase(case)
    with one.collect("unreadable"):
        one.mode = stored_mode(case.image)
        image, one.more_frames = decode_image(case.image, case.page)
        one.shape, one.flat = image.shape, bool((image == image[:1, :1]).all())
    for path in case.masks:
        with one.collect("unreadable"):
            mask, more_frames = decode_mask(path, case.page)
            one.more_frames = one.more_frames or more_frames
            one.masks.append(mask_facts(mask, path))
            with one.collect("mask sizes"):
                if one.shape:
                    check_same_size(case, one.shape[:2], path, mask.shape)
            known = case.labels or label_map
            with one.collect("mask values"):
                if known:
                    check_known(count_values(mask)[0].tolist(), known, path)
    return one


def file_findings(
    inspected: Sequence[InspectedCase], layout: Layout, config: DataConfig
) -> list[Finding]:
    """Return what can be said of the files without the meaning of their labels."""
    names = _short_names(inspected)
    readable = [one for one in inspected if one.shape]

    def where(condition: Callable[[InspectedCase], bool]) -> list[str]:
        return [names[one.case.name] for one in readable if condition(one)]

    faults = [fault for one in inspected for fault in one.faults]
    return [
        *(
            finding
            for name, (title, why, remedy) in FAULTS.items()
            for finding in listed(
                "error", name, title, [line for fault, line in faults if fault == name], why, remedy
            )
        ),
        *listed(
            "error",
            "pairs",
            "files without a partner",
            [f"image without mask: {name}" for name in layout.bare]
            + [f"mask without image: {name}" for name in layout.orphans],
            "every image needs a mask of the same name, all black where there is no object",
            "add or rename the partner, or move the file away",
        ),
        *_sizes(readable, names, config),
        *listed(
            "note",
            "alpha",
            "images with transparency, which is left out",
            where(lambda one: one.mode.endswith("A")),
        ),
        *listed(
            "warning",
            "bit depths",
            f"images with more than 8 bits, of {len(readable)}",
            where(lambda one: one.deep) if any(not one.deep for one in readable) else [],
            "each is read as 0 to 1 of its range: 12 bits stored in 16 look dark next to 8 bits",
            "convert all to one depth",
        ),
        *(_colors(where) if config.color == "auto" else []),
        *(Finding("note", "layout", text) for text in layout.warnings),
        *listed(
            "warning",
            "flat images",
            "images of one gray throughout",
            where(lambda one: one.flat),
            "they show nothing; often an export failed",
            "look at them; export them again or remove them",
        ),
        *listed(
            "note",
            "frames",
            "files of several frames, of which the first is used",
            [names[one.case.name] for one in inspected if one.more_frames],
            remedy="save the frames as files of their own if they are meant to be used",
        ),
    ]


def _short_names(inspected: Sequence[InspectedCase]) -> dict[str, str]:
    """Return image files by the name of their case, without the folders that all share."""
    files = [str(path) for one in inspected for path in (one.case.image, *one.case.masks)]
    root = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return {one.case.name: os.path.relpath(one.case.image, root) for one in inspected}


def _sizes(
    readable: Sequence[InspectedCase], names: Mapping[str, str], config: DataConfig
) -> list[Finding]:
    sizes = {names[one.case.name]: one.shape[:2] for one in readable if one.shape}
    if not sizes:
        return []
    distinct = sorted(set(sizes.values()), key=lambda size: size[0] * size[1])
    smallest, largest = (f"{rows} x {cols}" for rows, cols in (distinct[0], distinct[-1]))
    text = f"{len(distinct)} sizes, {smallest} to {largest}" if len(distinct) > 1 else smallest
    how = {"resize": "scaled to", "pad": "padded to"}.get(config.fit, "tiled by")
    longest = max(max(size) for size in distinct)
    side = -(-longest // 16) * 16
    return [
        Finding("ok", "image sizes", f"{text} pixels, {how} {config.size} x {config.size}"),
        *listed(
            "error",
            "image sizes",
            f"images larger than data.size={config.size}",
            [
                f"{path}: {rows} x {cols} pixels"
                for path, (rows, cols) in sizes.items()
                if config.fit == "pad" and max(rows, cols) > config.size
            ],
            "data.fit=pad keeps the scale, so they do not fit and a run stops",
            "set data.fit=tile or resize" + f", or data.size={side}" * (side <= 4096),
        ),
    ]


def _colors(where: Callable[[Callable[[InspectedCase], bool]], list[str]]) -> list[Finding]:
    color = where(lambda one: one.shape is not None and one.shape[2] == 3)
    gray = where(lambda one: one.shape is not None and one.shape[2] == 1)
    few, many = sorted((gray, color), key=len)
    return listed(
        "note" if few is gray else "warning",
        "color",
        f"{'gray' if few is gray else 'color'} images among {len(many)} that are not",
        few if many else [],
        "with data.color=auto one color image makes all be read as RGB",
        "set data.color=grey or data.color=rgb to decide it",
    )
