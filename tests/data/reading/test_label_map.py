from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.data.reading.decode import COLOR
from tinyseg.data.reading.label_map import (
    LabelMap,
    check_known,
    find_label_map,
    label_text,
    mask_facts,
    parse_labels,
)
from tinyseg.errors import DataError

FILE = Path("masks/a.png")


def bands(*values):
    return np.repeat(np.array(values), 5)[:, None].repeat(20, 1).astype(np.int32)


def scan(*masks, preset=None):
    facts = [mask_facts(mask, Path(f"m{i}.png")) for i, mask in enumerate(masks)]
    return find_label_map(facts, preset or {})


def soft_disc(size=64):
    row, col = np.mgrid[:size, :size] - size / 2 + 0.5
    return (np.clip(size / 3 - np.hypot(row, col) + 0.5, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("0:0,255:1", {0: 0, 255: 1}),
        ("0:1, 255:0", {0: 1, 255: 0}),
        ("1:1,2:0,3:ignore", {1: 1, 2: 0, 3: 255}),
        ("1:1,2:0,3:255", {1: 1, 2: 0, 3: 255}),
        ("0-2:0,3-4:1", {0: 0, 1: 0, 2: 0, 3: 1, 4: 1}),
        ("#000000:0,#FF0001:1", {0: 0, COLOR + 0xFF0001: 1}),
        ("auto,3:ignore", {3: 255}),
        ("auto", None),
    ],
)
def test_text_forms(text, table):
    assert parse_labels(text) == table


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0:0,x:1", "not understood at 'x:1'"),
        ("0:0", r"classes \[0\]; they must be 0, 1, 2"),
        ("0:0,1:2", "without a gap"),
        ("", "at least two"),
        ("5-3:0,1:1", "exceeds values"),
        ("0:0,70000:1", "exceeds values"),
        ("0:0,1:1,1:0", "value 1 two classes"),
        ("0:0,1:300", "exceeds"),
    ],
)
def test_bad_texts_are_quoted_with_the_rule(text, said):
    with pytest.raises(DataError, match=said):
        parse_labels(text)


def test_label_text_is_read_back():
    table = {0: 0, 7: 255, COLOR + 0x102030: 1}
    assert parse_labels(label_text(table)) == table


@pytest.mark.parametrize(
    ("values", "table", "classes"),
    [
        ((0, 255), {0: 0, 255: 1}, 2),
        ((0, 1), {0: 0, 1: 1}, 2),
        ((0, 38), {0: 0, 38: 1}, 2),
        ((0, 65535), {0: 0, 65535: 1}, 2),
        ((0, 1, 2), {0: 0, 1: 1, 2: 2}, 3),
        ((0, 128, 255), {0: 0, 128: 1, 255: 2}, 3),
        ((0, 85, 170, 255), {0: 0, 85: 1, 170: 2, 255: 3}, 4),
        ((0, 1, 255), {0: 0, 1: 1, 255: 255}, 2),
        ((0, 1, 2, 255), {0: 0, 1: 1, 2: 2, 255: 255}, 3),
        (tuple(range(12)), {c: c for c in range(12)}, 12),
        ((0, COLOR + 5, COLOR + 9), {0: 0, COLOR + 5: 1, COLOR + 9: 2}, 3),
    ],
)
def test_scanned_values_become_classes(values, table, classes):
    found = scan(bands(*values))
    assert found.table == table
    assert found.classes == classes


def test_values_are_joined_over_all_masks():
    assert scan(bands(0), bands(0, 2), bands(0, 1)).table == {0: 0, 1: 1, 2: 2}


def test_unusual_values_are_remarked_with_the_text_to_set():
    assert 'data.labels="1:1,2:0"' in scan(bands(1, 2)).warnings[0]
    assert 'data.labels="1:1,2:0,3:ignore"' in scan(bands(1, 2, 3)).warnings[0]
    assert scan(bands(0, 1, 255)).warnings == ("mask value 255 is ignored",)
    stray = scan(*[bands(0, 255)] * 39, bands(0, 7, 255))
    assert stray.classes == 3
    assert (
        'few of 40 masks became classes: 7; if they are stray set data.labels="auto,7:ignore"'
        in (stray.warnings[0])
    )
    assert scan(bands(0, 255)).warnings == ()
    numbered = scan(bands(*range(10)), bands(*range(14)))
    assert 'data.labels="0:0,1-65535:1"' in numbered.warnings[0]


def test_given_values_leave_the_rest_to_the_scan():
    found = scan(bands(0, 1, 2, 11), preset={11: 255})
    assert found.table == {0: 0, 1: 1, 2: 2, 11: 255}
    assert found.classes == 3


def test_masks_of_one_value_are_refused():
    with pytest.raises(DataError, match="all 2 masks are empty: they hold only 0"):
        scan(bands(0), bands(0))
    with pytest.raises(DataError, match="all 1 masks are 255 everywhere"):
        scan(bands(255))


def test_anti_aliased_and_jpeg_masks_are_refused(tmp_path):
    hard = (soft_disc() > 127).astype(np.uint8) * 255
    Image.fromarray(hard).save(tmp_path / "m.jpg", quality=90)
    jpeg = np.asarray(Image.open(tmp_path / "m.jpg"))
    halved = np.asarray(Image.fromarray(hard).resize((31, 31), Image.Resampling.BILINEAR))
    for soft in (soft_disc(), jpeg, halved):
        with pytest.raises(DataError, match=r'm1\.png: .*values 0, .*labels="0-127:0,128-255:1"'):
            scan(hard, soft)
    assert scan(hard).table == {0: 0, 255: 1}


def test_one_soft_mask_among_classes_is_found():
    classes = bands(*range(6))
    with pytest.raises(DataError, match=r"m3\.png: the mask has soft edges"):
        scan(classes, classes, classes, soft_disc())


def test_masks_of_0_and_1_among_masks_of_0_and_255_are_refused():
    with pytest.raises(DataError, match=r'm1\.png .* 0 and 1 but m0\.png .*"0:0,1:1,255:1"'):
        scan(bands(0, 255), bands(0, 1), bands(0))
    assert scan(bands(0, 1, 255), bands(0, 1), bands(0, 255)).table[255] == 255


def test_solid_classes_of_odd_values_are_not_taken_for_soft_edges():
    rng = np.random.default_rng(0)
    blocks = rng.choice([0, 40, 90, 130, 180, 220, 255], (8, 8)).repeat(8, 0).repeat(8, 1)
    assert scan(blocks.astype(np.uint8)).classes == 7


def test_more_than_64_solid_values_are_taken_for_numbered_objects():
    with pytest.raises(DataError, match=r'm0\.png: more than 64 .*labels="0:0,1-65535:1"'):
        scan(bands(*range(80)))


def test_unknown_values_are_named_with_the_file():
    check_known([9, 200, 3], {200: 0, 3: 255, 9: 1}, FILE)
    with pytest.raises(DataError, match=r"masks/a\.png: mask values 9 have no class .*9:ignore"):
        check_known([9, 200, 3], {200: 0, 3: 1}, FILE)
    with pytest.raises(DataError, match="values 7, 8"):
        check_known([0, 8, 7], {0: 0, 1: 1}, FILE)


def test_classes_leave_the_ignored_id_out():
    assert LabelMap({0: 0, 1: 1, 2: 255}).classes == 2
    assert LabelMap({0: 0, 1: 3, 2: 1, 9: 2}).classes == 4
