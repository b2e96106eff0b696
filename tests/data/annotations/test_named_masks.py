import numpy as np
import pytest

from tests.data.annotations.conftest import labelme, write_json
from tinyseg.config import DataConfig
from tinyseg.data import Dataset
from tinyseg.data.annotations import find_annotations
from tinyseg.errors import DataError

CAT, DOG, BORDER = (48, 112, 32), (176, 112, 32), (224, 224, 192)
LABELMAP = (
    "# label:color_rgb:parts:actions\ncat:48,112,32::\nbackground:0,0,0::\ndog:176,112,32::\n"
)


def bands(*colors):
    return np.repeat(np.array(colors, np.uint8)[:, None], 6, axis=1).repeat(3, axis=0)


def test_label_names_are_local_to_an_image(folder, labels):
    for number, names in enumerate(["_background_\npea\n", "_background_\napple\npea\n"]):
        home = f"data/{number}_json"
        folder.image(f"{home}/img.png", rgb=True)
        folder.mask(f"{home}/label.png", range(names.count("\n")))
        folder.image(f"{home}/label_viz.png", rgb=True)
        folder.text(f"{home}/label_names.txt", names)
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "apple", "pea")
    assert np.unique(by_name["0_json"]).tolist() == [0, 2]
    assert np.unique(by_name["1_json"]).tolist() == [0, 1, 2]
    folder.mask("data/1_json/label.png", range(4))
    with pytest.raises(DataError, match=r"has the value 3, but label_names\.txt has 3 lines"):
        labels()


def voc(folder):
    folder.text("labelmap.txt", LABELMAP)
    for number, split in enumerate(["train", "train", "val"]):
        folder.image(f"a/JPEGImages/{number}.jpg", 12, 6, rgb=True)
        colors = [(0, 0, 0), CAT, DOG if number else CAT, BORDER]
        folder.save(f"a/SegmentationClass/{number}.png", bands(*colors))
        folder.save(f"a/SegmentationObject/{number}.png", bands((9, 9, 9), CAT, DOG, DOG))
        listing = folder.path / f"a/ImageSets/Segmentation/{split}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        with listing.open("a") as file:
            file.write(f"{number}\n")


def test_colors_are_classes_by_labelmap(folder, labels):
    voc(folder)
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "cat", "dog")
    np.testing.assert_array_equal(by_name["1"][::3, 0], [0, 1, 2, 255])
    assert dataset.predefined == {"train": ("0", "1"), "val": ("2",)}


def test_palettes_mean_their_colors(folder, labels):
    voc(folder)
    from PIL import Image

    path = folder.path / "a/SegmentationClass/1.png"
    Image.open(path).quantize(8).save(path)
    np.testing.assert_array_equal(labels()[1]["1"][::3, 0], [0, 1, 2, 255])


def test_classes_by_name_and_those_without_a_pixel(folder, labels):
    voc(folder)
    folder.text("labelmap.txt", LABELMAP.replace("dog", "fox:9,9,9::\ndog"))
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "cat", "dog")
    assert any("classes without a pixel left out: fox" in warning for warning in dataset.warnings)
    assert by_name["1"][6, 0] == 2
    animals = labels(labels="background:0, cat:1, dog:1, fox:ignore")[0]
    assert animals.class_names == ("background", "cat+dog")
    for text, message in (
        ("0:0,1:1", "give each class"),
        ("cat:1,dog:0", "does not say"),
    ):
        with pytest.raises(DataError, match=message):
            Dataset(folder.path, labels=text)


def test_a_color_without_a_name(folder):
    voc(folder)
    folder.save("a/SegmentationClass/1.png", bands((0, 0, 0), CAT, (1, 2, 3), BORDER))
    with pytest.raises(DataError, match=r"25\.0% of its pixels.*of no class .#010203"):
        Dataset(folder.path)


def test_a_run_keeps_its_classes_by_name(folder):
    voc(folder)
    folder.text("labelmap.txt", LABELMAP.replace("cat:", "fox:9,9,9::\ncat:"))
    names, table = ("background", "dog", "cat"), {0: 0, 1: 1, 5: 2}
    run = Dataset(folder.path, label_map=table, class_names=names)
    assert run["1"].label[::3, 0].tolist() == [0, 2, 1, 255]
    assert run.fingerprint() == Dataset(folder.path).fingerprint()
    with pytest.raises(DataError, match="colors of no class"):
        Dataset(folder.path, label_map={0: 0, 1: 1}, class_names=("background", "cat"))


def test_other_formats_in_the_folder_are_named(folder):
    voc(folder)
    for number in range(3):
        shape = ("cat", "polygon", [[0, 0], [4, 0], [4, 4]])
        content = labelme(f"{number}.jpg", [shape], (12, 6))
        write_json(folder, f"json/{number}.json", content)
    found = find_annotations(folder.path, DataConfig())
    assert found.format == "voc"
    assert found.layout.taken.endswith("; to use others set data.annotations=labelme")
    assert Dataset(folder.path, annotations="labelme").class_names == ("background", "cat")
