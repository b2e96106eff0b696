"""A PNG that is not whole is refused, of every kind of pixels; a whole one is not."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.data.reading.decode import decode_mask, load_image
from tinyseg.data.reading.png import check_png
from tinyseg.errors import DataError

MODES = ("1", "L", "P", "LA", "RGB", "RGBA", "I;16")


def png(mode: str, height: int = 40, width: int = 30) -> bytes:
    rng = np.random.default_rng(0)
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(1, 2**16, (height, width)).astype(np.uint16))
    else:
        rgba = rng.integers(1, 256, (height, width, 4)).astype(np.uint8)
        picture = Image.fromarray(rgba, "RGBA").convert(mode)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        found.append((kind, content[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def with_pixels(content: bytes, compressed: bytes) -> bytes:
    """The same file with another compressed stream, its chunks whole."""
    kept = [(k, d) for k, d in chunks(content) if k not in (b"IDAT", b"IEND")]
    parts = [*kept, (b"IDAT", compressed), (b"IEND", b"")]
    return content[:8] + b"".join(chunk(kind, data) for kind, data in parts)


def stream_of(content: bytes) -> bytes:
    return b"".join(data for kind, data in chunks(content) if kind == b"IDAT")


@pytest.mark.parametrize("mode", MODES)
def test_whole_files_are_whole(mode: str, tmp_path: Path) -> None:
    content = png(mode)
    check_png(content)
    check_png(with_pixels(content, stream_of(content)))
    (tmp_path / "a.png").write_bytes(content)
    assert load_image(tmp_path / "a.png", None).shape[:2] == (40, 30)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 5), (8, 8), (9, 13)])
def test_the_passes_of_an_interlaced_image_hold_each_pixel_once(height: int, width: int) -> None:
    from tinyseg.data.reading.png import ADAM7

    counts = np.zeros((height, width), int)
    for row, column, row_step, column_step in ADAM7:
        counts[row::row_step, column::column_step] += 1
    assert (counts == 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_fewer_rows_than_announced(mode: str, tmp_path: Path) -> None:
    content = png(mode)
    raw = zlib.decompress(stream_of(content))
    for length in (len(raw) * 3 // 4, len(raw) - len(raw) // 40, len(raw) - 1):
        refuse(tmp_path, with_pixels(content, zlib.compress(raw[:length])), "of pixels")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_stream_that_ends_early(mode: str, share: float, tmp_path: Path) -> None:
    content = png(mode)
    stream = stream_of(content)
    refuse(tmp_path, with_pixels(content, stream[: int(share * len(stream))]), "of pixels")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_chunk_that_fails_its_checksum(mode: str, kind: bytes, tmp_path: Path) -> None:
    content = bytearray(png(mode))
    place = content.index(kind)
    (length,) = struct.unpack_from(">I", content, place - 4)
    content[place + 4 + length] ^= 1  # of the checksum itself
    refuse(tmp_path, bytes(content), "checksum|damaged|not an image")


def test_a_file_without_its_end(tmp_path: Path) -> None:
    refuse(tmp_path, png("RGB")[:-12], "ends before its last chunk")


def test_a_tiny_file_of_a_very_long_image_is_refused_before_it_takes_memory(
    tmp_path: Path,
) -> None:
    header = struct.pack(">IIBBBBB", 178_000_000, 1, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)
    refuse(tmp_path, content, "a side longer than 65535")


def test_a_stream_far_longer_than_its_image_is_not_inflated() -> None:
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    endless = zlib.compress(bytes(64 << 20), 1) * 20  # 1.3 GB, and it does not end
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", endless) + chunk(b"IEND", b"")
    begin = time.process_time()
    check_png(b"\x89PNG\r\n\x1a\n" + parts)
    assert time.process_time() - begin < 0.1


def refuse(folder: Path, content: bytes, words: str) -> None:
    path = folder / "bad.png"
    path.write_bytes(content)
    for read in (lambda: load_image(path, None), lambda: decode_mask(path)):
        with pytest.raises(DataError, match=rf"bad\.png: .*({words})"):
            read()
