"""The layouts as they are published; skipped where ../shared/data is not beside the checkout."""

import numpy as np
import pytest

from tinyseg.config import DataConfig
from tinyseg.data import make_split, open_dataset


def opened(folder, **settings):
    return open_dataset(folder, DataConfig(**settings))


def test_isbi2012_with_the_membrane_as_foreground(real_data):
    data = opened(real_data / "isbi2012", labels="0:1,255:0")
    assert (len(data), data.classes, data.channels) == (30, 2, 1)
    assert data.names[:3] == ("train/0", "train/1", "train/2")
    assert any("30 images without any mask left out" in warning for warning in data.warnings)
    assert 0.15 < np.mean([(data.load(i).label == 1).mean() for i in range(30)]) < 0.3


def test_busi_joins_its_masks_and_keeps_equal_images_together(real_data):
    data = opened(real_data / "busi")
    assert len(data) == 145
    assert data.twins == (("benign/benign (433)", "malignant/malignant (145)"),)
    assert any("23 of 145 masks are empty" in warning for warning in data.warnings)
    first = data.load(data.index("benign/benign (98)"))
    assert len(first.files) == 3
    assert (first.label == 1).mean() > 0
    assert len(data.load(data.index("benign/benign (195)")).files) == 4


def test_camvid_has_its_own_split(real_data):
    data = opened(real_data / "camvid", labels="auto,11:ignore")
    assert data.classes == 11
    split = make_split(data, DataConfig())
    assert [len(part) for part in (split.train, split.val, split.test)] == [62, 17, 39]
    assert 255 in data.load(0).label


def test_pets_with_its_trimaps(real_data):
    data = opened(real_data / "pets")
    assert (len(data), data.classes, data.channels) == (202, 3, 3)
    assert any('data.labels="1:1,2:0,3:ignore"' in warning for warning in data.warnings)
    assert opened(real_data / "pets", labels="1:1,2:0,3:ignore").classes == 2


@pytest.mark.slow
def test_dsb2018_merges_one_mask_per_nucleus(real_data):
    data = opened(real_data / "dsb2018")
    assert len(data) == 83
    assert sum(len(data.load(i).files) - 1 for i in range(83)) == 3701
