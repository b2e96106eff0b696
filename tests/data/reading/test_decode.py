import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tinyseg.data.reading import decode
from tinyseg.data.reading.decode import decode_image, decode_mask, load_image, to_channels
from tinyseg.data.reading.mask_pixels import COLOR
from tinyseg.errors import DataError

GREY = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
RGB = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif", "pgm"])
def test_lossless_grey_files_keep_their_pixels(folder, suffix):
    pixels = load_image(folder.save(f"a.{suffix}", GREY), None)
    np.testing.assert_array_equal(pixels, GREY[..., None])


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "ppm"])
def test_lossless_colour_files_keep_their_pixels(folder, suffix):
    np.testing.assert_array_equal(load_image(folder.save(f"a.{suffix}", RGB), None), RGB)


def test_jpeg_is_near(folder):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    pixels = load_image(folder.save("a.jpg", flat, quality=95), None)
    assert np.abs(pixels.astype(int) - flat).max() <= 4


def test_the_content_decides_not_the_extension(folder):
    path = folder.save("a.png", RGB).rename(folder.path / "a.jpg")
    np.testing.assert_array_equal(load_image(path, None), RGB)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_become_float32_without_loss(folder, suffix):
    deep = (np.arange(12 * 16, dtype=np.uint16) * 341).reshape(12, 16)
    pixels = load_image(folder.save(f"a.{suffix}", deep), None)
    assert pixels.dtype == np.float32
    assert pixels.shape == (12, 16, 1)
    np.testing.assert_array_equal(np.round(pixels[..., 0] * 65535.0).astype(np.uint16), deep)


def test_float_tiff_must_lie_between_0_and_1(folder):
    good = np.linspace(0, 1, 192, dtype=np.float32).reshape(12, 16)
    np.testing.assert_array_equal(load_image(folder.save("a.tif", good), 1)[..., 0], good)
    for bad in (good * 2, good - 0.5, good * np.nan):
        with pytest.raises(DataError, match=r"b\.tif.*outside 0 to 1"):
            load_image(folder.save("b.tif", bad), 1)


def test_rgb_with_equal_channels_is_grey(folder):
    path = folder.save("a.png", np.repeat(GREY[..., None], 3, 2))
    assert load_image(path, None).shape == (12, 16, 1)
    assert load_image(path, 3).shape == (12, 16, 3)


def test_alpha_is_dropped(folder):
    rgba = np.concatenate([RGB, GREY[..., None] // 2], axis=2)
    np.testing.assert_array_equal(load_image(folder.save("a.png", rgba), None), RGB)
    grey_alpha = Image.fromarray(np.stack([GREY, GREY[::-1]], axis=2), "LA")
    np.testing.assert_array_equal(load_image(folder.save("b.png", grey_alpha), 1)[..., 0], GREY)


def test_a_palette_image_shows_its_colours_even_with_transparency(folder):
    image = Image.fromarray(GREY % 3)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    path = folder.save("a.png", image, transparency=b"\x00\x80\xff")
    np.testing.assert_array_equal(load_image(path, None)[0, 1], [40, 50, 60])


def test_grey_conversion_is_pillows_luma():
    expected = np.asarray(Image.fromarray(RGB).convert("L"))
    np.testing.assert_array_equal(to_channels(RGB, 1)[..., 0], expected)
    np.testing.assert_array_equal(to_channels(GREY[..., None], 3)[..., 2], GREY)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_turns_the_image_once(folder, suffix):
    upright = np.zeros((16, 32), np.uint8)
    upright[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90 degrees clockwise to see it
    path = folder.save(f"a.{suffix}", np.rot90(upright), exif=exif)
    pixels = load_image(path, 1)[..., 0]
    assert pixels.shape == (16, 32)
    assert pixels[2].mean() > 250
    assert pixels[-2].mean() < 5


def test_mask_values_by_mode(folder):
    two = GREY > 90
    np.testing.assert_array_equal(decode_mask(folder.save("a.png", two)).pixels, two * 255)
    np.testing.assert_array_equal(decode_mask(folder.save("b.png", GREY)).pixels, GREY)
    deep = GREY.astype(np.uint16) * 200
    np.testing.assert_array_equal(decode_mask(folder.save("c.png", deep)).pixels, deep)
    rgba = np.dstack([GREY, GREY, GREY, GREY * 0])
    np.testing.assert_array_equal(decode_mask(folder.save("d.png", rgba)).pixels, GREY)
    gif = decode_mask(folder.save("e.gif", two.astype(np.uint8) * 255)).pixels
    np.testing.assert_array_equal(gif, two * 255)


def test_a_palette_mask_gives_the_index_unless_the_palette_is_grey(folder):
    index = Image.fromarray(GREY % 3)
    index.putpalette([0, 0, 0, 128, 0, 0, 128, 128, 128])
    np.testing.assert_array_equal(decode_mask(folder.save("voc.png", index)).pixels, GREY % 3)
    index.putpalette([0, 0, 0, 100, 100, 100, 255, 255, 255])
    pixels = decode_mask(folder.save("grey.png", index)).pixels
    np.testing.assert_array_equal(pixels, np.array([0, 100, 255])[GREY % 3])


def test_coloured_mask_pixels_get_a_value_per_colour_and_grey_ones_their_grey(folder):
    mask = np.zeros((4, 4, 3), np.uint8)
    mask[0], mask[1], mask[2] = (255, 0, 0), (0, 0, 7), (9, 9, 9)
    pixels = decode_mask(folder.save("a.png", mask)).pixels
    assert pixels[:, 0].tolist() == [COLOR + 0xFF0000, COLOR + 7, 9, 0]


def test_more_frames_are_reported(folder):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1])]
    path = folder.save("a.tif", frames[0], save_all=True, append_images=frames[1:])
    assert decode_image(path).more_frames
    np.testing.assert_array_equal(decode_image(path).pixels[..., 0], GREY)
    assert not decode_image(folder.save("b.tif", GREY)).more_frames


