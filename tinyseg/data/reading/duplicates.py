"""Find images that show one picture: equal pixels, saved again, or nearly the same.

1. Equal digests are equal pixels. 2. Of the others a perceptual hash, the signs of a thumbnail's
low cosine coefficients, proposes pairs. 3. The coefficients of both thumbnails decide by their
correlation. Scaling, compression, brightness and contrast hardly change it, and mirrored and
turned copies only change signs and places. The hash is that of Zauner, "Implementation and
Benchmarking of Perceptual Image Hash Functions" (2010), with all eight orientations.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tinyseg.data.reading.decode import to_channels

SIDE = 32
"""Side of a thumbnail in pixels; also the number of its cosine coefficients a side."""
RADIUS = 16
"""Coefficients up to this many half waves count: finer ones are noise and compression."""
HASH_DISTANCE = 0.25
"""Share of the hash's bits that may differ in a proposed pair; unlike pictures differ in half."""
NEAR = 0.9
"""Correlation from which two pictures are near-duplicates. Of 578 real images of five datasets no
two scenes come beyond 0.74; copies saved again reach 0.99 (0.86 to 0.99 with clipped contrast)."""
SAME = 0.98
"""Correlation from which a thumbnail shows no difference: saved again, or a camera at rest."""
FLAT = 1 / 255
"""Std of a thumbnail below which it shows nothing that could be compared."""
_ROWS, _PAIRS = 1024, 1 << 16  # so many are compared at a time, to bound the memory

# transposed, upside down, mirrored (in this order) makes the first picture of the second, which
# lies as the words say
_TURNS = {
    (False, False, False): "",
    (False, False, True): "mirrored",
    (False, True, False): "upside down",
    (False, True, True): "turned by 180 degrees",
    (True, False, False): "transposed",
    (True, False, True): "turned left",
    (True, True, False): "turned right",
    (True, True, True): "transposed and turned by 180 degrees",
}


@dataclass(frozen=True)
class Duplicate:
    """Names of images that show one picture."""

    names: tuple[str, ...]
    """Two, or more when each is a duplicate of another one of them."""
    kind: str
    """identical: pixel for pixel; same: no difference at the size of a thumbnail; near: little."""
    correlation: float = 1.0
    """The lowest of the pairs among them, 0.9 to 1."""
    turned: str = ""
    """How the second of a pair is turned from the first, in words; empty: not at all."""

    def __str__(self) -> str:
        between = " = " if self.kind == "identical" else " ~ "
        return f"{between.join(self.names)} ({self.words})"

    @property
    def words(self) -> str:
        """How similar they are, in words."""
        if self.kind == "identical":
            return "equal pixel for pixel"
        turned = f", {self.turned}" if self.turned else ""
        nearly = "nearly " if self.kind == "near" else ""
        return f"look {nearly}the same, correlation {self.correlation:.3f}{turned}"


