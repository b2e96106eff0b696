import os

import pytest

from tinyseg.data.reading.files import natural
from tinyseg.data.reading.layouts import find_cases
from tinyseg.data.reading.names import folder_meaning
from tinyseg.errors import DataError


def found(folder, **options):
    """name -> mask files, relative to the folder."""
    cases = find_cases(folder.path, **options).cases
    return {c.name: [m.relative_to(folder.path).as_posix() for m in c.masks] for c in cases}


def touch(folder, *names):
    for name in names:
        folder.text(name, "x")


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("images", (None, "image", False)),
        ("Image", (None, "image", False)),
        ("Masks", (None, "mask", False)),
        ("ground_truth", (None, "mask", False)),
        ("trainannot", ("train", "mask", False)),
        ("train_masks", ("train", "mask", False)),
        ("images-val", ("val", "image", False)),
        ("validation", ("val", None, False)),
        ("Test", ("test", None, False)),
        ("benign", (None, None, True)),
        ("stage1_train", (None, None, True)),
        ("training_set_b", (None, None, True)),
        ("contest", (None, None, True)),
    ],
)
def test_folder_names(name, meaning):
    assert folder_meaning(name) == meaning


def test_natural_order():
    assert sorted(["a10", "a2", "b1", "A3"], key=natural) == ["a2", "A3", "a10", "b1"]
    assert natural("9" * 5000) > natural("8" * 5000)


@pytest.mark.parametrize("images", ["images", "Image", "imgs", "JPEGImages"])
@pytest.mark.parametrize("masks", ["masks", "label", "Annotations", "SegmentationClass", "gt"])
def test_two_folders_are_paired_by_stem(folder, images, masks):
    touch(folder, f"{images}/b.jpg", f"{images}/a.png", f"{masks}/a.png", f"{masks}/b.png")
    assert found(folder) == {"a": [f"{masks}/a.png"], "b": [f"{masks}/b.png"]}


@pytest.mark.parametrize(
    "end", ["_mask", "-mask", " mask", "_seg", "_label", "_gt", "_GT", ".mask"]
)
def test_mask_endings(folder, end):
    touch(folder, "images/a.png", f"masks/a{end}.png", "flat/c.png")
    assert found(folder) == {"a": [f"masks/a{end}.png"]}


def test_image_endings_and_masks_named_after_the_file(folder):
    touch(folder, "a_image.png", "a_mask.png", "masks/b.jpg.png", "b.jpg")
    assert found(folder) == {"a_image": ["a_mask.png"], "b": ["masks/b.jpg.png"]}


def test_images_beside_their_masks_in_class_folders_as_in_busi(folder):
    touch(folder, "benign/benign (1).png", "benign/benign (1)_mask.png")
    touch(folder, "benign/benign (10).png", "benign/benign (10)_mask.png")
    touch(folder, "benign/benign (1)_mask_1.png", "normal/normal (1).png")
    touch(folder, "normal/normal (1)_mask.png", "normal/normal (1)_mask_2.png")
    assert found(folder) == {
        "benign/benign (1)": ["benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png"],
        "benign/benign (10)": ["benign/benign (10)_mask.png"],
        "normal/normal (1)": ["normal/normal (1)_mask.png", "normal/normal (1)_mask_2.png"],
    }


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}/images", "{}/masks"),
        ("images/{}", "masks/{}"),
        ("{}", "{}annot"),
        ("{}_images", "{}_masks"),
        ("imgs_{}", "labels_{}"),
    ],
)
def test_one_folder_per_split(folder, images, masks):
    for split in ("train", "val"):
        touch(folder, f"{images.format(split)}/x.png", f"{masks.format(split)}/x.png")
    cases = find_cases(folder.path).cases
    assert [(c.name, c.split) for c in cases] == [("train/x", "train"), ("val/x", "val")]
    assert [c.masks[0].relative_to(folder.path).parts[-1] for c in cases] == ["x.png", "x.png"]


