"""Whether a PNG file is whole: Pillow fills what a damaged one lacks with zeros, without a word."""

import struct
import zlib

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of each color type of the format."""
ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)
"""First row and column and the steps of each pass of an interlaced image."""
PIECE = 2**20


def check_png(content: bytes) -> None:
    """Raise ValueError if a critical chunk is damaged or there are fewer pixels than announced."""
    header: bytes | memoryview = b""
    compressed = []
    for kind, data in _chunks(content):
        if kind == b"IHDR":
            header = data
        elif kind == b"IDAT":
            compressed.append(data)
    wanted = _pixel_bytes(header)
    if (size := _inflated_size(b"".join(compressed), wanted)) < wanted:
        raise ValueError(f"it holds {size} of {wanted} bytes of pixels")


def _chunks(content: bytes) -> list[tuple[bytes, memoryview]]:
    """Kind and data of each chunk until the end of the image; checksums of critical ones hold."""
    view, place, chunks = memoryview(content), 8, list[tuple[bytes, memoryview]]()
    while place + 12 <= len(view):
        length, kind = struct.unpack_from(">I4s", view, place)
        end = place + 8 + length
        if end + 4 > len(view):
            break
        data = view[place + 8 : end]
        critical = kind[:1].isupper()
        if critical and zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", view, end)[0]:
            raise ValueError(f"its chunk {kind.decode('latin-1')} fails its checksum")
        chunks.append((kind, data))
        if kind == b"IEND":
            return chunks
        place = end + 4
    raise ValueError("it ends before its last chunk")


def _inflated_size(compressed: bytes, most: int) -> int:
    """Return the number of bytes in a zlib stream, in little memory, counted up to `most`."""
    stream, size = zlib.decompressobj(), 0
    while not stream.eof and size <= most:
        piece = stream.decompress(compressed, PIECE)
        size, compressed = size + len(piece), stream.unconsumed_tail
        if not piece and not compressed:
            break
    return size


def _pixel_bytes(header: bytes | memoryview) -> int:
    """Return the bytes of all rows, each with its filter, that a header (IHDR) announces."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", bytes(header))
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for row, column, row_step, column_step in passes:
        rows, columns = -(-(height - row) // row_step), -(-(width - column) // column_step)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * depth * CHANNELS[color] // 8))
    return total
