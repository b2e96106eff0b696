import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import DataConfig
from tinyseg.data import Dataset, make_split, simulate
from tinyseg.errors import DataError

CONFIG = DataConfig()


def test_a_folder_of_pairs(folder):
    folder.pairs(11)
    data = Dataset(folder.path, CONFIG)
    assert data.names[:3] == ("a0", "a1", "a2")
    assert data.names[-1] == "a10"
    assert (len(data), data.classes, data.channels) == (11, 2, 1)
    assert data.label_map == {0: 0, 255: 1}
    assert data.warnings == ()
    sample = data["a10"]
    assert sample.name == "a10"
    assert sample.image.shape == (12, 16, 1)
    assert sample.label.tolist() == [[0] * 16] * 6 + [[1] * 16] * 6
    assert [f.name for f in sample.files] == ["a10.png", "a10.png"]


def test_several_masks_are_joined(folder):
    folder.image("x.png")
    folder.mask("x_mask.png", (255, 0, 0))
    folder.mask("x_mask_1.png", (0, 0, 255))
    label = Dataset(folder.path, CONFIG)[0].label
    assert label[[0, 5, 11], 0].tolist() == [1, 0, 1]


def test_joining_is_of_objects_also_when_the_object_is_dark(folder):
    folder.image("x.png")
    folder.mask("x_mask.png", (0, 255, 255))
    folder.mask("x_mask_1.png", (255, 255, 0))
    label = Dataset(folder.path, DataConfig(labels="0:1,255:0"))[0].label
    assert label[[0, 5, 11], 0].tolist() == [1, 0, 1]


def test_channels_follow_the_images_the_config_or_the_run(folder):
    folder.pairs(2)
    assert Dataset(folder.path, DataConfig(color="rgb"))[0].image.shape[2] == 3
    folder.image("images/c.png", rgb=True)
    folder.mask("masks/c.png")
    data = Dataset(folder.path, CONFIG)
    assert data.channels == 3
    assert data.warnings == (
        "only 1 of 3 images have color: c; set data.color=grey to read all as grey",
    )
    assert [data[i].image.shape[2] for i in range(3)] == [3, 3, 3]
    assert Dataset(folder.path, CONFIG, channels=1)[2].image.shape[2] == 1


def test_a_runs_label_map_is_enforced(folder):
    folder.pairs(2, (0, 1))
    assert Dataset(folder.path, CONFIG, label_map={0: 1, 1: 0})[0].label[0, 0] == 1
    with pytest.raises(
        DataError, match=r"masks/a0\.png: mask values 1 have no class .*2 in all: a1"
    ):
        Dataset(folder.path, CONFIG, label_map={0: 0, 255: 1})


def test_empty_masks_are_fine_when_evaluating_a_run_only(folder):
    folder.pairs(2, (0,))
    data = Dataset(folder.path, CONFIG, label_map={0: 0, 255: 1})
    assert data.warnings == ("2 of 2 masks are empty: a0, a1",)
    for labels in ("auto", "0:0,255:1"):
        with pytest.raises(DataError, match=r"all 2 masks are empty"):
            Dataset(folder.path, DataConfig(labels=labels))


def test_labels_from_the_config(folder):
    folder.pairs(2, (1, 2, 3))
    data = Dataset(folder.path, DataConfig(labels="1:1,2:0,3:ignore"))
    assert data.classes == 2
    assert data[0].label[[0, 5, 11], 0].tolist() == [1, 0, 255]
    assert Dataset(folder.path, DataConfig(labels="auto,3:ignore")).label_map == {
        1: 0,
        2: 1,
        3: 255,
    }


def test_soft_masks_work_with_ranges(folder):
    folder.pairs(2, (0, 30, 100, 127, 128, 200, 255))
    data = Dataset(folder.path, DataConfig(labels="0-127:0,128-255:1"))
    np.testing.assert_array_equal(np.unique(data[0].label), [0, 1])


def test_without_labels_only_images_are_read(folder):
    folder.image("a.png")
    folder.image("b.png")
    data = Dataset(folder.path, CONFIG, labeled=False)
    assert data[0].label is None
    assert data[0].files == (folder.path / "a.png",)


def test_remarks(folder):
    folder.pairs(2, (255, 255, 0))
    folder.mask("masks/a0.png", (0,))
    folder.mask("masks/a1.png", (0, 255, 255, 0))
    folder.text("readme.md", "words")
    for name in ("a0", "a1"):
        folder.save(f"images/{name}.png", np.zeros((12, 16), np.uint8))
    warnings = Dataset(folder.path, CONFIG).warnings
    assert warnings == (
        "1 files that are no images left out: readme.md",
        "1 of 2 masks are empty: a0",
        "duplicate images: a0 = a1 (equal pixel for pixel); `tinyseg data check` lists all",
    )


def test_a_bright_background_is_remarked(folder):
    folder.pairs(2, (255, 255, 255, 0))
    warnings = Dataset(folder.path, CONFIG).warnings
    assert len(warnings) == 1
    assert "75% of all pixels are foreground" in warnings[0]
    assert 'data.labels="0:1,255:0"' in warnings[0]


def test_more_frames_are_remarked(folder):
    folder.pairs(1)
    frames = np.zeros((2, 12, 16), np.uint8)
    pages = [Image.fromarray(frame) for frame in frames]
    folder.save("images/t.tif", pages[0], save_all=True, append_images=pages[1:])
    folder.mask("masks/t.png")
    (warning,) = Dataset(folder.path, CONFIG).warnings
    assert warning.startswith("only the first frame is used of 1 files: t; set data.pages=channels")


