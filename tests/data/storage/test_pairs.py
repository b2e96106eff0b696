import numpy as np
import pytest
from PIL import Image

from tinyseg.config import DataConfig
from tinyseg.data import Dataset, Sample, simulate, write_pairs
from tinyseg.errors import DataError


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", ["cells", "ultrasound", "shapes"])
def test_what_is_written_is_read_back(tmp_path, kind):
    samples = simulate(kind, n=5, size=32)
    write_pairs(samples, tmp_path / "out")
    data = Dataset(tmp_path / "out", DataConfig())
    simulated = Dataset(f"sim:{kind}?n=5&size=32", DataConfig())
    assert data.names == simulated.names
    assert data.label_map == simulated.label_map
    assert (data.classes, data.channels) == (simulated.classes, simulated.channels)
    for index, sample in enumerate(samples):
        np.testing.assert_array_equal(data[index].image, sample.image)
        np.testing.assert_array_equal(data[index].label, sample.label)


def test_binary_masks_can_be_seen_and_classes_are_ids(tmp_path):
    write_pairs(simulate("cells", n=1, size=32), tmp_path / "a")
    mask = np.asarray(Image.open(tmp_path / "a/masks/cells_0000.png"))
    assert np.unique(mask).tolist() == [0, 255]
    write_pairs(simulate("shapes", n=2, size=32), tmp_path / "b")
    mask = np.asarray(Image.open(tmp_path / "b/masks/shapes_0001.png"))
    assert set(np.unique(mask)) <= {0, 1, 2, 3}


def test_float_images_become_16_bits_and_names_folders(tmp_path):
    image = np.linspace(0, 1, 32, dtype=np.float32).reshape(4, 8, 1)
    label = np.eye(4, 8, dtype=np.uint8)
    write_pairs([Sample("deep/x", image, label)], tmp_path / "out")
    data = Dataset(tmp_path / "out", DataConfig())
    assert data.names == ("deep/x",)
    np.testing.assert_allclose(data[0].image, image, atol=0.5 / 65535)


def test_its_own_output_is_replaced_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    write_pairs(simulate("cells", n=4, size=32), out)
    write_pairs(simulate("shapes", n=1, size=32), out)
    assert files(out) == [".tinyseg-pairs.json", "images/shapes_0000.png", "masks/shapes_0000.png"]
    (out / "images/mine.png").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"out: holds files .*: images/mine\.png; give the name"):
        write_pairs(simulate("cells", n=1, size=32), out)
    assert (out / "images/mine.png").read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("listing", [None, "{", '{"a": 1}', "[1]"])
def test_a_foreign_folder_is_not_touched(tmp_path, listing):
    (tmp_path / "out/images").mkdir(parents=True)
    (tmp_path / "out/images/cells_0000.png").write_bytes(b"x")
    if listing:
        (tmp_path / "out/.tinyseg-pairs.json").write_text(listing)
    with pytest.raises(DataError, match=r"images/cells_0000\.png"):
        write_pairs(simulate("cells", n=1, size=32), tmp_path / "out")
    assert (tmp_path / "out/images/cells_0000.png").read_bytes() == b"x"


def test_an_empty_folder_is_fine_and_a_file_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    write_pairs(simulate("cells", n=1, size=32), tmp_path / "empty")
    assert len(files(tmp_path / "empty")) == 3
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(DataError, match="file"):
            write_pairs(simulate("cells", n=1, size=32), out)


def test_a_failure_on_the_way_leaves_the_old_folder_and_no_rest(tmp_path):
    out = tmp_path / "out"
    write_pairs(simulate("cells", n=2, size=32), out)
    before = files(out)

    def fail(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_pairs(simulate("shapes", n=2, size=32), out, progress=fail)
    assert files(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress(tmp_path):
    calls = []
    samples = simulate("cells", n=2, size=16)
    write_pairs(samples, tmp_path / "o", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 2), (2, 2)]
