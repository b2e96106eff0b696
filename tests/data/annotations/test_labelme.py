import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.data.annotations.conftest import labelme, write_json
from tinyseg.data import Dataset
from tinyseg.errors import DataError

TRIANGLE = [[1, 1], [6, 1], [6, 6]]


def test_shapes_as_labelme_exports_them(folder, labels):
    shapes = [
        ("a", "rectangle", [[8, 5], [2, 1]]),
        ("b", "circle", [[11, 8], [11, 10]]),
        ("c", "polygon", [[4, 3], [8, 3], [8, 9], [4, 9]]),
        ("_background_", "rectangle", [[6, 6], [7, 7]]),
        ("__ignore__", "rectangle", [[15, 11], [15, 11]]),
        ("a", "polygon", [[1, 1], [5, 5]]),
    ]
    folder.image("pictures/x.png")
    write_json(folder, "json/x.json", labelme("..\\pictures\\x.png", shapes))
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "a", "b", "c")
    wanted = np.zeros((12, 16), np.uint8)
    wanted[1:6, 2:9] = 1
    rows, columns = np.mgrid[:12, :16]
    disk = (rows - 8) ** 2 + (columns - 11) ** 2 <= 5
    wanted[disk] = 2
    wanted[3:10, 4:9] = 3  # outlines belong to the shape
    wanted[6:8, 6:8] = 0
    wanted[11, 15] = 255
    np.testing.assert_array_equal(by_name["x"], wanted)
    assert any("enclose nothing" in warning for warning in dataset.warnings)


@pytest.mark.parametrize(
    ("kind", "points", "count"),
    [
        ("line", [[0, 5], [15, 5]], 160),
        ("linestrip", [[0, 5], [15, 5], [0, 5]], 176),
        ("point", [[8, 5]], 97),
        ("points", [[8, 5], [8, 5]], 97),
        ("oriented_rectangle", [[1, 1], [4, 1], [4, 3], [1, 3]], 12),
        (None, TRIANGLE, 21),
    ],
)
def test_other_shapes(folder, labels, kind, points, count):
    folder.image("x.png")
    write_json(folder, "x.json", labelme("gone.png", [("a", kind, points)]))
    assert (labels()[1]["x"] == 1).sum() == count


def png(mask):
    data = io.BytesIO()
    Image.fromarray(mask).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def test_images_inside_the_files(folder):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    content = labelme("gone.jpg", [("a", "polygon", TRIANGLE)])
    write_json(folder, "x.json", {**content, "imageData": png(pixels)})
    write_json(folder, "y.json", {**content, "imageData": png(pixels[..., 0])})
    x, y = Dataset(folder.path)
    assert (x.name, y.name) == ("x", "y")
    np.testing.assert_array_equal(x.image, pixels)
    np.testing.assert_array_equal(y.image, pixels[..., :1].repeat(3, axis=2))
    write_json(folder, "y.json", {**content, "imageData": png(pixels)[:-40]})
    with pytest.raises(DataError, match=r"y\.json: its imageData is damaged"):
        Dataset(folder.path)


def test_mask_shapes(folder, labels):
    folder.image("x.png")
    content = labelme("x.png", [("a", "mask", [[2, 3], [5, 4]])])
    mask = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], bool)
    content["shapes"][0]["mask"] = png(mask)
    write_json(folder, "x.json", content)
    label = labels()[1]["x"]
    np.testing.assert_array_equal(label[3:5, 2:6], mask)
    assert label.sum() == 4
    content["shapes"][0]["points"] = [[12, 3], [15, 3]]
    write_json(folder, "x.json", content)
    with pytest.raises(DataError, match="does not fill its rectangle"):
        labels()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (("a", "polygon", [[0, 0], [1e12, 0], [0, 5]]), "far outside"),
        (("a", "polygon", [[0, 0], ["x", 0], [0, 5]]), "not pairs of numbers"),
        (("a", "polygon", [[0, 0], [0], [0, 5]]), "not pairs of numbers"),
        (("a", "ellipse7", [[0, 0]]), "not known"),
        (("a", "mask", [[0, 0], [3, 3]]), "cannot be read"),
        (("_background_", "polygon", TRIANGLE), "no object"),
    ],
)
def test_bad_shapes_are_one_line(folder, shape, message):
    folder.image("x.png")
    write_json(folder, "x.json", labelme("x.png", [shape]))
    with pytest.raises(DataError, match=message):
        Dataset(folder.path)


def test_masks_next_to_labelme_files_are_taken(folder):
    folder.image("x.png")
    folder.mask("x_mask.png")
    write_json(folder, "json/x.json", labelme("../x.png", [("a", "polygon", TRIANGLE)]))
    assert Dataset(folder.path).class_names == ("background", "a")
    assert Dataset(folder.path, annotations="none").label_map == {0: 0, 255: 1}


def test_the_tools_own_labels(shared_data):
    """labelme's export of the same shapes lies next to them."""
    folder = shared_data / "wild" / "workpiece_labelme"
    dataset = Dataset(folder, annotations="labelme")
    for sample in dataset:
        exported = folder / "labelme_json" / f"{sample.name}_json"
        names = (exported / "label_names.txt").read_text().split()
        ids = np.array([0 if name == "_background_" else int(name) for name in names])
        label = ids[np.asarray(Image.open(exported / "label.png"))]
        np.testing.assert_array_equal(sample.label, label)