def thumbnail(image_hwc: np.ndarray) -> np.ndarray:
    """Shrink an image (H, W, C) to (SIDE, SIDE) gray, float32 in [0, 1].

    8 bits and floats in [0, 1] keep their scale; others are stretched to it.
    """
    if image_hwc.shape[2] in (1, 3) and image_hwc.dtype == np.uint8:
        gray_hw = to_channels(image_hwc, 1)[..., 0]
    else:
        gray_hw = image_hwc.mean(axis=2, dtype=np.float32)
    gray = Image.fromarray(gray_hw).convert("F")
    small = np.asarray(gray.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    if image_hwc.dtype == np.uint8:
        return small / np.float32(255)
    low, high = float(gray_hw.min()), float(gray_hw.max())
    if low >= 0 and high <= 1:
        return small
    return (small - np.float32(low)) / np.float32(max(high - low, 1))


def find_duplicates(
    names: Sequence[str], digests: Sequence[bytes], thumbnails: Sequence[np.ndarray]
) -> tuple[Duplicate, ...]:
    """Return all duplicates: identical images first, then similar ones, the closest first.

    A digest is of all pixels. Of identical images only the first is compared further, and flat
    images (a std of one gray level or less) are never near.
    """
    groups: dict[bytes, list[int]] = {}
    for index, digest in enumerate(digests):
        groups.setdefault(digest, []).append(index)
    identical = [
        Duplicate(tuple(names[index] for index in group), "identical")
        for group in groups.values()
        if len(group) > 1
    ]
    firsts = [group[0] for group in groups.values() if thumbnails[group[0]].std() > FLAT]
    if len(firsts) < 2:
        return tuple(identical)
    near = _near([names[i] for i in firsts], np.stack([thumbnails[i] for i in firsts]))
    return (*identical, *near)


def _near(names: Sequence[str], thumbnails: np.ndarray) -> list[Duplicate]:
    """Return groups of images that near pairs connect."""
    first, second, r, turn = _pairs(thumbnails)
    if not len(first):
        return []
    from scipy.sparse import coo_array  # here, as it takes a quarter of a second to load
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(first)), (first, second)), (len(names), len(names)))
    groups = connected_components(links, directed=False)[1]
    duplicates = []
    for group in np.unique(groups[first]):
        inside = groups[first] == group
        lowest = float(r[inside].min())
        members = tuple(names[index] for index in np.flatnonzero(groups == group).tolist())
        turned = tuple(_TURNS.values())[turn[inside].min()] if len(members) == 2 else ""
        kind = "same" if lowest >= SAME else "near"
        duplicates.append(Duplicate(members, kind, min(lowest, 1.0), turned))
    return sorted(duplicates, key=lambda same: -same.correlation)


def _pairs(thumbnails: np.ndarray) -> list[np.ndarray]:
    """Return first, second, correlation and number of the orientation of each near pair."""
    waves = _coefficients(thumbnails)
    blocks = [
        (*block, np.full(len(block[0]), number))
        for number, turn in enumerate(_TURNS)
        for block in _close(waves, _turn(waves, turn))
    ]
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


def _close(
    waves: np.ndarray, turned: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield first, second and correlation of near pairs in one orientation, in blocks."""
    used = _weights().ravel() > 0
    waves, turned = waves[:, used], turned[:, used]
    hashes, others = (np.where(x >= 0, np.float32(1), np.float32(-1)) for x in (waves, turned))
    enough = (1 - 2 * HASH_DISTANCE) * used.sum()
    for start in range(0, len(waves), _ROWS):
        # a product of signs counts equal bits minus different ones
        proposed = hashes[start : start + _ROWS] @ others[start:].T >= enough
        first, second = np.nonzero(np.triu(proposed, 1))
        r = np.empty(len(first), np.float32)
        for part in range(0, len(first), _PAIRS):
            here = slice(part, part + _PAIRS)
            r[here] = np.einsum(
                "nk,nk->n", waves[start + first[here]], turned[start + second[here]]
            )
        near = r >= NEAR
        yield first[near] + start, second[near] + start, r[near]


def _coefficients(thumbnails: np.ndarray) -> np.ndarray:
    """Return weighted cosine coefficients of unit length, (N, SIDE * SIDE)."""
    k = np.arange(SIDE)  # the DCT-II, its rows of one length but for the first
    cosine = np.cos(np.pi / SIDE * k[:, None] * (k + 0.5)).astype(np.float32)
    waves = (cosine @ thumbnails @ cosine.T * _weights()).reshape(len(thumbnails), -1)
    unit: np.ndarray = waves / np.maximum(np.linalg.norm(waves, axis=1, keepdims=True), 1e-9)
    return unit


def _weights() -> np.ndarray:
    """Weights by frequency, as natural images fall off with it; none for the mean."""
    radius = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    return np.where(radius <= RADIUS, radius, 0).astype(np.float32)


def _turn(waves: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """Return the coefficients of turned thumbnails: a mirrored wave changes its sign when odd."""
    transposed, upside_down, mirrored = turn
    planes = waves.reshape(-1, SIDE, SIDE)
    sign = (-1.0) ** np.arange(SIDE, dtype=np.float32)
    planes = planes.transpose(0, 2, 1) if transposed else planes
    planes = planes * sign[:, None] if upside_down else planes
    planes = planes * sign if mirrored else planes
    return planes.reshape(len(waves), -1)
