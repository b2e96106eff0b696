"""What the pixels of mask files stand for, against values that are known before they are saved."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from tinyseg.config import DataConfig
from tinyseg.data import Dataset
from tinyseg.data.reading.decode import decode_mask
from tinyseg.data.reading.mask_pixels import COLOR, whole_numbers
from tinyseg.errors import DataError

OBJECT = np.zeros((16, 24), np.uint8)
OBJECT[3:9, 4:12] = 1


def palette_image(index, colors):
    image = Image.fromarray(index)
    image.putpalette(np.array(colors, np.uint8).tobytes())
    return image


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_palette_of_grays_that_runs_backwards_gives_the_stored_value(folder, suffix):
    backwards = [[255 - i] * 3 for i in range(256)]
    for name, colors in (("two", [[255] * 3, [0] * 3]), ("all", backwards)):
        mask = decode_mask(folder.save(f"{name}.{suffix}", palette_image(OBJECT, colors)))
        np.testing.assert_array_equal(mask.pixels, OBJECT)
        assert mask.remark == "stored"
    gif = decode_mask(folder.save("a.gif", palette_image(OBJECT, [[255] * 3, [0] * 3])))
    np.testing.assert_array_equal(gif.pixels, 255 * (1 - OBJECT))  # its palette is in any order


def test_where_tiff_says_that_white_is_0_the_stored_value_counts(folder):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    for name, stored in (
        ("grey", Image.fromarray(OBJECT * 255)),
        ("bits", Image.fromarray(OBJECT > 0)),
    ):
        # Pillow inverts what it writes and what it reads
        path = folder.save(f"{name}.tif", stored.point(lambda v: 255 - v), tiffinfo=tags)
        mask = decode_mask(path)
        np.testing.assert_array_equal(mask.pixels, OBJECT * 255)
        assert mask.remark == "stored"
    fax = folder.save("fax.tif", Image.fromarray(OBJECT > 0), tiffinfo=tags, compression="group4")
    np.testing.assert_array_equal(decode_mask(fax).pixels, OBJECT * 255)


@pytest.mark.parametrize("shade", [0, 255])
def test_a_mask_in_the_alpha_channel_is_read(folder, shade):
    for channels in (2, 4):
        pixels = np.full((*OBJECT.shape, channels), shade, np.uint8)
        pixels[..., -1] = OBJECT * 255
        mask = decode_mask(folder.save(f"a{channels}.png", pixels))
        np.testing.assert_array_equal(mask.pixels, OBJECT * 255)
        assert mask.remark == "alpha"
        pixels[..., -1] = 0
        assert not decode_mask(folder.save("empty.png", pixels)).pixels.any()
        pixels[..., 0] = OBJECT * 255
        assert decode_mask(folder.save("color.png", pixels)).remark == ""


def test_numbers_beyond_16_bits_and_floats_are_read(folder):
    large = OBJECT.astype(np.int32) * 70_000
    np.testing.assert_array_equal(decode_mask(folder.save("a.tif", large)).pixels, large)
    colors = OBJECT.astype(np.int32) * (COLOR + 5)  # never taken for a color
    assert decode_mask(folder.save("b.tif", colors)).pixels.max() == 2 * COLOR + 5
    huge = OBJECT.astype(np.uint32) * np.uint32(2**32 - 1)
    assert whole_numbers(huge.view(np.int32))[0].max() == COLOR + 2**32 - 1
    floats = OBJECT.astype(np.float32)
    np.testing.assert_array_equal(decode_mask(folder.save("c.tif", floats)).pixels, OBJECT)
    soft = decode_mask(folder.save("d.tif", floats * np.float32(0.5)))
    assert (soft.remark, soft.pixels.max()) == ("fractions", 128)
    for wrong in (floats * 1.5, floats * np.nan, -floats):
        with pytest.raises(DataError, match=r"e\.tif: a mask needs whole values from 0 to 42"):
            decode_mask(folder.save("e.tif", wrong.astype(np.float32)))


def save_set(folder, masks):
    for name, mask in masks.items():
        folder.image(f"images/{name}.png", *OBJECT.shape)
        folder.save(f"masks/{name}.png", mask)


def label_of(folder, name, **settings):
    dataset = Dataset(folder.path, DataConfig(**settings))
    return dataset[dataset.index(name)].label


def test_one_color_is_one_class_in_palette_rgb_and_rgba_masks(folder):
    index = OBJECT.copy()
    index[12:] = 2
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    rgba = np.dstack([colors[index], np.full(index.shape, 255, np.uint8)])
    save_set(folder, {"a": palette_image(index, colors), "b": colors[index], "c": rgba})
    dataset = Dataset(folder.path)
    assert dataset.classes == 3
    for name in "abc":
        np.testing.assert_array_equal(label_of(folder, name), index)
        np.testing.assert_array_equal(
            label_of(folder, name, labels="#000000:0,#008000:1,#800000:1"), index > 0
        )


def test_palettes_of_any_order_are_read_by_color_and_it_is_said(folder):
    colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
    index = OBJECT.copy()
    index[12:] = 2
    other = palette_image(np.array([1, 2, 0], np.uint8)[index], colors[[2, 0, 1]])
    save_set(folder, {"a": palette_image(index, colors), "b": other})
    dataset = Dataset(folder.path)
    assert dataset.classes == 3
    labels = [dataset[i].label for i in range(2)]
    np.testing.assert_array_equal(*labels)
    (said,) = [text for text in dataset.warnings if "palettes" in text]
    assert "each color is taken for a class" in said
    assert 'data.labels="0:0,1:1,2:2"' in said


def test_all_numbers_but_0_can_be_one_class(folder):
    for name in "ab":
        folder.image(f"images/{name}.png", *OBJECT.shape)
        folder.save(f"masks/{name}.tif", OBJECT.astype(np.int32) * (70_000 + ord(name)))
    np.testing.assert_array_equal(label_of(folder, "a", labels="0:0,*:1"), OBJECT)
    dataset = Dataset(folder.path, DataConfig(labels="0:0,*:1"))
    assert dataset.classes == 2