def _huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_a_decompression_bomb_is_refused_by_its_header(folder):
    with pytest.raises(DataError, match=r"bomb\.png: larger than 178 million pixels"):
        load_image(folder.text("bomb.png", _huge_png()), None)


def test_the_pixel_limit_holds_where_pillows_own_is_lifted(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(DataError, match=r"bomb\.png: larger than 178 million pixels"):
        load_image(folder.text("bomb.png", _huge_png()), None)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"just words", "not an image"), (b"\x89PNG\r\n\x1a\n", "replace|convert")],
)
def test_a_file_that_is_no_image_is_named(folder, content, said):
    with pytest.raises(DataError, match=rf"a\.png: .*({said})"):
        load_image(folder.text("a.png", content), None)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif"])
def test_a_truncated_file_is_named(folder, suffix):
    path = folder.save(f"a.{suffix}", np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"a\.{suffix}: .*(replace|convert)"):
        load_image(path, None)


def test_missing_folders_loops_and_pipes_are_no_images(folder):
    folder.path.mkdir()
    loop, pipe = folder.path / "loop.png", folder.path / "pipe.png"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="no such file"):
        load_image(folder.path / "none.png", None)
    for path in (folder.path, loop, pipe):
        with pytest.raises(DataError, match="not a file"):
            load_image(path, None)


def test_libtiff_does_not_write_to_the_terminal(folder, capfd):
    path = folder.save("a.tif", RGB, compression="tiff_lzw")
    content, unknown = path.read_bytes(), struct.pack("<HH", 65302, 3)
    path.write_bytes(content.replace(struct.pack("<HH", 284, 3), unknown))
    assert path.read_bytes() != content
    load_image(path, None)
    assert capfd.readouterr().err == ""


def _pages(count):
    """A TIFF of pages of one pixel, which all have the same."""
    entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (279, 1)]
    packed = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries)
    page = struct.pack("<H", len(entries)) + packed
    starts = [12 + index * (len(page) + 4) for index in range(count)]
    following = [*starts[1:], 0]
    body = b"".join(page + struct.pack("<I", after) for after in following)
    return b"II*\0" + struct.pack("<II", 12, 0) + body


def test_pages_are_counted_up_to_a_limit(folder, monkeypatch):
    monkeypatch.setattr(decode, "MOST_PAGES", 5)
    assert decode.count_pages(folder.text("five.tif", _pages(5))) == 5
    assert decode.count_pages(folder.save("one.tif", GREY)) == 1
    with pytest.raises(DataError, match=r"six\.tif: more than 5 pages"):
        decode.count_pages(folder.text("six.tif", _pages(6)))


@pytest.mark.parametrize(("width", "depth", "color"), [(13_200, 8, 3), (11_600, 16, 0)])
def test_what_would_take_too_much_memory_is_refused_by_its_header(folder, width, depth, color):
    content = bytearray(_huge_png())
    content[16:26] = struct.pack(">IIBB", width, width, depth, color)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(DataError, match="more than 2 GiB when decoded"):
        load_image(folder.text("bomb.png", bytes(content)), None)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "gif"])
def test_damaged_bytes_give_pixels_or_a_data_error_and_nothing_else(folder, suffix):
    rng = np.random.default_rng(1)
    path = folder.save(f"a.{suffix}", rng.integers(0, 255, (24, 24), np.uint8))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        bytes_ = whole.copy()
        bytes_[rng.integers(0, len(bytes_), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(bytes_.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for decode in (decode_image, decode_mask):
                try:
                    decode(path)
                except DataError as error:
                    assert str(path) in str(error)  # noqa: PT017
                    assert "\n" not in str(error)  # noqa: PT017
