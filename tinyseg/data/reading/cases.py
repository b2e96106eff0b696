"""A case decoded: image and masks together, before a label map gives mask values their class.

The label of several masks is the highest class of the values at a pixel. So it depends on the set
of those values alone, and there are few sets: a case is kept as one array that numbers them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tinyseg.config import IGNORE
from tinyseg.data.reading.decode import Decoded, decode_image, decode_mask
from tinyseg.data.reading.duplicates import SIDE, thumbnail
from tinyseg.data.reading.fit_mask import Turned, fit_mask, look_turned, turn
from tinyseg.data.reading.label_map import LabelMap, check_known, class_of, in_colors
from tinyseg.data.reading.lay import Lay, lay_of
from tinyseg.data.reading.layouts import Case
from tinyseg.data.reading.mask_facts import MaskFacts, count_values, mask_facts
from tinyseg.data.reading.mask_pixels import Mask, one_palette
from tinyseg.data.reading.pixel_range import Extent, extent
from tinyseg.data.storage.store import NamedArrays

MOST_SETS = 4096
"""A case of more sets of mask values is not kept: its table would be as large as its mask."""

Sets = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class CaseFacts:
    """What a scan keeps of one case, without its pixels."""

    case: Case
    channels: int
    extent: Extent
    """Of the pixel values, from which the range of all images is chosen."""
    digest: bytes
    """Of the decoded pixels: equal for the same image in two files."""
    masks: tuple[MaskFacts, ...]
    sets: Sets
    """The sets of values that the masks have at a pixel; none without masks."""
    areas: tuple[int, ...]
    """Pixels of each set."""
    more_frames: bool
    size: tuple[int, int]
    """Rows and columns."""
    lay: Lay
    """Of the sets."""
    turned: Turned
    """Whether EXIF turns the image, and which way its label fits."""
    thumbnail: np.ndarray = field(compare=False)
    """Small and gray, see `duplicates.thumbnail`."""

    def classes(self, table: Mapping[int, int]) -> np.ndarray:
        """Return the class id of each set, uint8: the highest one, with "ignored" above all."""
        labels = self.labels(table)
        ids = [max(class_of(value, labels) for value in values) for values in self.sets]
        return np.array(ids, np.uint8)

    def labels(self, table: Mapping[int, int]) -> Mapping[int, int]:
        """Return the class id of each value of this case."""
        labels = self.case.labels or table
        palette = in_colors(self.masks, labels)
        return {index: labels[color] for index, color in palette.items()} or labels

    def label(self, sets_hw: np.ndarray, mapping: LabelMap) -> np.ndarray:
        """Return the class ids (H, W) uint8 of set numbers."""
        turned = self.case.name in mapping.turned
        numbers = turn(sets_hw, self.turned.orientation) if turned else sets_hw
        return np.asarray(self.classes(mapping.table)[numbers])

    def class_pixels(self, table: Mapping[int, int]) -> dict[int, int]:
        """Return the pixels of each class id of the label (255 = ignored)."""
        pixels: dict[int, int] = {}
        for class_id, area in zip(self.classes(table).tolist(), self.areas, strict=True):
            pixels[class_id] = pixels.get(class_id, 0) + area
        return dict(sorted(pixels.items()))

    def foreground(self, table: Mapping[int, int]) -> int:
        """Return the pixels of all classes but background and ignored."""
        return sum(n for c, n in self.class_pixels(table).items() if c not in (0, IGNORE))

    @property
    def pixels(self) -> int:
        """Pixels of the image, if it has a mask."""
        return sum(self.areas)

    def to_json(self) -> dict[str, Any]:
        """Return all but the names of the files, which are not part of the content."""
        plain = ("channels", "extent", "sets", "areas", "more_frames", "size")
        return {
            **{name: getattr(self, name) for name in plain},
            "digest": self.digest.hex(),
            "masks": [mask.to_json() for mask in self.masks],
            "lay": self.lay.to_json(),
            "turned": asdict(self.turned),
            "thumbnail": self.thumbnail.tobytes().hex(),
        }

    @staticmethod
    def from_json(facts: Mapping[str, Any], case: Case) -> "CaseFacts":
        """Read what `to_json` wrote of the same content."""
        thumbnail = np.frombuffer(bytes.fromhex(facts["thumbnail"]), np.float32)
        rows, columns = facts["size"]
        return CaseFacts(
            case,
            channels=facts["channels"],
            extent=Extent(facts["extent"][0], *map(tuple, facts["extent"][1:])),
            digest=bytes.fromhex(facts["digest"]),
            masks=tuple(
                MaskFacts.from_json(mask, path)
                for path, mask in zip(case.masks, facts["masks"], strict=True)
            ),
            sets=tuple(map(tuple, facts["sets"])),
            areas=tuple(facts["areas"]),
            more_frames=facts["more_frames"],
            size=(rows, columns),
            lay=Lay.from_json(facts["lay"]),
            turned=Turned.from_json(facts["turned"]),
            thumbnail=thumbnail.reshape(SIDE, SIDE),
        )


def check_values(facts: CaseFacts, table: Mapping[int, int]) -> None:
    """Raise DataError, with the mask's name, when a value has no class."""
    labels = facts.labels(table)
    values = {value for values in facts.sets for value in values}
    if values <= labels.keys():
        return
    for mask in facts.masks:
        check_known(mask.counts, labels, mask.path)
    # of a mask with very many values only the first are in `counts`
    check_known(values, labels, max(facts.masks, key=lambda mask: len(mask.counts)).path)


