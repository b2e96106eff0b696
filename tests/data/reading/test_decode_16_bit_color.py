"""16-bit colour PNG against files written byte by byte as the standard says."""

import struct
import time
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import Config, DataConfig
from tinyseg.data import Dataset
from tinyseg.data.checks.check import check
from tinyseg.data.reading.decode import decode_image, decode_mask, load_image
from tinyseg.errors import DataError

COLOURS = {2: 4, 3: 2, 4: 6}
"""The standard's colour type by number of samples."""
ADAM7 = ["16462646", "7" * 8, "56" * 4, "7" * 8, "36463646", "7" * 8, "56" * 4, "7" * 8]
"""The pass of each pixel in a square of eight, as the standard draws it."""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered(values: np.ndarray, filters: Sequence[int]) -> bytes:
    """Rows of 16-bit samples (H, W, C), each with its filter, byte after byte."""
    step, above, written = 2 * values.shape[2], None, bytearray()
    for row, kind in zip(values, filters, strict=True):
        line = row.astype(">u2").tobytes()
        written.append(kind)
        for index, byte in enumerate(line):
            a = line[index - step] if index >= step else 0
            b = above[index] if above else 0
            c = above[index - step] if above and index >= step else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            written.append((byte - (0, a, b, (a + b) // 2, nearest)[kind]) % 256)
        above = line
    return bytes(written)


def interlaced(values: np.ndarray, filters: Sequence[int]) -> bytes:
    height, width = values.shape[:2]
    order = np.array([[int(ADAM7[r % 8][c % 8]) for c in range(width)] for r in range(height)])
    written = b""
    for number in range(1, 8):
        there = order == number
        if there.any():
            part = values[there.any(1)][:, there.any(0)]
            written += filtered(part, filters[: len(part)])
    return written


def png(values: np.ndarray, rows: bytes, interlace: int = 0, pieces: int = 1, **more: bytes):
    height, width, samples = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOURS[samples], 0, 0, interlace)
    packed = np.array_split(np.frombuffer(zlib.compress(rows), np.uint8), pieces)
    body = [chunk(b"IHDR", header), *(chunk(name.encode(), data) for name, data in more.items())]
    body += [chunk(b"IDAT", part.tobytes()) for part in packed]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*body, chunk(b"IEND", b"")])


