"""PNG files of 16 bits with colour or alpha at full depth: Pillow reads them at 8 bits."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from tinyseg.errors import DataError

START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
SAMPLES = {2: 3, 4: 2, 6: 4}
"""Samples of a pixel by colour type: RGB, grey with alpha, RGBA."""
WHOLE = ((0, 0, 1, 1),)
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)
"""First row and column, and the steps between rows and columns, of the passes when interlaced."""
PIXEL_LIMIT = 50_000_000
"""They take half a minute and 2 GB."""
SIDE_LIMIT = 65_535
"""Pixels; the time grows with the sides also where an image is but a line."""
PIECE = 1 << 16


class Header(NamedTuple):
    """What the first chunk says of a file that is read here."""

    height: int
    width: int
    samples: int
    interlaced: bool


def header_of(path: Path) -> Header | None:
    """None for all that Pillow reads as well."""
    with path.open("rb") as file:
        start = file.read(len(START) + 13)
    if len(start) < len(START) + 13 or not start.startswith(START):
        return None
    width, height, bits, colour, packing, filters, interlaced = struct.unpack(
        ">IIBBBBB", start[len(START) :]
    )
    if bits != 16 or colour not in SAMPLES or packing or filters or interlaced > 1:
        return None
    return Header(height, width, SAMPLES[colour], bool(interlaced))


def decode_deep_png(path: Path, header: Header) -> np.ndarray:
    """Reads (H, W, samples) uint16. DataError where it is too large, ValueError where damaged."""
    height, width = header[:2]
    if height * width > PIXEL_LIMIT or max(height, width) > SIDE_LIMIT:
        raise DataError(
            f"{path}: {height} x {width} pixels of 16-bit colour: up to {PIXEL_LIMIT // 10**6} "
            f"million and {SIDE_LIMIT} a side are read; save it with 8 bits or cut it into tiles"
        )
    bytes_of_pixel, parts = 2 * header.samples, ADAM7 if header.interlaced else WHOLE
    shapes = [
        (-(-(height - top) // down), -(-(width - left) // right))
        for top, left, down, right in parts
    ]
    lengths = [h * (1 + w * bytes_of_pixel) if w > 0 else 0 for h, w in shapes]
    with path.open("rb") as file:
        rows = np.frombuffer(_inflated(file, sum(lengths)), np.uint8)
    made = np.empty((height, width, header.samples), np.uint16)
    for (top, left, down, right), shape, length in zip(parts, shapes, lengths, strict=True):
        if length:
            planes = _unfiltered(rows[:length].reshape(shape[0], -1), bytes_of_pixel)
            for sample in range(header.samples):
                value = planes[2 * sample].astype(np.uint16) << 8 | planes[2 * sample + 1]
                made[top::down, left::right, sample] = value
        rows = rows[length:]
    return made


def _inflated(file: BinaryIO, size: int) -> bytearray:
    """The filtered rows; never more than `size` bytes, whatever the file unpacks to."""
    inflate, found = zlib.decompressobj(), bytearray()
    for piece in _pixel_data(file):
        found += inflate.decompress(piece, size + 1 - len(found))
        if len(found) > size:
            break
    if len(found) != size:
        raise ValueError(f"it holds {'more' if len(found) > size else 'fewer'} pixels than it says")
    return found


def _pixel_data(file: BinaryIO) -> Iterator[bytes]:
    """What the IDAT chunks hold, in small pieces; their checksums are compared."""
    file.seek(8)
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends too early")
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            file.seek(length + 4, 1)
            continue
        checksum = zlib.crc32(kind)
        while length and (piece := file.read(min(length, PIECE))):
            checksum, length = zlib.crc32(piece, checksum), length - len(piece)
            yield piece
        if file.read(4) != checksum.to_bytes(4, "big"):
            raise ValueError("a checksum is wrong")


def _unfiltered(rows: np.ndarray, step: int) -> np.ndarray:
    """Rows (H, 1 + W step) of a filter's number and its bytes to the pixels' bytes (step, H, W).

    A byte is told from those to its left, above, and above that on the left, so all bytes of a
    diagonal are known at once.
    """
    kinds, height = rows[:, 0], len(rows)
    if kinds.max() > 4:
        raise ValueError(f"filter {kinds.max()} is unknown")
    made = np.zeros((step, height + 1, 1 + rows.shape[1] // step), np.uint8)
    made[:, 1:, 1:] = rows[:, 1:].reshape(height, -1, step).transpose(2, 0, 1)
    flat, stride = made.reshape(step, -1), made.shape[2]
    width = stride - 1
    for diagonal in range(height + width - 1):
        first, last = max(0, diagonal - width + 1), min(diagonal, height - 1)
        start = (first + 1) * stride + diagonal - first + 1
        stop = start + (last - first) * width + 1
        left, above, corner = (
            flat[:, start - back : stop - back : width].astype(np.int16)
            for back in (1, stride, stride + 1)
        )
        guesses = (0 * left, left, above, left + above >> 1, _paeth(left, above, corner))
        flat[:, start:stop:width] += np.choose(kinds[first : last + 1], guesses).astype(np.uint8)
    return made[:, 1:, 1:]


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The neighbour that is nearest to left + above - corner; the first of those equally near."""
    to_left, to_above = np.abs(above - corner), np.abs(left - corner)
    to_corner = np.abs(left + above - 2 * corner)
    other = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, other)
