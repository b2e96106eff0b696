"""Damaged annotation files end in a label or in a DataError of one line, soon."""

import copy
import json

import numpy as np
import pytest

from tests.data.annotations.conftest import coco, labelme, square
from tests.data.annotations.test_imagej import SQUARE, TRIANGLE, roi, save_set
from tinyseg.config import DataConfig
from tinyseg.data.annotations import find_annotations
from tinyseg.errors import DataError

ODD = (
    *(None, True, -1, 0, 1e308, -1e308, 10**30, 0.5, "", "x", "../../x", "\ud800", "a" * 300),
    *([], {}, [[]], [None], [[1, 2]], [1, 2, 3]),
    *({"size": [8, 8], "counts": "~"}, {"size": [8, 8], "counts": [64]}),
)


def read(path):
    """Draw all that is found; return whether it was a label."""
    try:
        found = find_annotations(path, DataConfig())
        labels = [case.annotation.draw((8, 8)) for case in found.layout.cases] if found else []
    except DataError as error:
        return "\n" in str(error) and "more than a line"
    return all(label.shape == (8, 8) and label.dtype == np.uint8 for label in labels)


def places(content, path=()):
    """All places in a JSON content."""
    yield path
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def damaged(content, rng):
    """Replace one or two parts of a content by odd ones."""
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 3)):
        every = [place for place in places(content) if place]
        *inside, last = every[rng.integers(len(every))]
        part = content
        for key in inside:
            part = part[key]
        part[last] = copy.deepcopy(ODD[rng.integers(len(ODD))])
    return content


RUNS = {"size": [8, 8], "counts": [3, 61]}, {"size": [8, 8], "counts": "P1`0"}
COCO = coco(
    ["a.png"],
    [
        (0, 0, [square(1, 1, 6, 6)], 0),
        (0, 1, {"size": [8, 8], "counts": [3, 61]}, 1),
        (0, 1, RUNS, 0),
    ],
    size=(8, 8),
)
LABELME = labelme(
    "a.png",
    [
        ("x", "polygon", [[1, 1], [6, 1], [6, 6]]),
        ("y", "circle", [[4, 4], [5, 5]]),
        ("z", "rectangle", [[1, 1], [3, 3]]),
        ("x", "line", [[1, 1], [3, 3]]),
    ],
    (8, 8),
)


@pytest.mark.parametrize("content", [COCO, LABELME], ids=["coco", "labelme"])
def test_odd_values_in_json(folder, content):
    rng = np.random.default_rng(0)
    folder.image("a.png", 8, 8)
    outcomes = set()
    for _ in range(120):
        folder.text("a.json", json.dumps(damaged(content, rng)))
        outcomes.add(read(folder.path))
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.roi", SQUARE),
        ("a.roi", TRIANGLE),
        ("a.roi", roi(1, 0, 0, 8, 8, (0, 0, 0, 2, 8, 0, 4, 4, 3, 0, 8, 1, 1, 2, 2, 4))),
        ("a.txt", b"1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n0 0 0 1 0 1 1 0 1\n"),
    ],
    ids=["roi", "subpixel", "composite", "yolo"],
)
def test_flipped_bytes(folder, name, content):
    rng = np.random.default_rng(1)
    folder.image("a.png", 8, 8)
    for _ in range(60):
        data = bytearray(
            content[: rng.integers(1, len(content) + 1)] if rng.random() < 0.3 else content
        )
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        folder.text(name, bytes(data))
        assert read(folder.path) in (True, False)


def test_flipped_bytes_of_a_set(folder):
    rng = np.random.default_rng(2)
    folder.image("a.png", 8, 8)
    content = save_set(folder, "a.roi.zip", SQUARE, TRIANGLE).read_bytes()
    for _ in range(60):
        data = bytearray(content)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        folder.text("a.roi.zip", bytes(data))
        assert read(folder.path) in (True, False)