def test_a_split_without_any_mask_is_left_out_with_a_warning(folder):
    touch(folder, "train/image/0.png", "train/label/0.png", "test/image/0.png")
    layout = find_cases(folder.path)
    assert [c.name for c in layout.cases] == ["train/0"]
    assert layout.warnings == ("1 images without any mask left out: test/image/0.png",)


def test_a_folder_per_case_with_a_mask_per_object(folder):
    touch(folder, "s/ab/images/ab.png", "s/ab/masks/1.png", "s/ab/masks/2.png")
    touch(folder, "s/cd/images/x.png", "s/cd/masks/9.png")
    assert found(folder) == {
        "s/ab": ["s/ab/masks/1.png", "s/ab/masks/2.png"],
        "s/cd/x": ["s/cd/masks/9.png"],
    }


def test_nested_words_are_one_role(folder):
    touch(folder, "images/a.jpg", "annotations/trimaps/a.png", "annotations/list.txt")
    layout = find_cases(folder.path)
    assert [c.name for c in layout.cases] == ["a"]
    assert layout.warnings == ("1 files that are no images left out: annotations/list.txt",)


def test_hidden_files_are_skipped_without_a_word(folder):
    touch(folder, "images/a.png", "masks/a.png", "images/._a.png", ".git/b.png", "__MACOSX/a.png")
    layout = find_cases(folder.path)
    assert len(layout.cases) == 1
    assert layout.warnings == ()


def test_symlink_loops_end(folder):
    touch(folder, "images/a.png", "masks/a.png")
    os.symlink(folder.path, folder.path / "images" / "again", target_is_directory=True)
    assert list(found(folder)) == ["a"]


def test_pipes_and_broken_links_are_listed_like_the_images_they_are_named_as(folder):
    touch(folder, "images/a.png", "masks/a.png", "masks/b.png", "masks/c.png")
    os.mkfifo(folder.path / "images" / "b.png")
    os.symlink("c.png", folder.path / "images" / "c.png")
    assert list(found(folder)) == ["a", "b", "c"]


def test_without_labels_masks_are_not_needed_and_not_images(folder):
    touch(folder, "a.png", "b.png", "b_mask.png", "lonely_mask.png")
    assert found(folder, labeled=False) == {"a": [], "b": [], "lonely_mask": []}


def test_images_without_mask_and_masks_without_image_are_named(folder):
    touch(folder, *(f"images/a{i}.png" for i in range(6)), "masks/a0.png", "masks/z.png")
    with pytest.raises(DataError) as caught:
        find_cases(folder.path)
    assert "5 images without mask: images/a1.png, images/a2.png, images/a3.png and 2 more" in str(
        caught.value
    )
    assert "1 masks without image: masks/z.png" in str(caught.value)
    assert "add or rename" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["images/a.png", "images/a.jpg", "masks/a.png"],
            "one name: images/a.jpg and images/a.png",
        ),
        (["images/a.png", "masks/a.png", "labels/a.png"], "a.png: masks in several folders"),
        (["images/a.png", "masks/a.png", "masks/a.gif"], "a.png: masks of one name"),
        (["a.png", "b.png"], "2 images but no mask next to them"),
        (["notes.txt"], "no images found"),
        (["masks/a.png"], "no images found"),
        (["images/a.png", "images/b/a_mask.png", "masks/a.png"], "images/b/a_mask.png"),
        (["images/a.png", "masks/b.png"], "no mask next to"),
        (["images/a.png", "images/c.png", "masks/b.png", "masks/c.png"], "image: masks/b.png"),
    ],
)
def test_unclear_folders_are_refused(folder, names, said):
    touch(folder, *names)
    with pytest.raises(DataError, match=said):
        find_cases(folder.path)


def test_missing_folder_file_and_empty_folder(folder):
    with pytest.raises(DataError, match=r"set: no such folder; give a folder"):
        find_cases(folder.path)
    with pytest.raises(DataError, match=r"a\.png: not a folder"):
        find_cases(folder.text("a.png", "x"))
    (folder.path / "a.png").unlink()
    with pytest.raises(DataError, match="no images found; put images in"):
        find_cases(folder.path)
