"""Layouts of many kinds, drawn here: what is paired, what is left over, what is refused."""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from tinyseg.data import Dataset
from tinyseg.data.checks.layout import describe_layouts
from tinyseg.data.reading.infer import infer
from tinyseg.data.reading.layouts import find_cases, find_layouts
from tinyseg.errors import DataError

N = 4


def blob(number: int, value: int = 255, where: int = 2) -> np.ndarray:
    """A label: one square, at another place in each image."""
    label = np.zeros((24, 32), np.uint8)
    label[where + number : where + number + 6, 4 + 2 * number : 14 + 2 * number] = value
    return label


def draw(folder, images: str, masks: str, numbers=range(N), **options) -> None:
    """Save an image and a mask for each number; {n} stands for it."""
    for n in numbers:
        if images:
            folder.image(images.format(n=n), 24, 32)
        if masks:
            folder.save(masks.format(n=n), blob(n, **options))


def pairs(folder, **options) -> list[tuple[str, ...]]:
    """Image and masks of each case, relative to the folder."""
    cases = find_cases(folder.path, **options).cases
    files = [(case.image, *case.masks) for case in cases]
    return [tuple(p.relative_to(folder.path).as_posix() for p in paths) for paths in files]


LAYOUTS = [
    ("images/{n}.png", "masks/{n}.png"),
    ("a/images/image_{n}.png", "a/masks/mask_{n}.png"),
    ("Images/00{n}.png", "Masks/00{n}_label.PNG"),
    ("data/tiles/tile_{n}.png", "data/truth/object_{n}.png"),
    ("{n}.png", "{n}_anything.png"),
    ("scan-{n}.png", "scan-{n}-lesion.tif"),
    ("all/img_{n}.png", "all/lab_{n}.png"),
    ("all/{n}_input.png", "all/{n}_output.bmp"),
    ("ISIC_Data/ISIC_{n}.png", "ISIC_GroundTruth/ISIC_{n}_segmentation.png"),
    ("case{n}/photo.png", "case{n}/tumour.png"),
    ("x/{n}/raw.png", "y/{n}.png"),
    ("x/{n}.png", "y/case_{n}/manual.png"),
    ("frames/frame{n}.png", "labels/frame00{n}.png"),
    ("imagesTr/case_{n}_0000.png", "labelsTr/case_{n}.png"),
    ("ORIGINAL/Ünï {n}.png", "Größe/Ünï {n}.png"),
]


@pytest.mark.parametrize(("images", "masks"), LAYOUTS)
def test_layouts_are_found_and_their_templates_select_the_same(folder, images, masks):
    draw(folder, images, masks)
    wanted = [(images.format(n=n), masks.format(n=n)) for n in range(N)]
    assert pairs(folder) == wanted
    found = find_layouts(folder.path)
    assert found.taken
    texts = re.findall(r'="(.*?)"', found.option(found.taken))
    assert pairs(folder, images=texts[0], masks=texts[1]) == wanted


def test_content_decides_which_side_is_the_label(folder):
    draw(folder, "masks/{n}.png", "images/{n}.png")
    assert pairs(folder)[0] == ("masks/0.png", "images/0.png")


def test_images_without_a_mask_are_left_out_and_said(folder):
    draw(folder, "{n}.jpg", "{n}.png")
    draw(folder, "{n}.jpg", "", range(4, 6))
    layout = find_cases(folder.path, strict=False)
    assert [case.name for case in layout.cases] == ["0", "1", "2", "3"]
    assert layout.bare == ("4.jpg", "5.jpg")
    assert layout.all_warnings == ("2 images without a mask left out: 4.jpg, 5.jpg",)
    with pytest.raises(DataError, match=r"2 images without mask: 4.jpg, 5.jpg"):
        find_cases(folder.path, strict=True)
    assert len(Dataset(folder.path, size=16)) == N
    with pytest.raises(DataError, match="without mask"):
        Dataset(folder.path, size=16, strict=True)


def test_the_first_of_two_raters_is_taken_and_the_other_said(folder):
    draw(folder, "{n}.jpg", "{n}_rater1.png")
    draw(folder, "", "{n}_rater2.png", where=3)
    layout = find_cases(folder.path)
    assert {case.masks[0].name for case in layout.cases} == {f"{n}_rater1.png" for n in range(N)}
    assert any("another rater" in text and "_rater2.png" in text for text in layout.warnings)


@pytest.mark.parametrize("other", ["overlay", "SegmentationObject", "edges", "predictions"])
def test_files_that_are_made_of_the_masks_are_not_the_masks(folder, other):
    draw(folder, "images/{n}.png", "labels/{n}.png")
    draw(folder, "", f"{other}/{{n}}.png", value=7)
    assert pairs(folder)[0] == ("images/0.png", "labels/0.png")


