"""Selections written by roifile 2026.2 and by hand after ij.io.RoiDecoder."""

import base64
import struct
import zipfile

import numpy as np
import pytest

from tinyseg.data import Dataset
from tinyseg.errors import DataError

SQUARE = base64.b64decode(
    "SW91dADlBwAAAgADAAoADQAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKAAAAAAAAAAAAAAAUAAA"
    "AAkACQAAAAAAAAAHAAcAAAAAAAAAAAAAAAAAAAAAAAAAkAAAAAYAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAHMAcQB1AGEAcgBl"
)
"""(3, 2), (12, 2), (12, 9), (3, 9) in whole numbers."""
TRIANGLE = base64.b64decode(
    "SW91dADlBwAAAgADAAoADQADAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAqAAAAAAAAAAAAAAAZAAA"
    "AAkABgAAAAAAB0BQAABBSAAAQQwAAEAgAABAIAAAQRIAAAAAAAAAAAAAAAAAAAAAAAAAAACkAAAAAwAAAAAAAAIA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAdAByAGk="
)
"""(3.25, 2.5), (12.5, 2.5), (8.75, 9.125) in floats, of group 2."""


def roi(kind, left=0, top=0, right=0, bottom=0, numbers=()):
    head = struct.pack(">4shBBhhhhH", b"Iout", 228, kind, 0, top, left, bottom, right, 0)
    head = head.ljust(36, b"\0") + struct.pack(">i", len(numbers))
    return head.ljust(64, b"\0") + struct.pack(f">{len(numbers)}f", *numbers)


def save_set(folder, name, *rois):
    path = folder.path / name
    with zipfile.ZipFile(path, "w") as archive:
        for number, data in enumerate(rois):
            archive.writestr(f"{number:04}.roi", data)
    return path


def test_files_and_sets_by_the_name_of_the_image(folder, labels):
    ring = (0, 0, 0, 1, 8, 0, 1, 8, 8, 1, 0, 8, 4, 0, 2, 2, 1, 6, 2, 1, 6, 6, 1, 2, 6, 4)
    for name in "abcd":
        folder.image(f"{name}.tif")
    folder.text("a.roi", SQUARE)
    save_set(folder, "b_RoiSet.zip", roi(1, 0, 0, 4, 6), TRIANGLE, roi(10, 1, 1, 2, 2))
    save_set(folder, "RoiSet c.tif.zip", roi(2, 2, 1, 12, 11), roi(1, 0, 0, 8, 8, ring))
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "object", "group 2")
    wanted = np.zeros((12, 16), np.uint8)
    wanted[2:9, 3:12] = 1
    np.testing.assert_array_equal(by_name["a"], wanted)
    assert (by_name["b"] == 1).sum() == 24 - (by_name["b"][:6, :4] == 2).sum()
    assert by_name["b"][4, 8] == 2
    rows, columns = np.mgrid[:12, :16] + 0.5
    wanted = ((rows - 6) ** 2 + (columns - 7) ** 2 <= 25).astype(np.uint8)
    wanted[:8, :8] |= 1
    wanted[2:6, 2:6] &= ((rows - 6) ** 2 + (columns - 7) ** 2 <= 25)[2:6, 2:6]
    np.testing.assert_array_equal(by_name["c"], wanted)
    assert any("1 selection without an area left out" in text for text in dataset.warnings)
    assert any("1 image without selections left out: d.tif" in text for text in dataset.warnings)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Iout", "not an ImageJ selection"),
        (SQUARE[:70], "which the file does not hold"),
        (roi(0), "an outline of 0 points"),
        (roi(99), "type 99 are not known"),
        (roi(1, numbers=(7.5,)), "a segment that is not known"),
        (roi(1, numbers=(0, float("nan"), 0, 1, 5, 5, 1, 5, 0)), "no numbers of pixels"),
        (roi(1, numbers=(1, 5, 5)), "starts with no point"),
    ],
)
def test_bad_selections(folder, data, message):
    folder.image("a.png")
    folder.text("a.roi", data)
    with pytest.raises(DataError, match=message):
        Dataset(folder.path)


def test_sets_that_are_none(folder):
    folder.pairs(2)
    folder.text("backup.zip", b"PK")
    assert len(Dataset(folder.path)) == 2
    folder.text("RoiSet.zip", b"PK")
    with pytest.raises(DataError, match="not a set of ImageJ selections"):
        Dataset(folder.path)