def decode_case(case: Case, stacked: bool = False) -> tuple[NamedArrays, CaseFacts]:
    """Decode the files of one case, the image as stored; see `describe` and `decode_image`."""
    image = read_image(case, stacked)
    size = image.pixels.shape[:2]
    masks = [read_mask(case, number, size) for number in range(len(case.masks))]
    more_frames = image.more_frames or any(mask.more_frames for mask in masks)
    return describe(case, image.pixels, masks, more_frames, image.orientation)


def read_image(case: Case, stacked: bool = False) -> Decoded:
    """Decode the image of a case, or take it from its annotation."""
    if case.annotation is None or case.annotation.image is None:
        return decode_image(case.image, case.page, stacked)
    pixels = case.annotation.image()
    return Decoded(pixels, more_frames=False, mode=f"{pixels.shape[2]} x {pixels.dtype}")


def read_mask(case: Case, number: int, size: tuple[int, ...]) -> Mask:
    """Decode a mask of a case, or draw its annotation for an image of this size.

    A mask of one class holds that class or 0.
    """
    if case.annotation is not None:
        rows, columns = size
        return Mask(case.annotation.draw((rows, columns)))
    mask = decode_mask(case.masks[number], case.page)
    if not case.class_ids:
        return mask
    return mask._replace(pixels=(mask.pixels != 0) * np.uint8(case.class_ids[number]))


def describe(
    case: Case,
    image: np.ndarray,
    masks: Sequence[Mask],
    more_frames: bool = False,
    orientation: int = 1,
) -> tuple[NamedArrays, CaseFacts]:
    """Return "image" (H, W, C) and, with masks, "sets" (H, W) numbers; and the facts of both."""
    height, width, channels = image.shape
    masks = [
        fit_mask(mask, (height, width), orientation, path, case.image)
        for mask, path in zip(one_palette(masks), case.masks, strict=True)
    ]
    digest = hashlib.blake2b(image.tobytes(), digest_size=16)
    digest.update(repr(image.shape).encode())
    arrays: NamedArrays = {"image": image}
    sets, areas, lay, turned = Sets(), tuple[int, ...](), Lay(), Turned()
    if masks:
        arrays["sets"], sets, areas = join([mask.pixels for mask in masks])
        lay = lay_of(image, arrays["sets"], len(sets))
        turned = look_turned(image, arrays["sets"], orientation)
    return arrays, CaseFacts(
        case,
        channels=channels,
        extent=extent(image),
        digest=digest.digest(),
        masks=tuple(map(mask_facts, masks, case.masks)),
        sets=sets,
        areas=areas,
        more_frames=more_frames,
        size=(height, width),
        lay=lay,
        turned=turned,
        thumbnail=thumbnail(image),
    )


def join(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, Sets, tuple[int, ...]]:
    """Join masks (H, W) to an array of set numbers; return it, the sets, and the pixels of each."""
    numbers, present = _numbered(masks[0])
    sets: list[tuple[int, ...]] = [(value,) for value in present]
    for mask in masks[1:]:
        more, values = _numbered(mask)
        count = len(sets) * len(values)
        wide = np.dtype(np.uint8 if count < 256 else np.int64)
        pairs, present = numbers.astype(wide) * wide.type(len(values)) + more, list(range(count))
        if count > 16:  # else it takes longer to find the pairs that are at no pixel
            pairs, present = _numbered(pairs)
        unions = [
            tuple(sorted({*sets[pair // len(values)], values[pair % len(values)]}))
            for pair in present
        ]
        sets = sorted(set(unions))
        places = {union: place for place, union in enumerate(sets)}
        numbers = np.take(np.array([places[union] for union in unions], _dtype(len(sets))), pairs)
    numbers, present = _numbered(numbers)
    areas = np.bincount(numbers.ravel(), minlength=len(present))
    return numbers, tuple(sets[number] for number in present), tuple(areas.tolist())


def _numbered(values_hw: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Return the rank of each value, and the values in order."""
    values, _ = count_values(values_hw)
    if len(values) <= 2:
        ranks = (values_hw != values[0]).view(np.uint8)
    elif values_hw.dtype == np.uint8:
        lookup = np.zeros(256, np.uint8)
        lookup[values] = np.arange(len(values))
        ranks = np.take(lookup, values_hw)
    else:
        ranks = np.searchsorted(values, values_hw).astype(_dtype(len(values)))
    return ranks, values.tolist()


def _dtype(count: int) -> type[np.integer[Any]]:
    return np.uint8 if count <= 256 else np.uint16 if count <= 65536 else np.int32
