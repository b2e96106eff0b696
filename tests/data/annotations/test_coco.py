import numpy as np
import pytest

from tests.data.annotations.conftest import coco, square, write_json
from tinyseg.data import Dataset
from tinyseg.errors import DataError


def block(rows, columns, class_id, label=None):
    label = np.zeros((12, 16), np.uint8) if label is None else label
    label[slice(*rows), slice(*columns)] = class_id
    return label


def test_polygons_run_lengths_crowds_and_empty_images(folder, labels):
    names = [f"images/a{i}.png" for i in range(4)]
    for name in names:
        folder.image(name)
    runs = {"size": [12, 16], "counts": [2 * 12 + 1, 3, 9, 3, 16 * 12 - 40]}
    objects = [
        (0, 0, [square(1, 2, 6, 8)], 0),
        (0, 1, [square(4, 2, 9, 8), square(12, 0, 16, 2)], 0),
        (1, 1, runs, 0),
        (2, 0, [square(2, 2, 4, 4)], 0),
        (2, 0, {"size": [12, 16], "counts": [0, 192]}, 1),
    ]
    write_json(folder, "annotations/instances.json", coco([n[7:] for n in names], objects))
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "cell", "dirt")
    wanted = block((0, 2), (12, 16), 2, block((2, 8), (4, 9), 2, block((2, 8), (1, 6), 1)))
    np.testing.assert_array_equal(by_name["a0"], wanted)
    np.testing.assert_array_equal(by_name["a1"], block((1, 4), (2, 4), 2))
    crowd = np.full((12, 16), 255, np.uint8)
    np.testing.assert_array_equal(by_name["a2"], block((2, 4), (2, 4), 1, crowd))
    assert not by_name["a3"].any()
    text = dataset.layout
    assert "4 images, 5 objects of 2 classes (cell, dirt), the later of two" in text
    assert "1 crowd ignored" in text
    assert "1 image without objects: background" in text


def test_unused_categories_missing_and_further_images(folder, labels):
    folder.image("train/a.png")
    folder.image("train/b.png")
    folder.image("valid/a.png")
    cells = [(0, 1, [square(1, 1, 9, 9)], 0)]
    write_json(folder, "train/_annotations.coco.json", coco(["a.png", "c.png"], cells))
    write_json(folder, "valid/_annotations.coco.json", coco(["a.png"], cells))
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "dirt")
    assert sorted(by_name) == ["train/a", "valid/a"]
    assert dataset.predefined == {"train": ("train/a",), "val": ("valid/a",)}
    assert any("1 image of COCO not in the folder: c.png" in w for w in dataset.warnings)
    assert any("1 image without annotation left out: train/b.png" in w for w in dataset.warnings)


def test_images_that_were_scaled_as_a_whole(folder, labels):
    folder.image("a.png", 24, 32)
    runs = {"size": [12, 16], "counts": [0, 12, 12 * 15]}
    objects = [(0, 0, [square(4, 4, 8, 8)], 0), (0, 1, runs, 0)]
    write_json(folder, "a.json", coco(["a.png"], objects))
    label = labels()[1]["a"]
    assert (label[8:16, 8:16] == 1).all()
    assert (label[:, :2] == 2).all()
    assert (label > 0).sum() == 64 + 48


def test_a_run_keeps_its_classes_by_name(folder, labels):
    folder.image("a.png")
    write_json(folder, "a.json", coco(["a.png"], [(0, 0, [square(0, 0, 4, 4)], 0)], ["dirt"]))
    names, table = ("background", "cell", "dirt"), {0: 0, 1: 1, 2: 2, 255: 255}
    run = Dataset(folder.path, label_map=table, class_names=names)
    assert run[0].label.max() == 2
    with pytest.raises(DataError, match="classes dirt are none of the run's classes"):
        Dataset(folder.path, label_map={0: 0, 1: 1}, class_names=("background", "cell"))


def changed(**parts):
    return {**coco(["a.png"], [(0, 0, [square(0, 0, 4, 4)], 0)]), **parts}


def with_object(segmentation, category=7):
    one = {"id": 0, "image_id": 0, "category_id": category, "segmentation": segmentation}
    return changed(annotations=[one])


BAD = {
    "twice": changed(images=[{"id": 0, "file_name": "a.png"}] * 2),
    "need an id": changed(images=[{"file_name": "a.png"}]),
    "which is not listed": with_object([square(0, 0, 4, 4)], 99),
    "is in the folder": changed(images=[{"id": 0, "file_name": "../../etc/passwd"}]),
    "far outside": with_object([[0, 0, 1e9, 0, 3, 3]]),
    "not pairs of numbers": with_object([["0", 0, 4, 0, 4, 4]]),
    "encloses nothing": with_object([[0, 0, 4, 4]]),
    "are of the size": with_object({"size": [9999999, 9999999], "counts": [3]}),
    "neither a list": with_object({"size": [12, 16], "counts": {}}),
    "run lengths make": with_object({"size": [12, 16], "counts": [3]}),
    "neither polygons": with_object("polygon"),
    "annotated at 20 x 20": changed(
        images=[{"id": 0, "file_name": "a.png", "height": 20, "width": 20}]
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_files_are_one_line(folder, message):
    folder.image("a.png")
    write_json(folder, "a.json", BAD[message])
    with pytest.raises(DataError, match=message) as error:
        Dataset(folder.path)
    assert "a.json" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + '"segmentation"', "nested too deeply"),
        ('{"images": [], "annotations": [{"segmentation": [[NaN]]}]}', "not valid JSON"),
        ('{"images": [], "annotations": [{"segmentation": [[1', "not valid JSON"),
    ],
)
def test_files_that_are_no_json(folder, text, message):
    folder.image("a.png")
    folder.text("a.json", text)
    with pytest.raises(DataError, match=message):
        Dataset(folder.path)


def test_masks_on_request_and_an_image_annotated_twice(folder):
    folder.pairs(2)
    one = coco(["a0.png", "a1.png"], [(0, 0, [square(0, 0, 4, 4)], 0)])
    write_json(folder, "one.json", one)
    assert Dataset(folder.path, annotations="none").class_names == ("class 0", "class 1")
    write_json(folder, "two.json", one)
    with pytest.raises(DataError, match=r"annotated twice, in one\.json and in two"):
        Dataset(folder.path)
    assert Dataset(folder.path, annotations="two.json").class_names[1] == "cell"
    with pytest.raises(DataError, match="nothing of the kind"):
        Dataset(folder.path, annotations="labelme")
