"""Masks of another size than their image, and of images that EXIF turns."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from tinyseg.config import DataConfig
from tinyseg.data import Dataset
from tinyseg.data.reading.fit_mask import turn
from tinyseg.errors import DataError


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_turned_as_pillow_turns_images(orientation):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(pixels, orientation), ImageOps.exif_transpose(image))


def save_turned(folder, orientation, shape=(48, 48), stored=True, count=6):
    """Bright rectangles that EXIF turns; masks lie as stored, or upright."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = []
    for index in range(count):
        mask = np.zeros(shape, bool)
        row, column = rng.integers(2, 20, 2)
        mask[row : row + 8, column : column + 16] = True
        image = (rng.integers(0, 60, shape) + 150 * mask).astype(np.uint8)
        folder.save(f"images/a{index}.jpg", image, exif=exif, quality=95)
        upright.append(turn(mask, orientation))
        lies = mask if stored else upright[-1]
        folder.save(f"masks/a{index}.png", lies.astype(np.uint8) * 255)
    return np.stack(upright)


def labels_of(folder, **settings):
    dataset = Dataset(folder.path, DataConfig(**settings))
    return np.stack([dataset[i].label for i in range(len(dataset))]), dataset


@pytest.mark.parametrize(("orientation", "stored"), [(6, True), (3, True), (8, False)])
def test_square_masks_are_turned_where_they_agree_better_so(folder, orientation, stored):
    upright = save_turned(folder, orientation, stored=stored)
    labels, dataset = labels_of(folder)
    np.testing.assert_array_equal(labels, upright)
    said = [text for text in dataset.label_warnings if "EXIF" in text]
    assert len(said) == stored
    if stored:
        assert said[0].startswith("6 images (a0, a1, a2 and 3 more) are turned by EXIF")
        assert said[0].endswith("if they are upright set data.exif=upright")
        kept, other = labels_of(folder, exif="upright")
        assert (kept != upright).any()
        assert other.fingerprint() != dataset.fingerprint()
    else:
        assert "fit upright" in dataset.label_notes[0]


def test_masks_that_agree_neither_way_are_left_and_it_is_said(folder):
    save_turned(folder, 6)
    for index in range(6):
        folder.image(f"plain/a{index}.jpg", 48, 48)
        exif = Image.Exif()
        exif[0x0112] = 6
        folder.save(
            f"images/a{index}.jpg", Image.open(folder.path / f"plain/a{index}.jpg"), exif=exif
        )
    labels, dataset = labels_of(folder)
    (said,) = [text for text in dataset.label_warnings if "EXIF" in text]
    assert said.endswith("set data.exif=stored")
    np.testing.assert_array_equal(labels_of(folder, exif="stored")[0], np.rot90(labels, 3, (1, 2)))


@pytest.mark.parametrize("stored", [True, False])
def test_masks_that_fit_one_way_only_are_turned_by_their_size(folder, stored):
    upright = save_turned(folder, 6, shape=(32, 48), stored=stored)
    labels, dataset = labels_of(folder)
    np.testing.assert_array_equal(labels, upright)
    assert bool(dataset.label_warnings) == stored


def test_masks_of_another_size_and_the_same_aspect_are_scaled(folder):
    small = np.zeros((40, 60), np.uint8)
    small[10:20, 15:30] = 255
    for name, height, width in (("half", 80, 120), ("pixel", 81, 120), ("same", 40, 60)):
        folder.image(f"images/{name}.png", height, width)
        folder.save(f"masks/{name}.png", small)
    dataset = Dataset(folder.path)
    doubled = small.repeat(2, 0).repeat(2, 1) > 0
    np.testing.assert_array_equal(dataset[dataset.index("half")].label, doubled)
    assert dataset[dataset.index("pixel")].label.shape == (81, 120)
    (said,) = dataset.label_warnings
    assert said.startswith("2 of 3 masks (half.png, pixel.png) have another size than their image")
    folder.mask("masks/half.png", height=40, width=50)
    with pytest.raises(DataError, match=r"half\.png: the mask is 40 x 50 pixels but .* 80 x 120"):
        Dataset(folder.path)
