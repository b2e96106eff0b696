"""Real folders and exports of many tools: how many images they give, or how they are refused."""

import re

import pytest

from tinyseg.config import DataConfig
from tinyseg.data.annotations import find_annotations
from tinyseg.data.reading.layouts import find_cases
from tinyseg.errors import DataError

IMAGES = {
    "wild/breast_prefix": 8,
    "wild/chase_flat": 28,
    "wild/coco_shapes": 2,
    "wild/crackforest_upper": 16,
    "wild/fire_prefix": 11,
    "wild/sandstone_tif": 3,
    "wild/shapes_json": 40,
    "wild/voc_cvat_nested": 16,
    "wild/whales_mixed": 82,
    "wild/workpiece_labelme": 8,
    "wild/pyimsegm_multi/data-images/langerhans_islets": 7,
    "wild/pyimsegm_multi/data-images/drosophila_disc": 10,
    "cases/class_folders": 10,
    "cases/cvat": 10,
    "cases/isic": 8,
    "cases/labelme_folders": 9,
    "cases/labelme_json": 6,
    "cases/prefixes": 8,
    "cases/unicode": 10,
}
REFUSED = {
    "wild/pyimsegm_multi": "several datasets",
    "wild/pyimsegm_multi/data-images/drosophila_ovary_slice": "two layouts fit about equally",
}


@pytest.mark.parametrize(("folder", "images"), IMAGES.items())
def test_a_real_folder_opens(shared_data, folder, images):
    drawn = find_annotations(shared_data / folder, DataConfig())
    layout = drawn.layout if drawn else find_cases(shared_data / folder, strict=False)
    assert len(layout.cases) == images
    assert layout.taken


@pytest.mark.parametrize(("folder", "why"), REFUSED.items())
def test_a_real_folder_is_refused_with_options(shared_data, folder, why):
    with pytest.raises(DataError, match=why) as caught:
        find_cases(shared_data / folder)
    options = re.findall(r'data.images="(.*?)" data.masks="(.*?)"', str(caught.value))
    assert len(options) == 2
    for images, masks in options:
        assert find_cases(shared_data / folder, strict=False, images=images, masks=masks).cases
