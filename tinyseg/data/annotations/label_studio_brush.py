"""Brush masks of Label Studio: run lengths of bits (its converter's brush.py, thi.ng rle-pack)."""

from typing import Any

import numpy as np

from tinyseg.data.reading.annotation import Size


def brush_mask(rle: Any, size: Size) -> np.ndarray:
    """Return the painted pixels (H, W) of bytes that encode an RGBA picture, whose alpha counts.

    ValueError when they do not make up the size.
    """
    array = np.asarray(rle) if isinstance(rle, list) else np.empty(0, object)
    if array.dtype.kind not in "iu" or array.ndim != 1 or not ((array >= 0) & (array < 256)).all():
        raise ValueError("a brush mask needs a list of bytes")
    bits = np.unpackbits(array.astype(np.uint8))
    values = np.zeros(size[0] * size[1] * 4, np.uint8)
    reader = _Bits(bits)
    if reader.read(32) != len(values):
        raise ValueError("a brush mask of another size than the image")
    width = reader.read(5) + 1
    lengths = [reader.read(4) + 1 for _ in range(4)]
    if width > 8:
        raise ValueError("a brush mask of more than 8 bits")
    place = 0
    while place < len(values):
        repeated = reader.read(1)
        count = reader.read(lengths[reader.read(2)]) + 1
        end = min(place + count, len(values))
        values[place:end] = reader.read(width) if repeated else reader.words(end - place, width)
        place = end
    return values.reshape(*size, 4)[..., 3] > 0


class _Bits:
    """Numbers of some bits each, the highest bit first."""

    def __init__(self, bits: np.ndarray) -> None:
        self._bits, self._place = bits, 0

    def read(self, width: int) -> int:
        """Return the next number."""
        number = 0
        for bit in self._take(width).tolist():
            number = number << 1 | bit
        return number

    def words(self, count: int, width: int) -> np.ndarray:
        """Return the next numbers of at most 8 bits, uint8."""
        rows = self._take(count * width).reshape(count, width)
        return np.packbits(rows, axis=1)[:, 0] >> (8 - width)

    def _take(self, count: int) -> np.ndarray:
        part = self._bits[self._place : self._place + count]
        if len(part) < count:
            raise ValueError("a brush mask that is cut short")
        self._place += count
        return part
