"""Warnings about masks whose files, or whose object and background, are unusual."""

import numpy as np
from PIL import Image

from tinyseg.config import DataConfig
from tinyseg.data import Dataset


def save_discs(folder, count=10, swapped=(), bright=True):
    """A bright disc on a dark ground, or the other way round, and its mask."""
    rows, columns = np.mgrid[:48, :48]
    rng = np.random.default_rng(0)
    for index in range(count):
        row, column = rng.integers(14, 34, 2)
        disc = np.hypot(rows - row, columns - column) < 12
        image = rng.integers(0, 60, (48, 48)) + 150 * (disc == bright)
        folder.save(f"images/a{index}.png", image.astype(np.uint8))
        mask = ~disc if index in swapped else disc
        folder.save(f"masks/a{index}.png", mask.astype(np.uint8) * 255)


def said(folder, word, **settings):
    warnings = Dataset(folder.path, DataConfig(**settings)).label_warnings
    return [text for text in warnings if word in text]


def test_a_foreground_that_encloses_the_background_of_most_masks_is_said(folder):
    save_discs(folder, swapped=range(9))
    (line,) = said(folder, "border of the image")
    assert line.startswith("in 9 of 10 masks (a0, a1, a2 and 6 more) the foreground")
    assert line.endswith('set data.labels="0:1,255:0"')
    assert not said(folder, "border", labels="0:1,255:0")


def test_masks_that_are_swapped_among_others_are_named(folder):
    save_discs(folder, swapped=(2, 7), bright=False)
    (line,) = said(folder, "look swapped")
    assert line.startswith("in 2 of 10 masks (a2, a7) object and background look swapped")
    assert said(folder, "look swapped", labels="0:0,255:1")


def test_discs_are_said_to_be_nothing_unusual(folder):
    save_discs(folder)
    dataset = Dataset(folder.path)
    assert (dataset.label_warnings, dataset.label_notes) == ((), ())


def test_the_stored_value_of_inverted_tables_is_said_with_the_setting(folder):
    for name in ("a", "b"):
        folder.image(f"images/{name}.png", 16, 24)
        index = np.zeros((16, 24), np.uint8)
        index[4:9, 5:12] = 1
        mask = Image.fromarray(index)
        mask.putpalette([255] * 3 + [0] * 3)
        folder.save(f"masks/{name}.png", mask)
    (line,) = said(folder, "stored value")
    assert line.startswith("2 of 2 masks (a.png, b.png) store white as 0")
    assert line.endswith('set data.labels="0:1,1:0"')
