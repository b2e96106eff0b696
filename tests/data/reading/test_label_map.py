from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.data.reading.label_map import (
    ANY,
    LabelMap,
    check_known,
    label_text,
    parse_labels,
)
from tinyseg.data.reading.label_scan import find_label_map
from tinyseg.data.reading.mask_facts import mask_facts
from tinyseg.data.reading.mask_pixels import COLOR, Mask
from tinyseg.errors import DataError

FILE = Path("masks/a.png")


def bands(*values):
    return np.repeat(np.array(values), 5)[:, None].repeat(20, 1).astype(np.int32)


def scan(*masks, preset=None):
    facts = [mask_facts(Mask(mask), Path(f"m{i}.png")) for i, mask in enumerate(masks)]
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
        ("0:0,*:1", {0: 0, ANY: 1}),
        ("0:0,70000:1,20000000:2", {0: 0, 70000: 1, COLOR + 20000000: 2}),
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
        ("0:0,1-70000:1", r'exceeds .*"\*"'),
        ("0:0,5000000000:1", "exceeds values"),
        ("auto,*:1", "keep one"),
        ("0:0,*-9:1", "not understood"),
        ("0:0,1:1,1:0", "value 1 two classes"),
        ("0:0,1:300", "exceeds"),
    ],
)
def test_bad_texts_are_quoted_with_the_rule(text, said):
    with pytest.raises(DataError, match=said):
        parse_labels(text)


def test_label_text_is_read_back():
    table = {0: 0, 7: 255, COLOR + 0x102030: 1, COLOR + (1 << 25): 2, ANY: 1}
    assert label_text(table) == "0:0,7:ignore,#102030:1,33554432:2,*:1"
    assert parse_labels(label_text(table)) == table
    halves = {value: int(value > 127) for value in range(256)}
    assert label_text(halves) == "0-127:0,128-255:1"
    assert parse_labels(label_text(halves)) == halves


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
    assert scan(bands(0, 1, 255)).warnings == (
        'mask value 255 is ignored; to make it a class set data.labels="auto,255:2"',
    )
    stray = scan(*[bands(0, 255)] * 39, bands(0, 7, 255))
    assert stray.classes == 3
    assert (
        'few of 40 masks became classes: 7; if they are stray set data.labels="auto,7:ignore"'
        in (stray.warnings[0])
    )
    assert scan(bands(0, 255)).warnings == ()
    numbered = scan(bands(*range(10)), bands(*range(14)))
    assert 'data.labels="0:0,*:1"' in numbered.warnings[0]


def test_a_few_stray_pixels_next_to_clear_classes_are_ignored_and_it_is_said():
    stray = bands(0, 255).repeat(5, 0).repeat(5, 1)
    stray[3, 7:9] = 3, 4
    found = scan(*[bands(0, 255).repeat(5, 0).repeat(5, 1)] * 11, stray)
    assert found.table == {0: 0, 3: 255, 4: 255, 255: 1}
    (said,) = found.warnings
    assert "mask values 3, 4 hold" in said
    assert "in 1 of 12 masks (m11.png): ignored as annotation noise" in said
    assert 'data.labels="auto,3:2,4:3"' in said
    assert scan(stray, preset=parse_labels("auto,3:2,4:3")).table == {0: 0, 3: 2, 4: 3, 255: 1}


def test_a_rare_class_that_continues_the_ids_is_kept():
    usual = bands(0, 1, 2).repeat(9, 0).repeat(9, 1)
    rare = usual.copy()
    rare[:12, :15] = 3  # 1 % of its mask, 0.07 % of all
    assert scan(*[usual] * 10, rare).classes == 4
    rare[:12, 1:15] = 0
    assert scan(*[usual] * 10, rare).table[3] == 255


def test_class_ids_interpolated_along_edges_are_ignored():
    mask = np.ones((200, 200), np.uint8)
    mask[20:180, 20:180] = 8
    mask[60:80, 60:80] = 2
    mask[60, 60:70], mask[61, 60:64] = 3, 5
    assert scan(mask, mask, mask).table == {1: 0, 2: 1, 3: 255, 5: 255, 8: 2}


@pytest.mark.parametrize(
    ("values", "ignored"),
    [((0, 5, 100, 200), True), ((0, 2, 3), True), ((0, 64, 128, 191), False), ((0, 100), False)],
)
def test_255_next_to_many_classes_is_ignored(values, ignored):
    found = scan(bands(*values, 255), bands(*values))
    assert (found.table[255] == 255) == ignored
    assert found.classes == len(values) + (not ignored)
    last = f"255:{len(values)}"
    assert scan(bands(*values, 255), preset=parse_labels(f"auto,{last}")).classes == len(values) + 1


def test_255_is_the_object_where_other_values_are_few():
    assert scan(*[bands(0, 255)] * 5, bands(0, 1, 2, 255)).table[255] == 3


def test_given_values_leave_the_rest_to_the_scan():
    found = scan(bands(0, 1, 2, 11), preset={11: 255})
    assert found.table == {0: 0, 1: 1, 2: 2, 11: 255}
    assert found.classes == 3


def test_masks_of_one_value_are_refused():
    with pytest.raises(DataError, match="all 2 masks are empty: they hold only 0"):
        scan(bands(0), bands(0))
    with pytest.raises(DataError, match="all 1 masks are 255 everywhere"):
        scan(bands(255))


def test_soft_masks_of_two_values_are_divided_and_others_refused(tmp_path):
    hard = (soft_disc() > 127).astype(np.uint8) * 255
    Image.fromarray(hard).save(tmp_path / "m.jpg", quality=90)
    jpeg = np.asarray(Image.open(tmp_path / "m.jpg"))
    halved = np.asarray(Image.fromarray(hard).resize((31, 31), Image.Resampling.BILINEAR))
    for soft in (soft_disc(), jpeg, halved):
        found = scan(hard, soft)
        assert found.table == {value: int(value > 127) for value in range(256)}
        (said,) = found.warnings
        assert "soft edges" in said
        assert "in 1 of 2 masks (m1.png)" in said
        assert 'data.labels="0-127:0,128-255:1"' in said
    assert scan(hard).table == {0: 0, 255: 1}
    three = (hard // 2).copy()
    three[:20] = np.where(hard[:20], 255, 0)  # a third value, as large as the others
    three = np.asarray(Image.fromarray(three).resize((50, 50), Image.Resampling.BILINEAR))
    for other in (three, bands(0, 1)):
        with pytest.raises(DataError, match=r"(m1|m2)\.png: .*(soft edges|0 and 1)"):
            scan(hard, other, soft_disc())


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
    with pytest.raises(DataError, match=r'm0\.png: more than 64 .*labels="0:0,\*:1"'):
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
