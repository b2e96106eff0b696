import numpy as np
import pytest

from tests.data.annotations.conftest import write_json
from tinyseg.data import Dataset
from tinyseg.data.annotations.label_studio_brush import brush_mask
from tinyseg.errors import DataError


def result(kind, label, **value):
    return {
        "type": kind,
        "original_width": 16,
        "original_height": 12,
        "value": {kind: [label], **value},
    }


def task(number, image, *results, **more):
    entry = {"id": 9, "result": list(results), **more}
    return {"id": number, "data": {"image": image}, "annotations": [entry]}


def packed(values):
    """Encode bytes as Label Studio does, by runs of at most 2**16 and words of 8 bits."""
    text = f"{len(values):032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
        if end - start == 2:
            text += f"0{0:02b}{1:03b}{values[start]:08b}{values[start]:08b}"
        else:
            text += f"1{3:02b}{end - start - 1:016b}{values[start]:08b}"
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def test_json_export(folder, labels):
    for name in ("x.png", "y z.png", "1a2b3c4d-w.png", "open.png"):
        folder.image(name)
    painted = np.zeros((12, 16, 4), np.uint8)
    painted[2:4, 3:9, 3] = 255
    brush = result("brushlabels", "dirt", format="rle", rle=packed(painted.ravel()))
    square = [[25, 25], [50, 25], [50, 75], [25, 75]]
    tasks = [
        task(1, "/data/upload/1/x.png", result("polygonlabels", "cell", points=square), brush),
        task(
            2,
            "/data/local-files/?d=a/y%20z.png",
            result("rectanglelabels", "cell", x=25, y=25, width=25, height=50, rotation=0),
            result("rectanglelabels", "cell", x=75, y=50, width=25, height=25, rotation=90),
            result("choices", "cell"),
        ),
        task(3, "s3://b/w.png"),
        task(4, "s3://b/open.png", was_cancelled=True),
    ]
    tasks[2]["data"]["image"] = "/data/upload/1a2b3c4d-w.png"
    tasks[2]["annotations"][0]["result"] = [
        result("ellipselabels", "dirt", x=50, y=50, radiusX=25, radiusY=25, rotation=0)
    ]
    write_json(folder, "project.json", tasks)
    dataset, by_name = labels()
    assert dataset.class_names == ("background", "cell", "dirt")
    wanted = np.zeros((12, 16), np.uint8)
    wanted[3:9, 4:8] = 1
    wanted[2:4, 3:9] = 2
    np.testing.assert_array_equal(by_name["x"], wanted)
    wanted = np.zeros((12, 16), np.uint8)
    wanted[3:9, 4:8] = 1
    wanted[6:10, 9:12] = 1
    np.testing.assert_array_equal(by_name["y z"], wanted)
    rows, columns = np.mgrid[:12, :16] + 0.5
    oval = ((rows - 6) / 3) ** 2 + ((columns - 8) / 4) ** 2
    label = by_name["1a2b3c4d-w"]
    assert (label[oval < 0.9] == 2).all()
    assert not label[oval > 1.1].any()
    assert any("1 task without annotation left out" in text for text in dataset.warnings)


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (None, "list of bytes"),
        ([1, 2, 300], "list of bytes"),
        ([0, 0], "cut short"),
        ([0, 0, 0, 9, 0, 0, 0, 0], "another size"),
        (packed(np.zeros(12 * 16 * 4, np.uint8))[:-2], "cut short"),
    ],
)
def test_bad_brush_masks(rle, message):
    with pytest.raises(ValueError, match=message):
        brush_mask(rle, (12, 16))


def test_masks_named_by_task_need_the_export_or_an_order(folder, labels):
    for number in range(2):
        folder.image(f"images/1a2b3c{number}-f.jpg")
        for label, rows in (("cell", 4), ("big cell", 2)):
            name = f"masks/task-{number + 11}-annotation-5-by-1-tag-{label}-0.png"
            folder.mask(name, [255] + [0] * (12 // rows - 1))
        folder.mask(f"masks/task-{number + 11}-annotation-6-by-me@x.org-tag-cell-1.png")
    with pytest.raises(DataError, match=r"set data\.annotations=label_studio_sorted"):
        Dataset(folder.path)
    dataset, by_name = labels(annotations="label_studio_sorted")
    assert dataset.class_names == ("background", "big cell", "cell")
    first = by_name["1a2b3c0-f"]
    assert (first[:4] == 2).all()
    assert not first[4:].any()
