"""Finds images that show one picture: equal pixels, saved again, or nearly the same.

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
"""Deviation of a thumbnail below which it shows nothing that could be compared."""
_ROWS = 1024  # so many thumbnails are compared with all others at a time, to bound the memory

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
    """All equal ones when identical; else a pair."""
    kind: str
    """identical: pixel for pixel; same: no difference at the size of a thumbnail; near: little."""
    correlation: float = 1.0
    """Of the thumbnails, 0.9 to 1."""
    turned: str = ""
    """How the second picture lies, seen from the first, in words; empty: as the first."""

    def __str__(self) -> str:
        if self.kind == "identical":
            return f"{' = '.join(self.names)} (equal pixel for pixel)"
        turned = f", {self.turned}" if self.turned else ""
        words = "look the same" if self.kind == "same" else "look nearly the same"
        return f"{' ~ '.join(self.names)} ({words}, correlation {self.correlation:.3f}{turned})"


def thumbnail(image_hwc: np.ndarray) -> np.ndarray:
    """An image (H, W, 1 or 3), uint8 or float32 in [0, 1], as (SIDE, SIDE) float32 in [0, 1]."""
    scale = 255 if image_hwc.dtype == np.uint8 else 1
    plane = Image.fromarray(image_hwc[..., 0] if image_hwc.shape[2] == 1 else image_hwc)
    grey = plane.convert("L").convert("F") if plane.mode == "RGB" else plane.convert("F")
    small = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.float32) / np.float32(scale)


def find_duplicates(
    names: Sequence[str], digests: Sequence[bytes], thumbnails: Sequence[np.ndarray]
) -> tuple[Duplicate, ...]:
    """All duplicates: groups of identical images, then pairs of near ones, the closest first.

    A digest is of all pixels. Of identical images only the first takes part in pairs, and flat
    images (a deviation of one grey level or less) are never near.
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
    near = _pairs(np.stack([thumbnails[index] for index in firsts])) if firsts else []
    found = [
        Duplicate((names[firsts[a]], names[firsts[b]]), "same" if r >= SAME else "near", r, turned)
        for r, a, b, turned in sorted(near, key=lambda pair: (-pair[0], pair[1:3]))
    ]
    return (*identical, *found)


def _pairs(thumbnails: np.ndarray) -> list[tuple[float, int, int, str]]:
    """Correlation, both indices and orientation of each near pair, at its best orientation."""
    waves = _coefficients(thumbnails)
    best: dict[tuple[int, int], tuple[float, str]] = {}
    for turn, words in _TURNS.items():
        turned = _turn(waves, turn)
        for rows, columns in _proposed(waves, turned):
            r = np.einsum("nk,nk->n", waves[rows], turned[columns])
            for index in np.flatnonzero(r >= NEAR):
                pair = (int(rows[index]), int(columns[index]))
                best[pair] = max(best.get(pair, (0.0, "")), (float(r[index]), words))
    return [(min(r, 1.0), a, b, words) for (a, b), (r, words) in best.items()]


def _proposed(waves: np.ndarray, turned: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of the pairs whose hashes are close, in blocks; each pair once."""
    mask = _weights().ravel() > 0
    hashes, others = (
        np.where(x[:, mask] >= 0, np.float32(1), np.float32(-1)) for x in (waves, turned)
    )
    enough = (1 - 2 * HASH_DISTANCE) * mask.sum()
    for start in range(0, len(hashes), _ROWS):
        # a product of signs counts equal bits minus different ones
        close = hashes[start : start + _ROWS] @ others[start:].T >= enough
        rows, columns = np.nonzero(np.triu(close, 1))
        yield rows + start, columns + start


def _coefficients(thumbnails: np.ndarray) -> np.ndarray:
    """(N, SIDE * SIDE) weighted cosine coefficients of unit length."""
    cosine = _cosine()
    waves = (cosine @ thumbnails @ cosine.T * _weights()).reshape(len(thumbnails), -1)
    unit: np.ndarray = waves / np.linalg.norm(waves, axis=1, keepdims=True)
    return unit


def _cosine() -> np.ndarray:
    """The DCT-II with rows of one length, but for the first, as in SciPy without `norm`."""
    k = np.arange(SIDE)
    return np.cos(np.pi / SIDE * k[:, None] * (k + 0.5)).astype(np.float32)


def _weights() -> np.ndarray:
    """Waves count by their frequency, as natural images fall off with it; the mean not at all."""
    radius = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    return np.where(radius <= RADIUS, radius, 0).astype(np.float32)


def _turn(waves: np.ndarray, turn: tuple[bool, bool, bool]) -> np.ndarray:
    """The coefficients of the turned thumbnails: a mirrored wave changes its sign when odd."""
    transposed, upside_down, mirrored = turn
    planes = waves.reshape(-1, SIDE, SIDE)
    sign = (-1.0) ** np.arange(SIDE, dtype=np.float32)
    planes = planes.transpose(0, 2, 1) if transposed else planes
    planes = planes * sign[:, None] if upside_down else planes
    planes = planes * sign if mirrored else planes
    return planes.reshape(len(waves), -1)
