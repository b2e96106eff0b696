"""The five published subsets, every file; skipped where they are not beside the checkout."""

from functools import reduce

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import DataConfig
from tinyseg.data import Dataset, make_split

pytestmark = pytest.mark.slow


def opened(folder, **settings):
    return Dataset(folder, DataConfig(**settings))


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").getchannel(0) if image.mode == "1" else image)


def grey(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def joined(paths):
    return reduce(np.logical_or, (grey(path) > 0 for path in paths)).astype(int)


def pets(root, name):
    trimap = read(root / "annotations/trimaps" / f"{name}.png")
    return np.select([trimap == 1, trimap == 2, trimap == 3], [1, 0, 255])


def species(root, name):
    label = pets(root, name)
    return np.where(label == 0, 0, 1 if name[0].isupper() else 2)  # cats have capital letters


def busi(root, name):
    kind, stem = name.split("/")
    paths = [path for path in (root / kind).iterdir() if path.name.startswith(f"{stem}_mask")]
    return joined(paths)


def isbi2012(root, name):
    return 1 - read(root / "train/label" / f"{name.removeprefix('train/')}.png") // 255


def camvid(root, name):
    split, frame = name.split("/")
    values = read(root / f"{split}annot" / f"{frame}.png")
    return np.where(values == 11, 255, values)


def dsb2018(root, name):
    return joined((root / "stage1_train" / name / "masks").iterdir())


@pytest.mark.parametrize(
    ("text", "oracle", "images", "masks"),
    [
        ("pets:{}/pets", pets, 201, 201),
        ("pets:{}/pets?target=species&border=foreground", species, 201, 201),
        ("busi:{}/busi", busi, 145, 163),
        ("isbi2012:{}/isbi2012", isbi2012, 30, 30),
        ("camvid:{}/camvid", camvid, 118, 118),
        ("dsb2018:{}/dsb2018", dsb2018, 83, 3701),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_file_of_a_named_dataset(shared_data, text, oracle, images, masks):
    data = opened(text.format(shared_data))
    root = shared_data / text.partition(":")[0]
    assert len(data) == images
    count = 0
    for index, name in enumerate(data.names):
        sample = data[index]
        count += len(sample.files) - 1
        np.testing.assert_array_equal(sample.label, oracle(root, name), err_msg=name)
        assert sample.image.shape == (*sample.label.shape, data.channels)
    assert count == masks


def test_pets_official_split_without_the_wrong_trimap(shared_data):
    data = opened(f"pets:{shared_data}/pets")
    split = make_split(data, DataConfig())
    assert [len(part) for part in (split.train, split.val, split.test)] == [81, 20, 100]
    left_out, duplicates = data.warnings
    assert left_out == "1 images in no official list left out: Abyssinian_34"
    assert "Abyssinian_5 ~ Abyssinian_87 (look the same" in duplicates


def test_busi_equal_images_stay_together(shared_data):
    data = opened(f"busi:{shared_data}/busi")
    same, *near = data.duplicates
    assert same.names == ("benign/benign (433)", "malignant/malignant (145)")
    assert same.kind == "identical"
    # looked at: six lesions were photographed twice
    assert [pair.kind for pair in near] == [*["same"] * 5, "near"]
    assert any("23 of 145 masks are empty" in warning for warning in data.warnings)
    for seed in range(10):
        split = make_split(data, DataConfig(split_seed=seed, test_fraction=0.2))
        for pair in data.duplicates:
            names = set(pair.names)
            assert names in [names & set(part) for part in (split.train, split.val, split.test)]


def test_camvid_has_its_own_split(shared_data):
    data = opened(f"camvid:{shared_data}/camvid")
    split = make_split(data, DataConfig())
    assert [len(part) for part in (split.train, split.val, split.test)] == [62, 17, 39]
    assert "0001TP (test, train); 0016E5 (train, val)" in data.warnings[0]


def test_the_folders_open_without_a_name_too(shared_data):
    isbi = opened(shared_data / "isbi2012", labels="0:1,255:0")
    assert (len(isbi), isbi.classes, isbi.channels) == (30, 2, 1)
    assert isbi.names[:3] == ("train/0", "train/1", "train/2")
    assert any("30 images without any mask left out" in warning for warning in isbi.warnings)
    camvid = opened(shared_data / "camvid", labels="auto,11:ignore")
    assert (len(camvid), camvid.classes) == (118, 11)
    trimaps = opened(shared_data / "pets")
    assert (len(trimaps), trimaps.classes, trimaps.channels) == (202, 3, 3)
    assert any('data.labels="1:1,2:0,3:ignore"' in warning for warning in trimaps.warnings)