def test_size_mismatch_names_both_files(folder):
    folder.pairs(3)
    folder.mask("masks/a1.png", height=10)
    with pytest.raises(
        DataError, match=r"masks/a1\.png: the mask is 10 x 16 .*images/a1\.png is 12"
    ):
        Dataset(folder.path, CONFIG)
    folder.mask("masks/a1.png", height=16, width=12)
    with pytest.raises(DataError, match="EXIF"):
        Dataset(folder.path, CONFIG)


def test_bad_files_are_counted_and_the_first_is_explained(folder):
    folder.pairs(9)
    for index in range(1, 8):
        path = folder.path / f"images/a{index}.png"
        path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(
        DataError, match=r"a1\.png: damaged.*; also bad, 7 in all: a2, a3, a4 and 3"
    ):
        Dataset(folder.path, CONFIG)


def test_a_file_that_vanishes_after_the_scan_is_named(folder):
    folder.pairs(2)
    data = Dataset(folder.path, CONFIG)
    (folder.path / "images/a1.png").unlink()
    data.store._files.clear()
    with pytest.raises(DataError, match=r"images/a1\.png: no such file"):
        data[1]
    with pytest.raises(DataError, match="no sample 'zz'"):
        data.index("zz")


def test_progress_counts_to_the_end(folder):
    folder.pairs(3)
    calls = []
    Dataset(folder.path, CONFIG, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_the_cache_is_bounded_and_forgets_the_oldest(folder):
    folder.pairs(3)
    data = Dataset(folder.path, CONFIG)
    first = data[0]
    assert data[0] is first
    data.cache_bytes = 2 * first.bytes
    data[1]
    assert data[0] is first
    data[2]
    assert data[0] is first
    assert set(data._cache) == {0, 2}
    assert data._cached == 2 * first.bytes
    with pytest.raises(ValueError, match="read-only"):
        first.image[0] = 0


def test_fingerprint_follows_names_and_contents(folder):
    folder.pairs(3)
    first = Dataset(folder.path, CONFIG).fingerprint()
    assert len(first) == 16
    assert Dataset(folder.path, CONFIG).fingerprint() == first
    folder.mask("masks/a1.png", (255, 0))
    second = Dataset(folder.path, CONFIG).fingerprint()
    assert second != first
    for kind in ("images", "masks"):
        (folder.path / kind / "a2.png").rename(folder.path / kind / "b2.png")
    assert Dataset(folder.path, CONFIG).fingerprint() not in (first, second)


def test_names_that_are_not_utf8(folder):
    folder.pairs(3)
    for kind in ("images", "masks"):
        odd = os.fsencode(folder.path / kind) + b"/a\xff.png"
        os.rename(folder.path / kind / "a0.png", odd)
    data = Dataset(folder.path, CONFIG)
    assert len(data.fingerprint()) == 16
    make_split(data, CONFIG).save(folder.path / "split.json")
    assert make_split(data, DataConfig(split_file=str(folder.path / "split.json"))).val


def test_predefined_splits(folder):
    folder.pairs(2, prefix="train/")
    folder.pairs(1, prefix="valid/")
    data = Dataset(folder.path, CONFIG)
    assert data.predefined == {"train": ("train/a0", "train/a1"), "val": ("val/a0",)}
    folder.pairs(1)
    assert Dataset(folder.path, CONFIG).predefined is None


def test_simulated_datasets_open_by_text():
    data = Dataset("sim:shapes?n=5&size=32&seed=3", CONFIG)
    assert (len(data), data.classes, data.channels) == (5, 4, 3)
    expected = simulate("shapes", n=5, size=32, seed=3)[2]
    np.testing.assert_array_equal(data[2].image, expected.image)
    np.testing.assert_array_equal(data[2].label, expected.label)
    assert data.fingerprint() == Dataset("sim:shapes?size=32&seed=3&n=5", CONFIG).fingerprint()
    assert data.fingerprint() != Dataset("sim:shapes?size=32&seed=4&n=5", CONFIG).fingerprint()
    assert Dataset("sim:cells?n=2&size=32", CONFIG, channels=1)[0].image.shape == (
        32,
        32,
        1,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sim:cels", "unknown simulated kind 'cels'; known: cells, ultrasound, membranes, shapes"),
        ("sim:cells?count=3", "unknown argument 'count'; known: n, size, seed, foreground"),
        ("sim:cells?n=many", "n='many' is not a number"),
        ("sim:cells?n=0", "n=0 must be a whole number from 1"),
        ("sim:cells?foreground=0.9", "foreground=0.9 must be a number from 0.005 to 0.6"),
        ("sim:cells?noise=nan", "noise=nan must be"),
        ("sim:cells?empty=1", "all 64 images are empty; lower empty=1"),
    ],
)
def test_bad_simulation_texts(text, said):
    with pytest.raises(DataError, match=said):
        Dataset(text, CONFIG)


def test_a_run_of_other_classes_is_refused():
    with pytest.raises(DataError, match="has 4 classes, the run 2"):
        Dataset("sim:shapes", CONFIG, label_map={0: 0, 255: 1})


def test_names_are_the_same_in_the_c_locale(folder):
    folder.pairs(4)
    for path in sorted(folder.path.glob("*/*.png")):
        path.rename(path.with_name(f"ä{path.name}"))
    code = "import sys; from tinyseg.data import Dataset; print(ascii(Dataset(sys.argv[1]).names))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, folder.path],
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == ascii(Dataset(folder.path).names)
    assert "\\xe4" in done.stdout
