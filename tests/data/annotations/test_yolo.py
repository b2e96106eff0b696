import numpy as np
import pytest

from tinyseg.data import Dataset
from tinyseg.data.annotations.yolo import _yaml_names
from tinyseg.errors import DataError

SQUARE = "1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75\n"


@pytest.mark.parametrize(
    "text",
    [
        "path: x\nnames:\n  0: cat  # a\n  1: 'big dog'\nnc: 2\n",
        "names: ['cat', \"big dog\"]\nnc: 2\n",
        "nc: 2\nnames:\n- cat\n- big dog\n",
        "names: {0: cat, 1: big dog}",
        "names: [cat,\n  big dog]\nnc: 2",
    ],
)
def test_names(text):
    assert _yaml_names(text) == ["cat", "big dog"]


def test_polygons_of_a_split_folder(folder, labels):
    folder.text("data.yaml", "names: [cat, dog]\n")
    for split in ("train", "val"):
        folder.image(f"images/{split}/a.png")
        folder.text(f"labels/{split}/a.txt", SQUARE if split == "train" else "")
    folder.image("images/val/b.png")
    dataset, by_name = labels()
    wanted = np.zeros((12, 16), np.uint8)
    wanted[3:9, 4:8] = 1
    np.testing.assert_array_equal(by_name["train/a"], wanted)
    assert not by_name["val/a"].any()
    assert dataset.class_names == ("background", "dog")
    assert dataset.predefined == {"train": ("train/a",), "val": ("val/a",)}
    assert any("an empty text file makes one background" in text for text in dataset.warnings)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1\n", "boxes of detection"),
        ("0 0.5 0.5 0.1 nan 3 4\n", "not of a class"),
        ("0 100 100 200 100 200 200\n", "parts of the image"),
    ],
)
def test_bad_lines(folder, line, message):
    for name, text in (("a", SQUARE), ("b", line)):
        folder.image(f"{name}.png")
        folder.text(f"{name}.txt", text)
    with pytest.raises(DataError, match=message):
        Dataset(folder.path)


def test_other_texts_are_no_annotations(folder):
    folder.pairs(2)
    folder.text("images/a0.txt", "0 0.5 0.5 0.1 0.1\n")
    folder.text("a1.txt", "a caption")
    assert Dataset(folder.path).label_map == {0: 0, 255: 1}
