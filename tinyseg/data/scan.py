"""One pass over all files of a folder: every bad file is found before training, not in hour 3."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.decode import decode_image, decode_mask
from tinyseg.data.duplicates import Duplicate, find_duplicates, thumbnail
from tinyseg.data.labels import MaskFacts, apply_label_map, mask_facts
from tinyseg.data.layout import Case
from tinyseg.data.sample import name_some
from tinyseg.errors import DataError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CaseFacts:
    """What a scan keeps of one case; the pixels are let go."""

    case: Case
    grey: bool
    digest: bytes
    """Of the decoded pixels: equal for the same image in two files."""
    masks: tuple[MaskFacts, ...]
    """Counts of mask values; of class ids when the label map is known."""
    more_frames: bool
    thumbnail: np.ndarray = field(compare=False)
    """Small and grey, see `duplicates.thumbnail`."""

    def class_pixels(self, table: Mapping[int, int]) -> dict[int, int]:
        """Pixels of each class id (255 = ignored), given what the counts mean.

        Of several masks the objects are added up, and background is what they leave.
        """
        pixels: dict[int, int] = {}
        for mask in self.masks:
            for value, count in mask.counts.items():
                if table[value]:
                    pixels[table[value]] = pixels.get(table[value], 0) + count
        rest = self.pixels - sum(pixels.values())
        return {0: rest, **pixels} if rest > 0 else pixels

    def foreground(self, table: Mapping[int, int]) -> int:
        """Pixels of a class other than background and ignored, given what the counts mean."""
        return sum(n for kind, n in self.class_pixels(table).items() if kind not in (0, IGNORE))

    @property
    def pixels(self) -> int:
        """Pixels of the image, if it has a mask."""
        return sum(self.masks[0].counts.values()) if self.masks else 0


def scan_cases(
    cases: Sequence[Case], table: Mapping[int, int] | None, progress: Progress | None
) -> list[CaseFacts]:
    """Decodes every file once, in threads; checks sizes, and mask values when `table` is given.

    DataError for the first case that cannot be used, with the number and names of the others.
    """

    def scan(case: Case) -> CaseFacts | DataError:
        try:
            return scan_case(case, table)
        except DataError as error:
            return error

    facts: list[CaseFacts] = []
    errors: list[tuple[Case, DataError]] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, (case, found) in enumerate(zip(cases, pool.map(scan, cases), strict=True)):
            if isinstance(found, DataError):
                errors.append((case, found))
            else:
                facts.append(found)
            if progress:
                progress(done + 1, len(cases))
    _refuse(errors)
    return facts


def _refuse(errors: list[tuple[Case, DataError]]) -> None:
    if len(errors) == 1:
        raise errors[0][1]
    if errors:
        others = name_some(case.name for case, _ in errors[1:])
        raise DataError(f"{errors[0][1]}; also bad, {len(errors)} in all: {others}")


def scan_case(case: Case, table: Mapping[int, int] | None) -> CaseFacts:
    """Decodes the files of one case and keeps what the dataset must know of them."""
    image = decode_image(case.image, case.page)
    height, width, channels = image.pixels.shape
    more_frames, masks = image.more_frames, []
    for path in case.masks:
        mask = decode_mask(path, case.page)
        more_frames = more_frames or mask.more_frames
        check_same_size(case, (height, width), path, mask.pixels.shape)
        known = case.labels or table
        values = mask.pixels if known is None else apply_label_map(mask.pixels, known, path)
        masks.append(mask_facts(values, path))
    digest = hashlib.blake2b(image.pixels.tobytes(), digest_size=16)
    digest.update(repr(image.pixels.shape).encode())
    small = thumbnail(image.pixels)
    return CaseFacts(case, channels == 1, digest.digest(), tuple(masks), more_frames, small)


def read_label(case: Case, table: Mapping[int, int], size: tuple[int, int]) -> np.ndarray | None:
    """The label of a case: of several masks the highest class wins, and ignored over all."""
    label: np.ndarray | None = None
    for path in case.masks:
        mask = decode_mask(path, case.page).pixels
        check_same_size(case, size, path, mask.shape)
        ids = apply_label_map(mask, case.labels or table, path)
        label = ids if label is None else np.maximum(label, ids)
    return label


def check_same_size(case: Case, image: tuple[int, int], path: Path, mask: tuple[int, ...]) -> None:
    """Raises DataError when a mask has another size than its (upright) image."""
    if image == mask:
        return
    turned = " (the mask lies on its side: is the photo turned by its EXIF tag?)"
    raise DataError(
        f"{path}: the mask is {mask[0]} x {mask[1]} pixels but {case.image} is {image[0]} x "
        f"{image[1]}{turned if image == mask[::-1] else ''}; export both at one size"
    )


def remarks(facts: Sequence[CaseFacts], table: Mapping[int, int], scanned: bool) -> list[str]:
    """Warnings that do not stop a run: empty masks, frames left out, bright background."""
    empty = [fact.case.name for fact in facts if fact.masks and not fact.foreground(table)]
    lines = empty_remark(empty, len(facts))
    share = sum(f.foreground(table) for f in facts) / max(1, sum(f.pixels for f in facts))
    if scanned and share > 0.5 and sorted(table.values()) == [0, 1]:
        low, high = sorted(table)
        lines.append(
            f"{share:.0%} of all pixels are foreground; if the value {low} is the object set "
            f'data.labels="{low}:1,{high}:0"'
        )
    frames = [fact.case.name for fact in facts if fact.more_frames]
    if frames:
        lines.append(f"only the first frame is used of {len(frames)} files: {name_some(frames)}")
    return lines


def color_remark(facts: Sequence[CaseFacts]) -> list[str]:
    """The warning that a few colour images make all be read as RGB, if it is so."""
    colored = [fact.case.name for fact in facts if not fact.grey]
    if not 0 < len(colored) < len(facts) / 2:
        return []
    return [
        f"only {len(colored)} of {len(facts)} images have colour: {name_some(colored)}; "
        "set data.color=grey to read all as grey"
    ]


def empty_remark(names: Sequence[str], count: int) -> list[str]:
    """The warning that some of `count` labels hold no object, if any."""
    return [f"{len(names)} of {count} masks are empty: {name_some(names)}"] * bool(names)


def duplicates_of(facts: Sequence[CaseFacts]) -> tuple[Duplicate, ...]:
    """The images that show one picture."""
    return find_duplicates(
        [fact.case.name for fact in facts],
        [fact.digest for fact in facts],
        [fact.thumbnail for fact in facts],
    )


def duplicate_remark(duplicates: Sequence[Duplicate]) -> list[str]:
    """The warning that images show one picture, if some do."""
    if not duplicates:
        return []
    listed = name_some(duplicates, most=2)
    return [f"duplicate images: {listed}; `tinyseg data check` lists all"]