def test_the_field_of_view_is_not_the_label(folder):
    for n in range(N):
        folder.save(f"area/{n}.png", blob(0, where=4))
    draw(folder, "images/{n}.png", "manual/{n}.png")
    assert pairs(folder)[0] == ("images/0.png", "manual/0.png")


@pytest.mark.parametrize("masks", ["masks/{c}/{n}.png", "masks/{n}_{c}.png", "{c}/{n}_mask.png"])
def test_a_file_for_each_class(folder, masks):
    for at, name in ((2, "cell"), (12, "nucleus")):
        draw(folder, "", masks.replace("{c}", name), where=at)
    draw(folder, "images/{n}.png", "")
    data = Dataset(folder.path, size=32)
    assert data.class_names == ("background", "cell", "nucleus")
    wanted = np.maximum(blob(1, 1), blob(1, 2, 12))
    np.testing.assert_array_equal(data["1"].label, wanted)
    found = find_layouts(folder.path)
    text = re.findall(r'data.masks="(.*?)"', found.option(found.taken))[0]
    assert text == masks.replace("{c}", "{class}").replace("{n}", "{name}")
    again = Dataset(folder.path, size=32, images="images/{name}.png", masks=text)
    np.testing.assert_array_equal(again["1"].label, wanted)


def test_the_class_in_the_name_of_an_object(folder):
    draw(folder, "images/im_{n}.png", "objects/im_{n}_square_0.png")
    draw(folder, "", "objects/im_{n}_circle_0.png", where=12)
    draw(folder, "", "objects/im_{n}_circle_1.png", range(2), where=9)
    data = Dataset(folder.path, size=32)
    assert data.class_names == ("background", "circle", "square")
    assert set(np.unique(data["im_0"].label)) == {0, 1, 2}
    masks = "objects/{name}_{class}_{object}.png"
    again = Dataset(folder.path, size=32, images="images/{name}.png", masks=masks)
    for n in range(N):
        np.testing.assert_array_equal(again[f"im_{n}"].label, data[f"im_{n}"].label)


def test_layouts_that_fit_equally_are_refused_with_both_options(folder):
    draw(folder, "images/{n}.png", "organs/{n}.png", value=3)
    for n in range(N):
        folder.save(f"zones/{n}.png", blob(n, 1) + blob(n, 2, 12))
    with pytest.raises(DataError, match="two layouts fit about equally") as caught:
        find_cases(folder.path)
    for masks in ("organs", "zones"):
        option = f'data.images="images/{{name}}.png" data.masks="{masks}/{{name}}.png"'
        assert option in str(caught.value)
        assert f"--set {option}" in describe_layouts(folder.path)
    chosen = find_cases(folder.path, images="images/{name}.png", masks="zones/{name}.png")
    assert len(chosen.cases) == N


def test_several_datasets_are_refused_and_named(folder):
    draw(folder, "a/images/{n}.png", "a/labels/{n}.png")
    draw(folder, "b/pictures/{n}.png", "b/truth/x{n}.png")
    with pytest.raises(DataError, match="two layouts") as caught:
        find_cases(folder.path)
    assert "a/images" in str(caught.value)
    assert "b/pictures" in str(caught.value)


def test_a_refusal_lists_files_that_may_be_masks(folder):
    for n in range(N):
        folder.image(f"images/{'abcd'[n]}.png", 24, 32)
        folder.save(f"labels/task-{n}-tag.png", blob(n))
    with pytest.raises(DataError) as caught:
        find_cases(folder.path)
    assert "4 labels labels/{name}.png" in str(caught.value)
    assert "data.masks=" in str(caught.value)


@pytest.mark.parametrize(
    ("images", "masks", "said"),
    [
        ("images/{name}.png", "", "data.masks is missing"),
        ("images/{nme}.png", "masks/{name}.png", "unknown field {nme}"),
        ("../{name}.png", "masks/{name}.png", "no path below it"),
        ("photos/{name}.png", "masks/{name}.png", "no file fits data.images="),
        ("images/*.png", "masks/*.png", "are alike in what data.images and data.masks share"),
        ("images/{name}{name}.png", "masks/{name}.png", "no file fits data.images="),
    ],
)
def test_templates_that_cannot_be_used(folder, images, masks, said):
    draw(folder, "images/{n}.png", "masks/{n}.png")
    with pytest.raises(DataError, match=re.escape(said)):
        find_cases(folder.path, images=images, masks=masks)


def test_ten_thousand_pairs_are_paired_in_three_seconds():
    root = Path("/data")
    paths = [root / f"cells_{n}{end}" for n in range(10_000) for end in (".jpg", "_mask.png")]
    begin = time.process_time()
    found = infer(root, paths)
    assert time.process_time() - begin < 3
    assert not found.taken  # files that cannot be looked at
    assert sorted(map(len, found.groups)) == [10_000, 10_000]
