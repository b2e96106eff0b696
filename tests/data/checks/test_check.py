"""Each finding has its fault planted in a healthy folder, which itself gives no warning."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tinyseg.cli import main
from tinyseg.config import Config
from tinyseg.data import Dataset, make_split, simulate, write_pairs
from tinyseg.data.checks.check import check
from tinyseg.data.checks.inspection import file_findings, inspect_files
from tinyseg.data.reading.layouts import Case, Layout
from tinyseg.data.splits.split import Folds, Split, load_split
from tinyseg.errors import DataError, TinysegError
from tinyseg.training.train import train


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "cells"
    write_pairs(simulate("cells", n=30, size=32, empty=0, seed=3), path)
    return path


@pytest.fixture
def cells(made, folder):
    """A healthy folder of 30 pairs cells_0000 ... that the test may spoil."""
    shutil.copytree(made, folder.path)
    return folder


def config(*settings):
    return Config().override(["data.size=32", *settings])


def found(folder, *settings):
    return check(getattr(folder, "path", folder), config(*settings))


def only(result, level, name):
    """The one finding of a check that is worse than a note."""
    bad = [f for f in result.findings if f.level in ("warning", "error")]
    assert [(f.level, f.check) for f in bad] == [(level, name)], result.table()
    assert result.level == level
    assert bad[0].seen
    assert bad[0].why
    assert bad[0].remedy
    return bad[0]


def note(result, name):
    (finding,) = [f for f in result.findings if (f.level, f.check) == ("note", name)]
    assert result.level == "note", result.table()
    return finding


def picture(folder, name):
    return np.asarray(Image.open(folder.path / name))


def test_a_healthy_folder_is_all_well(cells):
    result = found(cells)
    assert {f.level for f in result.findings} == {"ok"}, result.table()
    assert result.images == 30
    assert result.split == make_split(Dataset(cells.path, config().data), config().data)
    assert result.table().endswith("PASS (all well)")
    checks = ["image sizes", "layout", "channels", "classes", "split"]
    assert [f.check for f in result.findings] == checks


@pytest.mark.parametrize("kind", ["cells", "ultrasound", "membranes", "shapes"])
def test_simulated_sets_are_healthy(kind):
    result = found(f"sim:{kind}?n=24&size=48")
    assert result.level in ("ok", "note"), result.table()


def test_all_unreadable_files_are_named(cells):
    cells.text("images/cells_0003.png", b"not an image")
    cells.text("masks/cells_0003.png", b"")
    cells.text("masks/cells_0007.png", (cells.path / "masks/cells_0007.png").read_bytes()[:60])
    finding = only(found(cells), "error", "unreadable")
    assert finding.seen == "files that cannot be read: 3"
    names = ["images/cells_0003.png", "masks/cells_0003.png", "masks/cells_0007.png"]
    assert [name in text for name, text in zip(names, finding.evidence, strict=True)] == [True] * 3
    assert found(cells).images == 28


def test_files_without_a_partner(cells):
    (cells.path / "masks/cells_0002.png").unlink()
    (cells.path / "images/cells_0004.png").unlink()
    only(found(cells), "warning", "pairs")
    finding = only(found(cells, "data.strict=true"), "error", "pairs")
    assert finding.evidence == (
        "image without mask: images/cells_0002.png",
        "mask without image: masks/cells_0004.png",
    )


def test_masks_of_another_size(cells):
    cells.mask("masks/cells_0005.png", height=16, width=32)
    cells.mask("masks/cells_0006.png", height=8, width=9)
    finding = only(found(cells), "error", "mask sizes")
    assert len(finding.evidence) == 2
    assert "the mask is 16 x 32 pixels" in finding.evidence[0]


def test_values_without_a_class(cells):
    cells.mask("masks/cells_0005.png", (0, 7, 255), 32, 32)
    cells.mask("masks/cells_0009.png", (0, 9), 32, 32)
    finding = only(found(cells, "data.labels=0:0,255:1"), "error", "mask values")
    assert ["mask values 7" in finding.evidence[0], "mask values 9" in finding.evidence[1]] == [
        True,
        True,
    ]


def test_a_stray_value_and_two_customs(cells):
    cells.mask("masks/cells_0005.png", (0, 7, 255), 32, 32)
    result = found(cells)
    assert any("mask values in few of 30 masks" in f.seen for f in result.findings)
    # 255 for objects here, 1 there: one class or two?
    for index in range(15):
        mask = picture(cells, f"masks/cells_{index:04}.png")
        cells.save(f"masks/cells_{index:04}.png", (mask > 0).astype(np.uint8))
    (finding,) = [f for f in found(cells).findings if f.level == "error"]
    assert finding.check == "labels"
    assert "has the mask values 0 and 1 but" in finding.seen


def test_soft_masks(cells):
    for index in range(30):
        mask = Image.open(cells.path / f"masks/cells_{index:04}.png")
        cells.save(f"masks/cells_{index:04}.png", mask.resize((16, 16)).resize((32, 32)))
    (finding,) = [f for f in found(cells).findings if f.level == "error"]
    assert "soft edges" in finding.seen


@pytest.mark.parametrize("labels", ["auto", "0:0,255:1"])
def test_no_object_at_all(cells, labels):
    for index in range(30):
        cells.mask(f"masks/cells_{index:04}.png", (0,), 32, 32)
    result = found(cells, f"data.labels={labels}")
    (finding,) = [f for f in result.findings if f.level == "error"]
    assert "all 30 masks are empty" in finding.seen


def test_many_empty_masks(cells):
    for index in range(10):
        cells.mask(f"masks/cells_{index:04}.png", (0,), 32, 32)
    assert len(note(found(cells), "empty masks").evidence) == 10
    for index in range(10, 18):
        cells.mask(f"masks/cells_{index:04}.png", (0,), 32, 32)
    assert len(only(found(cells), "warning", "empty masks").evidence) == 18


def test_ignored_and_full_masks(cells):
    cells.mask("masks/cells_0005.png", (3,), 32, 32)
    finding = only(found(cells, "data.labels=0:0,255:1,3:ignore"), "warning", "ignored masks")
    assert finding.evidence == ("cells_0005",)
    cells.mask("masks/cells_0005.png", (255,), 32, 32)
    assert only(found(cells), "warning", "full masks").evidence == ("cells_0005",)


def test_a_bright_background(cells):
    for index in range(30):
        mask = picture(cells, f"masks/cells_{index:04}.png")
        cells.save(f"masks/cells_{index:04}.png", 255 - mask)
    finding = only(found(cells), "warning", "labels")
    assert 'data.labels="0:1,255:0"' in finding.remedy
    assert found(cells, "data.labels=0:1,255:0").level == "ok"


def test_rare_objects(cells):
    for index in range(30):
        mask = np.zeros((32, 32), np.uint8)
        mask[4:6, index : index + 2] = 255
        cells.save(f"masks/cells_{index:04}.png", mask)
    assert note(found(cells), "foreground").seen == "0.39% of the pixels are foreground"


def test_objects_that_scaling_loses(cells):
    for index in (3, 4):
        image = np.kron(picture(cells, f"images/cells_{index:04}.png"), np.ones((8, 8, 1)))
        cells.save(f"images/cells_{index:04}.png", image.astype(np.uint8))
        mask = np.zeros((256, 256), np.uint8)
        mask[8:10, 8:10] = 255 if index == 3 else 0
        mask[40:60, 40:60] = 255 if index == 4 else 0
        cells.save(f"masks/cells_{index:04}.png", mask)
    assert only(found(cells), "warning", "lost objects").evidence == ("cells_0003",)
    assert found(cells, "data.size=256").level == "ok"


def test_flat_images_are_neither_near_duplicates(cells):
    for index, grey in ((3, 0), (4, 90)):
        cells.save(f"images/cells_{index:04}.png", np.full((32, 32, 3), grey, np.uint8))
    result = found(cells, "data.color=rgb")
    assert len(only(result, "warning", "flat images").evidence) == 2


def test_transparency(cells):
    for name in ("images/cells_0003.png", "images/cells_0004.png"):
        cells.save(name, Image.open(cells.path / name).convert("RGBA"))
    assert len(note(found(cells), "alpha").evidence) == 2


def test_bit_depths(cells):
    deep = np.asarray(Image.open(cells.path / "images/cells_0003.png").convert("L"), np.uint16)
    cells.save("images/cells_0003.png", deep * 257)
    result = found(cells, "data.color=grey")
    assert "cells_0003.png" in only(result, "warning", "bit depths").evidence[0]


def test_some_color_among_gray(cells):
    for index in range(4, 30):
        name = f"images/cells_{index:04}.png"
        cells.save(name, Image.open(cells.path / name).convert("L"))
    assert len(only(found(cells), "warning", "color").evidence) == 4
    assert found(cells, "data.color=grey").level == "ok"


def test_some_gray_among_color(cells):
    name = "images/cells_0004.png"
    cells.save(name, Image.open(cells.path / name).convert("L"))
    assert len(note(found(cells), "color").evidence) == 1


def test_frames_and_other_files(cells):
    pages = [Image.open(cells.path / f"images/cells_{i:04}.png") for i in (1, 2)]
    (cells.path / "images/cells_0001.png").unlink()
    cells.save("images/cells_0001.tif", pages[0], save_all=True, append_images=pages[1:])
    assert "cells_0001.tif" in note(found(cells), "frames").evidence[0]
    cells.text("images/notes.txt", "words")
    result = found(cells)
    assert any(f.check == "layout" and "notes.txt" in f.seen for f in result.findings)


def test_images_that_padding_cannot_fit(cells):
    finding = only(found(cells, "data.size=16", "data.fit=pad"), "error", "image sizes")
    assert len(finding.evidence) == 30
    assert "data.size=32" in finding.remedy
    assert found(cells, "data.fit=pad").level == "ok"


def copied(cells, first="0001", second="0002", quality=None):
    """Makes the second image the first one, saved anew."""
    image = Image.open(cells.path / f"images/cells_{first}.png").convert("RGB")
    (cells.path / f"images/cells_{second}.png").unlink()
    if quality:
        cells.save(f"images/cells_{second}.jpg", image.resize((50, 50)), quality=quality)
        mask = Image.open(cells.path / f"masks/cells_{first}.png")
        cells.save(f"masks/cells_{second}.png", mask.resize((50, 50), Image.Resampling.NEAREST))
    else:
        cells.save(f"images/cells_{second}.png", image, compress_level=1)


def test_duplicates_within_a_part(cells):
    copied(cells, quality=90)
    finding = note(found(cells), "duplicates")
    assert finding.evidence[0].startswith("cells_0001 ~ cells_0002 (look the same, corr")


def test_equal_images_with_different_masks(cells):
    copied(cells)
    finding = only(found(cells), "warning", "contradiction")
    assert finding.evidence == ("cells_0001 = cells_0002 (equal pixel for pixel)",)
    shutil.copy(cells.path / "masks/cells_0001.png", cells.path / "masks/cells_0002.png")
    assert note(found(cells), "duplicates")


@pytest.mark.parametrize("quality", [None, 90])
def test_a_leak_across_a_given_split(cells, tmp_path, quality):
    copied(cells, quality=quality)
    shutil.copy(cells.path / "masks/cells_0001.png", cells.path / "masks/cells_0002.png")
    if quality:
        mask = Image.open(cells.path / "masks/cells_0001.png").resize((50, 50), 0)
        cells.save("masks/cells_0002.png", mask)
    names = [f"cells_{index:04}" for index in range(30)]
    Split((*names[2:24], names[0], names[1]), tuple(names[24:])).save(tmp_path / "fair.json")
    Split((*names[2:24], names[0]), (names[1], *names[24:])).save(tmp_path / "leak.json")
    assert note(found(cells, f"data.split_file={tmp_path / 'fair.json'}"), "duplicates")
    finding = only(found(cells, f"data.split_file={tmp_path / 'leak.json'}"), "error", "leak")
    assert finding.evidence[0].startswith("train: cells_0002; val: cells_0001 (")


def test_groups_across_a_given_split(cells, tmp_path):
    names = [f"cells_{index:04}" for index in range(30)]
    Split(tuple(names[:25]), tuple(names[25:])).save(tmp_path / "split.json")
    torn = (f"data.split_file={tmp_path / 'split.json'}", r"data.groups=cells_\d\d\d")
    finding = only(found(cells, *torn), "error", "groups")
    assert finding.evidence == ("cells_002: train and val",)
    bad = [f for f in found(cells, "data.groups=cells").findings if f.level in ("warning", "error")]
    assert [f.seen for f in bad] == [
        "0 training images are fewer than a batch of 4",
        "30 of 30 images are linked by duplicates or data.groups",
    ]
    assert found(cells, r"data.groups=cells_00(\d\d)").level == "ok"


def test_no_and_few_validation_images(cells):
    assert (
        only(found(cells, "data.val_fraction=0"), "error", "split").seen == "no validation images"
    )
    assert (
        only(found(cells, "data.val_fraction=0.1"), "warning", "split").seen
        == "few validation images: 3"
    )


def test_no_and_few_training_images(cells):
    finding = only(found(cells, "data.max_train_images=3"), "error", "split")
    assert finding.seen == "3 training images are fewer than a batch of 4"
    assert "train.batch_size=3" in finding.remedy
    assert (
        only(found(cells, "data.max_train_images=6"), "warning", "split").seen
        == "few training images: 6"
    )


def test_a_split_that_cannot_be_drawn(cells, tmp_path):
    finding = next(f for f in found(cells, "data.folds=31").findings if f.level == "error")
    assert "data.folds=31 needs as many" in finding.seen
    Split(("cells_0000",), ("nobody",)).save(tmp_path / "split.json")
    result = found(cells, f"data.split_file={tmp_path / 'split.json'}")
    assert "1 names are not in" in next(f.seen for f in result.findings if f.level == "error")


def test_images_left_out_of_the_split(cells, tmp_path):
    names = [f"cells_{index:04}" for index in range(30)]
    Split(tuple(names[:20]), tuple(names[20:28])).save(tmp_path / "split.json")
    finding = note(found(cells, f"data.split_file={tmp_path / 'split.json'}"), "split")
    assert finding.evidence == ("cells_0028", "cells_0029")


def test_validation_unlike_training(cells, tmp_path):
    for index in range(8):
        mask = np.zeros((32, 32), np.uint8)
        mask[:5, :5] = 255
        cells.save(f"masks/cells_{index:04}.png", mask)
    names = [f"cells_{index:04}" for index in range(30)]
    Split(tuple(names[8:]), tuple(names[:8])).save(tmp_path / "split.json")
    unlike = f"data.split_file={tmp_path / 'split.json'}"
    assert "2.4% in validation" in only(found(cells, unlike), "warning", "balance").seen
    assert found(cells).level == "ok"
    for index in range(8):
        cells.mask(f"masks/cells_{index:04}.png", (0,), 32, 32)
    finding = only(found(cells, unlike), "error", "balance")
    assert finding.seen == "none of the 8 validation images has foreground"


def test_classes_that_a_part_does_not_hold(cells, tmp_path):
    for index in range(30):
        values = (0, 1, 2) if index == 29 else (0, 1, 3) if index == 0 else (0, 1)
        cells.mask(f"masks/cells_{index:04}.png", values, 32, 32)
    names = [f"cells_{index:04}" for index in range(30)]
    Split(tuple(names[:22]), tuple(names[22:])).save(tmp_path / "split.json")
    labels = "data.labels=0:0,1:1,2:2,3:3"
    result = found(cells, f"data.split_file={tmp_path / 'split.json'}", labels)
    bad = [
        (f.level, f.seen, f.evidence) for f in result.findings if f.level in ("warning", "error")
    ]
    assert bad == [
        ("error", "classes in no train image: 1", ("class 2",)),
        ("warning", "classes in no val image: 1", ("class 3",)),
    ]


def test_folds_are_told_beside_each_other(cells):
    result = found(cells, "data.folds=3")
    (finding,) = [f for f in result.findings if f.check == "folds"]
    assert [line[:17] for line in finding.evidence] == [f"fold {k}: 10 images" for k in range(3)]


@pytest.mark.parametrize(
    ("spoil", "settings"),
    [
        (lambda cells: cells.text("images/cells_0003.png", b"x"), []),
        (lambda cells: (cells.path / "masks/cells_0003.png").unlink(), ["strict=true"]),
        (lambda cells: cells.mask("masks/cells_0003.png", height=20), []),
        (lambda cells: cells.mask("masks/cells_0003.png", (0, 7), 32, 32), ["labels=0:0,255:1"]),
        (lambda cells: None, ["fit=pad", "size=16"]),
        (lambda cells: None, ["max_train_images=3"]),
        (lambda cells: None, ["val_fraction=0"]),
        (lambda cells: None, ["groups=cells"]),
        (lambda cells: None, ["folds=31"]),
        (lambda cells: None, ["split_file=nowhere.json"]),
        (
            lambda cells: [cells.mask(f"masks/cells_{i:04}.png", (0,), 32, 32) for i in range(30)],
            [],
        ),
    ],
)
def test_what_training_refuses_is_an_error(cells, tmp_path, spoil, settings):
    spoil(cells)
    assert found(cells, *settings).level == "error"
    with pytest.raises(TinysegError):
        train(cells.path, tmp_path / "run", config=config(*settings), say=pytest.fail)


def test_file_names_of_any_bytes(cells, capsys):
    name = "cells\udcff\x1b[2J"
    for folder in ("images", "masks"):
        (cells.path / folder / "cells_0003.png").rename(cells.path / folder / f"{name}.png")
    cells.text(f"images/{name}.png", b"x")
    assert main(["data", "check", str(cells.path), "--set", "data.size=32"]) == 1
    assert "cells\\udcff\\x1b[2J.png:" in capsys.readouterr().out


def test_pages_of_one_bad_stack_are_told_once(tmp_path):
    stack = tmp_path / "train-volume.tif"
    cases = [Case(f"p{page}", stack, (), page=page) for page in range(3)]
    stack.write_bytes(b"")
    findings = file_findings(inspect_files(cases, None), Layout(tuple(cases), ()), config().data)
    assert [len(f.evidence) for f in findings if f.check == "unreadable"] == [1]


def test_nothing_to_check():
    with pytest.raises(DataError, match="no such folder"):
        found("/nowhere")


def test_the_command_line(cells, tmp_path, capsys):
    for index in range(12):
        cells.text(f"masks/cells_{index:04}.png", b"")
    out = tmp_path / "check.json"
    command = ["data", "check", str(cells.path), "--json", str(out), "--set", "data.size=32"]
    assert main(command) == 1
    text = capsys.readouterr().out
    assert "files that cannot be read: 12" in text
    assert "- and 7 more" in text
    assert "FAIL: fix the errors before training (1 error" in text
    assert max(map(len, text.splitlines())) <= 100 or str(cells.path) in text
    saved = json.loads(out.read_text())
    assert saved["level"] == "error"
    (unreadable,) = [f for f in saved["findings"] if f["check"] == "unreadable"]
    assert len(unreadable["evidence"]) == 12
    assert len(saved["split"]["train"]) + len(saved["split"]["val"]) == 18
    assert main(["data", "check", "/nowhere"]) == 2


def test_the_command_line_saves_what_it_drew(cells, tmp_path, capsys):
    command = ["data", "check", str(cells.path), "--save-split", str(tmp_path / "split.json")]
    assert main([*command, "--set", "data.size=32"]) == 0
    drawn = load_split(tmp_path / "split.json")
    assert isinstance(drawn, Split)
    assert len(drawn.val) == 6
    command += ["--force"]
    assert main([*command, "--set", "data.size=32", "data.folds=5", "data.fold=1"]) == 0
    folds = load_split(tmp_path / "split.json")
    assert isinstance(folds, Folds)
    assert [len(fold) for fold in folds.folds] == [6] * 5
    again = found(cells, f"data.split_file={tmp_path / 'split.json'}", "data.fold=1")
    assert again.split == folds.split(1)
    assert "written: " in capsys.readouterr().out
