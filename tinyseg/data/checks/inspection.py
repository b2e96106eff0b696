"""Every file of a dataset looked at by itself, so that all faults are found, not only the first."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tinyseg.common.findings import Finding, listed
from tinyseg.common.threads import Progress, in_threads
from tinyseg.config import DataConfig
from tinyseg.data.reading.cases import check_same_size
from tinyseg.data.reading.decode import decode_image, decode_mask, stored_mode
from tinyseg.data.reading.label_map import MaskFacts, check_known, count_values, mask_facts
from tinyseg.data.reading.layouts import Case, Layout
from tinyseg.errors import DataError


@dataclass(frozen=True)
class Inspected:
    """What is seen of the files of one case."""

    case: Case
    mode: str = ""
    """How the image is stored, see `stored_mode`."""
    shape: tuple[int, int, int] | None = None
    """Rows, columns, channels (1 where grey) of the image."""
    flat: bool = False
    """The image has one grey throughout."""
    more_frames: bool = False
    masks: tuple[MaskFacts, ...] = ()
    unreadable: tuple[str, ...] = ()
    """A line for each file that cannot be decoded."""
    sizes: tuple[str, ...] = ()
    """A line for each mask of another size than the image."""
    values: tuple[str, ...] = ()
    """A line for each mask with values outside the label map."""

    @property
    def usable(self) -> bool:
        """Whether a run can read the case."""
        return not (self.unreadable or self.sizes or self.values)

    @property
    def deep(self) -> bool:
        """Whether the image is stored with more than 8 bits."""
        return self.mode.startswith(("I", "F", "16-bit"))


def inspect_files(
    cases: Sequence[Case], table: Mapping[int, int] | None, progress: Progress | None = None
) -> list[Inspected]:
    """Decodes every file of every case, in threads; mask values are checked by `table` if given."""
    return list(in_threads(lambda case: _inspect(case, table), cases, progress))


def _inspect(case: Case, table: Mapping[int, int] | None) -> Inspected:
    unreadable, sizes, values, masks = list[str](), list[str](), list[str](), list[MaskFacts]()
    more_frames, flat, mode, shape = False, False, "", None
    try:
        mode = stored_mode(case.image)
        image, more_frames = decode_image(case.image, case.page)
        shape, flat = image.shape, bool((image == image[:1, :1]).all())
    except DataError as error:
        unreadable.append(str(error))
    for path in case.masks:
        try:
            mask, more = decode_mask(path, case.page)
        except DataError as error:
            unreadable.append(str(error))
            continue
        more_frames = more_frames or more
        masks.append(mask_facts(mask, path))
        sizes += _fault(check_same_size, case, shape[:2], path, mask.shape) if shape else []
        known = case.labels or table
        values += _fault(check_known, count_values(mask)[0].tolist(), known, path) if known else []
    faults = (tuple(unreadable), tuple(sizes), tuple(values))
    return Inspected(case, mode, shape, flat, more_frames, tuple(masks), *faults)


def _fault(check: Callable[..., object], *arguments: object) -> list[str]:
    try:
        check(*arguments)
    except DataError as error:
        return [str(error)]
    return []


def file_findings(seen: Sequence[Inspected], layout: Layout, config: DataConfig) -> list[Finding]:
    """What the files say, without what their labels mean."""
    names = _short_names(seen)
    return [
        *_unusable(seen),
        *_unpaired(layout),
        *_shapes(seen, names, config),
        *_modes(seen, names, config),
        *(Finding("note", "layout", text) for text in layout.warnings),
        *listed(
            "warning",
            "flat images",
            "images of one grey throughout",
            [names[one.case.name] for one in seen if one.flat],
            "there is nothing to see in them; often an export that failed",
            "look at them; export them anew or remove them",
        ),
        *listed(
            "note",
            "frames",
            "files of several frames, of which the first is used",
            [names[one.case.name] for one in seen if one.more_frames],
            remedy="save the frames as files of their own if they are meant to be used",
        ),
    ]


def _short_names(seen: Sequence[Inspected]) -> dict[str, str]:
    """Image files by the name of their case, without the folders that all have in common."""
    files = [str(path) for one in seen for path in (one.case.image, *one.case.masks)]
    root = os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    return {one.case.name: os.path.relpath(one.case.image, root) for one in seen}


def _unusable(seen: Sequence[Inspected]) -> list[Finding]:
    return [
        *listed(
            "error",
            "unreadable",
            "files that cannot be read",
            [text for one in seen for text in one.unreadable],
            "a run stops before it starts",
            "replace them, or remove them together with their image or mask",
        ),
        *listed(
            "error",
            "mask sizes",
            "masks of another size than their image",
            [text for one in seen for text in one.sizes],
            "nobody knows which pixel of the mask belongs to which of the image",
            "export image and mask at one size; never scale a mask with smoothing",
        ),
        *listed(
            "error",
            "mask values",
            "masks with values that no class is given for",
            [text for one in seen for text in one.values],
            "a run stops before it starts",
            "give each value a class in data.labels, or ignore it (VALUE:ignore)",
        ),
    ]


def _unpaired(layout: Layout) -> list[Finding]:
    evidence = [f"image without mask: {name}" for name in layout.bare]
    evidence += [f"mask without image: {name}" for name in layout.orphans]
    return listed(
        "error",
        "pairs",
        "files without a partner",
        evidence,
        "every image needs a mask of the same name, all black where there is no object",
        "add or rename the partner, or move the file away",
    )


def _shapes(
    seen: Sequence[Inspected], names: Mapping[str, str], config: DataConfig
) -> list[Finding]:
    shapes = [(names[one.case.name], one.shape) for one in seen if one.shape]
    if not shapes:
        return []
    sizes = sorted({shape[:2] for _, shape in shapes}, key=lambda size: size[0] * size[1])
    text = " x ".join(map(str, sizes[0]))
    if len(sizes) > 1:
        text = f"{len(sizes)} sizes, {text} to {' x '.join(map(str, sizes[-1]))}"
    how = {"resize": "scaled", "pad": "padded", "tile": "seen through windows"}[config.fit]
    how += f" {'of' if config.fit == 'window' else 'to'} {config.size} x {config.size}"
    large = [
        f"{path}: {rows} x {columns} pixels"
        for path, (rows, columns, _) in shapes
        if config.fit == "pad" and max(rows, columns) > config.size
    ]
    side = -(-max(max(size) for size in sizes) // 16) * 16
    enlarge = f", or data.size={side}" if side <= 4096 else ""
    return [
        Finding("ok", "image sizes", f"{text} pixels, {how}"),
        *listed(
            "error",
            "image sizes",
            f"images larger than data.size={config.size}",
            large,
            "data.fit=pad keeps the scale, so they do not fit and a run stops",
            f"set data.fit=tile or resize{enlarge}",
        ),
    ]


def _modes(
    seen: Sequence[Inspected], names: Mapping[str, str], config: DataConfig
) -> list[Finding]:
    readable = [one for one in seen if one.shape]
    deep = [names[one.case.name] for one in readable if one.deep]
    eight = [names[one.case.name] for one in readable if not one.deep]
    colour = [names[one.case.name] for one in readable if one.shape and one.shape[2] == 3]
    grey = [names[one.case.name] for one in readable if one.shape and one.shape[2] == 1]
    few, many = sorted((grey, colour), key=len)
    word = "grey" if few is grey else "coloured"
    return [
        *listed(
            "note",
            "alpha",
            "images with transparency, which is left out",
            [names[one.case.name] for one in readable if one.mode.endswith("A")],
        ),
        *listed(
            "warning",
            "bit depths",
            f"images with more than 8 bits, of {len(readable)}",
            deep if eight else [],
            "each is read as 0 to 1 of its range: a camera's 12 of 16 bits look dark beside 8 bits",
            "convert all to one depth",
        ),
        *listed(
            "note" if few is grey else "warning",
            "colour",
            f"{word} images among {len(many)} that are not",
            few if many and config.color == "auto" else [],
            "with data.color=auto one coloured image makes all be read as RGB",
            "set data.color=grey or data.color=rgb to decide it",
        ),
    ]