def deep(shape: tuple[int, int], samples: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth and noisy parts, and values at both ends."""
    random = np.random.default_rng(seed)
    values = random.integers(0, 65536, (*shape, samples), dtype=np.uint16)
    values[: shape[0] // 2] = 257 * np.arange(shape[1], dtype=np.uint16)[:, None] + values[0, 0]
    values[-1, -1], values[0, 0] = 65535, 1
    values[0, -1, 0] = 300  # no grey image
    return values


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 3), (13, 11), (8, 24)])
def test_every_filter_gives_the_samples_that_were_written(folder, shape, samples, interlace):
    values = deep(shape, samples)
    filters = np.random.default_rng(1).permutation(np.arange(shape[0]) % 5)
    rows = (interlaced if interlace else filtered)(values, filters)
    path = folder.text("a.png", png(values, rows, interlace, pieces=3))
    read = decode_image(path).pixels
    shown = values[..., : 1 if samples == 2 else 3]
    np.testing.assert_array_equal(read, shown[..., : read.shape[2]])
    assert read.shape[2] == shown.shape[2] or (shown == shown[..., :1]).all()
    with Image.open(path) as pillow:  # it keeps the high bytes
        high = np.asarray(pillow.convert(("LA", "RGB", "RGBA")[samples - 2]))
    np.testing.assert_array_equal(high, values >> 8)


@pytest.mark.parametrize("kind", range(5))
def test_a_larger_image_of_one_filter(folder, kind):
    values = deep((40, 60))
    path = folder.text("a.png", png(values, filtered(values, [kind] * 40)))
    np.testing.assert_array_equal(load_image(path, 3), (values / 65535).astype(np.float32))


def test_grey_of_deep_colours_is_the_luma(folder):
    values = deep((7, 5))
    path = folder.text("a.png", png(values, filtered(values, [0] * 7)))
    wanted = values / 65535 @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(load_image(path, 1)[..., 0], wanted, atol=2e-5)
    equal = np.repeat(values[..., :1], 3, axis=2)
    path = folder.text("b.png", png(equal, filtered(equal, [1] * 7)))
    np.testing.assert_array_equal(decode_image(path).pixels, equal[..., :1])


def test_it_is_turned_as_its_exif_says(folder):
    values, exif = deep((6, 4)), Image.Exif()
    exif[0x0112] = 6
    told = {"eXIf": exif.tobytes().removeprefix(b"Exif\0\0")}
    path = folder.text("a.png", png(values, filtered(values, [4] * 6), **told))
    wanted = np.rot90(values / 65535, -1)
    np.testing.assert_array_equal(load_image(path, 3), wanted.astype(np.float32))


def test_only_16_bits_with_colour_or_alpha_are_read_here(folder):
    values = deep((6, 4), 4)
    path = folder.text("a.png", png(values, filtered(values, [0] * 6)))
    assert decode_image(path).mode == "16-bit RGBA"
    for shape, mode in (((6, 4), "L"), ((6, 4, 3), "RGB")):
        eight = folder.save("b.png", np.zeros(shape, np.uint8))
        assert decode_image(eight).mode == mode
        assert decode_image(eight).pixels.dtype == np.uint8
    assert decode_image(folder.save("c.png", np.zeros((6, 4), np.uint16))).mode == "I;16"
    np.testing.assert_array_equal(decode_mask(path).pixels >= 0, True)  # masks stay at 8 bits


def test_a_folder_may_mix_them_with_8_bits(folder):
    folder.pairs(4)
    shown = np.linspace(0, 65535, 12 * 16 * 3).reshape(12, 16, 3).astype(np.uint16)
    folder.text("images/a1.png", png(shown, filtered(shown, [3] * 12)))
    dataset = Dataset(folder.path, DataConfig())
    read = [dataset[index].image for index in range(4)]
    assert [image.dtype for image in read] == [np.uint8, np.float32, np.uint8, np.uint8]
    assert {image.shape for image in read} == {(12, 16, 3)}
    np.testing.assert_array_equal(read[1], (shown / 65535).astype(np.float32))
    told = [one for one in check(folder.path, Config()).findings if one.check == "bit depths"]
    assert "a1.png" in told[0].evidence[0]


def test_what_does_not_hold_what_it_says_is_told(folder):
    values = deep((30, 20))
    rows = filtered(values, [1] * 30)
    good, unknown = png(values, rows), bytes([7]) + rows[1:]
    damaged = [png(values, unknown), png(values, rows[:-3]), good[:60], good[:-40]]
    for bad in damaged:
        with pytest.raises(DataError, match=r"a\.png: damaged or truncated"):
            load_image(folder.text("a.png", bad), None)


def test_a_bomb_is_refused_before_it_unpacks(folder):
    values = np.broadcast_to(np.zeros(3, np.uint16), (60_000, 60_000, 3))
    with pytest.raises(DataError, match=r"a\.png: larger than 178 million pixels"):
        load_image(folder.text("a.png", png(values, b"")), None)
    line = np.broadcast_to(np.arange(3, dtype=np.uint16), (1, 65_535, 3))
    rows = b"\0" + line.astype(">u2").tobytes()
    read = load_image(folder.text("a.png", png(line, rows)), None)
    np.testing.assert_array_equal(read, (line / 65535).astype(np.float32))


def test_damaged_bytes_give_pixels_or_a_data_error_in_time(folder):
    values = deep((16, 12))
    whole = np.frombuffer(png(values, filtered(values, np.arange(16) % 5)), np.uint8)
    random, begin = np.random.default_rng(2), time.perf_counter()
    for _ in range(300):
        bytes_ = whole.copy()
        bytes_[random.integers(8, len(bytes_), 2)] = random.integers(0, 256, 2)
        path = folder.text("a.png", bytes_.tobytes())
        try:
            load_image(path, None)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017
    assert time.perf_counter() - begin < 30
