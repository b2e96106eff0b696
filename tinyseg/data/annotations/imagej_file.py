"""One ImageJ selection: the binary .roi file (ij.io.RoiDecoder), areas only."""

import struct
from itertools import pairwise
from typing import NamedTuple

import numpy as np

ROI_LIMIT = 1 << 22
"""Largest file of one selection, in bytes; a freehand outline takes 4 to 12 for each point."""
HEADER = 64
_POLYGON, _RECTANGLE, _OVAL, _FREEHAND, _TRACED = 0, 1, 2, 7, 8
_NO_AREA = {3: "line", 4: "line", 5: "line", 6: "nothing", 9: "angle", 10: "point"}
_SUBPIXEL = 128
_VALUES = {0: 2, 1: 2, 2: 4, 3: 6, 4: 0}
"""Numbers after each kind of segment of a composite: move, line, quadratic, cubic, close."""


class Roi(NamedTuple):
    """An area of an image."""

    outlines: list[np.ndarray]
    """Each (N, 2) of x, y; a pixel inside an odd number of them belongs to the area."""
    oval: bool
    """Whether the one outline is instead the left upper and right lower corner of an oval."""
    group: int
    """ImageJ's group from 0 (none) to 255."""


def parse_roi(data: bytes) -> Roi | None:
    """Return the area of a selection; None for lines, points and texts, which have none.

    ValueError when the content is no selection, is cut short, or has numbers that are none.
    """
    if data[:4] != b"Iout" or len(data) < HEADER:
        raise ValueError("not an ImageJ selection")
    version, kind = struct.unpack_from(">hB", data, 4)
    top, left, bottom, right, count = struct.unpack_from(">hhhhH", data, 8)
    (pieces,) = struct.unpack_from(">i", data, 36)
    (options,) = struct.unpack_from(">h", data, 50)
    group = _group(data)
    subpixel = bool(options & _SUBPIXEL) and version >= 222
    if kind == _RECTANGLE and pieces > 0:
        return Roi(_composite(data, pieces), False, group)
    if kind in _NO_AREA:
        return None
    if kind in (_RECTANGLE, _OVAL):
        corners = np.array([[left, top], [right, bottom]], np.float64)
        if subpixel and version >= 223:
            x, y, width, height = struct.unpack_from(">4f", data, 18)
            corners = _finite(np.array([[x, y], [x + width, y + height]], np.float64))
        (x1, y1), (x2, y2) = corners
        square = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        return Roi([corners if kind == _OVAL else square], kind == _OVAL, group)
    if kind not in (_POLYGON, _FREEHAND, _TRACED):
        raise ValueError(f"selections of type {kind} are not known")
    if count == 0:
        (count,) = struct.unpack_from(">i", data, 18)
    return Roi([_outline(data, count, (left, top), subpixel)], False, group)


def _group(data: bytes) -> int:
    (second,) = struct.unpack_from(">i", data, 60)
    return data[second + 30] if HEADER <= second < len(data) - 30 else 0


def _outline(data: bytes, count: int, corner: tuple[int, int], subpixel: bool) -> np.ndarray:
    size = count * (12 if subpixel else 4)
    if count < 3 or HEADER + size > len(data):
        raise ValueError(f"an outline of {count} points, which the file does not hold")
    if subpixel:
        xy = np.frombuffer(data, ">f4", 2 * count, HEADER + 4 * count).reshape(2, count)
        return _finite(xy.T.astype(np.float64))
    whole = np.frombuffer(data, ">i2", 2 * count, HEADER).reshape(2, count)
    return whole.T.astype(np.float64) + corner


def _composite(data: bytes, count: int) -> list[np.ndarray]:
    """Read the outlines of a composite: segments that start with their kind."""
    if HEADER + 4 * count > len(data):
        raise ValueError("a composite that the file does not hold")
    numbers = np.frombuffer(data, ">f4", count, HEADER).astype(np.float64).tolist()
    outlines: list[list[tuple[float, float]]] = []
    place = 0
    while place < count:
        kind = _VALUES.get(int(numbers[place]) if abs(numbers[place]) < 9 else -1)
        if kind is None or place + 1 + kind > count:
            raise ValueError("a composite with a segment that is not known")
        values = numbers[place + 1 : place + 1 + kind]
        points = list(zip(values[::2], values[1::2], strict=True))
        if numbers[place] == 0:
            outlines.append([])
        if points and not outlines:
            raise ValueError("a composite that starts with no point")
        if kind > 2:
            points = _curve([outlines[-1][-1], *points])
        if points:
            outlines[-1] += points
        place += 1 + kind
    return [_finite(np.array(outline)) for outline in outlines if len(outline) > 2]


def _curve(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return 16 points of a Bezier curve, the last one its end."""
    t = (np.arange(16) + 1)[:, None] / 16
    level = [np.array(point)[None] * np.ones_like(t) for point in points]
    while len(level) > 1:
        level = [a + t * (b - a) for a, b in pairwise(level)]
    return [(float(x), float(y)) for x, y in level[0]]


def _finite(xy: np.ndarray) -> np.ndarray:
    if not (np.abs(xy) < 1e6).all():
        raise ValueError("coordinates that are no numbers of pixels")
    return xy
