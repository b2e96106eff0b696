from contextlib import suppress

import numpy as np
import pytest

from tinyseg.config import Config, DataConfig
from tinyseg.data import Dataset
from tinyseg.data.annotations import find_annotations
from tinyseg.data.checks.check import check
from tinyseg.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
LABELS = np.zeros((4, 12, 16), np.uint8)
LABELS[:, 2:6, 3:9] = 1
LABELS[1:, 7:9, 3:9] = 2


def save(folder, name, array):
    path = folder.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def test_pairs_of_files(folder, labels):
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        save(folder, f"images/a{number}.npy", image.transpose(2, 0, 1) if number else image)
        save(folder, f"masks/a{number}.npy", label[None] if number else label.astype(np.int64))
    dataset, by_name = labels()
    np.testing.assert_array_equal(dataset["a1"].image, IMAGES[1])
    np.testing.assert_array_equal(by_name["a1"], LABELS[1])
    assert dataset.layout.startswith("NumPy: 4 images in 4 pairs of arrays, such as images/a0")
    assert check(folder.path, Config()).images == 4


def test_stacks(folder, labels):
    save(folder, "X_train.npy", IMAGES.astype(np.float32) / 255)
    save(folder, "y_train.npy", LABELS[..., None].astype(np.float64))
    save(folder, "X_val.npy", IMAGES[:2].astype(np.float32) / 255)
    save(folder, "y_val.npy", LABELS[:2, ..., None].astype(np.float64))
    save(folder, "types.npy", np.array(["a", "b"]))
    dataset, by_name = labels()
    assert dataset.names[:2] == ("X_train_0000", "X_train_0001")
    assert dataset.predefined["val"] == ("X_val_0000", "X_val_0001")
    np.testing.assert_array_equal(by_name["X_train_0003"], LABELS[3])
    np.testing.assert_allclose(dataset[3].image, IMAGES[3] / 255, atol=1e-6)


def test_archives_and_masks_of_image_files(folder, labels):
    for number in range(2):
        path = folder.path / f"{number}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, image=IMAGES[number], mask=LABELS[number] * 100, name="x")
    folder.image("c.png")
    save(folder, "c_mask.npy", LABELS[2] > 0)
    _, by_name = labels(labels="0:0,1:1,100:1,200:1")
    assert sorted(by_name) == ["0", "1", "c"]
    np.testing.assert_array_equal(by_name["0"], LABELS[0])
    np.testing.assert_array_equal(by_name["c"], LABELS[2] > 0)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (IMAGES, LABELS[:3], "one label for each image"),
        (IMAGES[0], np.zeros((12, 16, 3), np.uint8), "argmax"),
        (IMAGES[0], LABELS[0, :5], "the mask is 5 x 16 pixels"),
        (IMAGES[0] * np.nan, LABELS[0], "NaN or infinite"),
        (IMAGES[0], LABELS[0] - 1.0, "whole values"),
        (np.zeros((2, 3, 4, 5, 6)), LABELS[:2], "not \\(H, W\\)"),
        (np.array([{}]), LABELS[0], "no pair of image and label"),
    ],
)
def test_arrays_that_do_not_fit(folder, image, label, message):
    path = folder.path / "a.npz"
    path.parent.mkdir()
    np.savez(path, image=image, mask=label)
    with pytest.raises(DataError, match=message):
        Dataset(folder.path)


def header(shape, kind="|u1"):
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        header("(" * 5000),
        header((1 << 40, 1 << 40)),
        header((-1, 5)),
        header((12, 16)) + b"short",
        header((12, 16), "O") + b"cos\nsystem\n(S'false'\ntR.",
    ],
    ids=["empty", "cut", "nested", "huge", "negative", "short", "pickle"],
)
def test_damaged_files(folder, content):
    save(folder, "a_image.npy", IMAGES[0])
    folder.text("a_mask.npy", content)
    with pytest.raises(DataError, match=r"save it again|no pair of image"):
        Dataset(folder.path)


@pytest.mark.parametrize("name", ["a_mask.npy", "a.npz"])
def test_flipped_bytes(folder, name):
    save(folder, "a_image.npy", IMAGES[0])
    save(folder, "a_mask.npy", LABELS[0])
    path = folder.path / name
    if name == "a.npz":
        np.savez(path, image=IMAGES[0], mask=LABELS[0])
        (folder.path / "a_mask.npy").unlink()
    content = path.read_bytes()
    for _ in range(100):
        data = bytearray(content)
        for place in RNG.integers(0, 300, 2):
            data[place] = RNG.integers(256)
        path.write_bytes(data)
        with suppress(DataError):
            found = find_annotations(folder.path, DataConfig())
            for case in found.layout.cases if found else ():
                case.annotation.draw((12, 16))
                case.annotation.image()
