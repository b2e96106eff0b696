"""Named datasets on data drawn here: each trap of the published files, and each error."""

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import Config, DataConfig
from tinyseg.data import Dataset, make_split
from tinyseg.data.sources import SOURCES
from tinyseg.errors import DataError

CONFIG = DataConfig()


def opened(name, folder, query=""):
    return Dataset(f"{name}:{folder.path}{query}", CONFIG)


def values(data, name):
    return np.unique(data[name].label).tolist()


@pytest.fixture
def pets(folder):
    """Two cats and two dogs for training, one each to test."""
    names = {"Abyssinian_1": 1, "Abyssinian_2": 1, "beagle_1": 2, "beagle_2": 2}
    tests = {"Abyssinian_10": 1, "beagle_10": 2}
    for name in {**names, **tests}:
        folder.image(f"images/{name}.jpg", rgb=True)
        folder.mask(f"annotations/trimaps/{name}.png", (2, 3, 1))
    for path, listed in (("trainval", names), ("test", tests)):
        lines = [f"{name} 1 {species} 1\n" for name, species in listed.items()]
        folder.text(
            f"annotations/{path}.txt", "#Image CLASS-ID SPECIES BREED ID\n" + "".join(lines)
        )
    return folder


@pytest.fixture
def busi(folder):
    for kind, count in (("benign", 3), ("malignant", 2), ("normal", 2)):
        for number in range(1, count + 1):
            folder.image(f"{kind}/{kind} ({number}).png", rgb=True)
            bands = (0, 0) if kind == "normal" else (0, 255)
            folder.mask(f"{kind}/{kind} ({number})_mask.png", bands)
    return folder


@pytest.fixture
def camvid(folder):
    for split, frames in (
        ("train", ("0001TP_000001", "0016E5_000001", "0016E5_000009")),
        ("val", ("0016E5_000005",)),
        ("test", ("0001TP_000002", "Seq05VD_f00000")),
    ):
        for frame in frames:
            folder.image(f"{split}/{frame}.png", rgb=True)
            folder.mask(f"{split}annot/{frame}.png", range(12))
    return folder


@pytest.fixture
def nuclei(folder):
    for case in "abc":
        rgba = np.random.default_rng(0).integers(0, 256, (12, 16, 4), np.uint8)
        folder.save(f"stage1_train/{case}/images/{case}.png", rgba + np.uint8(ord(case)))
        folder.mask(f"stage1_train/{case}/masks/n1{case}.png", (255, 0, 0))
        folder.mask(f"stage1_train/{case}/masks/n2{case}.png", (0, 0, 255))
    return folder


@pytest.fixture
def membranes(folder):
    for index in range(3):
        folder.image(f"train/image/{index}.png")
        folder.mask(f"train/label/{index}.png", (255, *[255] * (index + 1), 0))
        folder.image(f"test/image/{index}.png")
    return folder


@pytest.mark.parametrize(
    ("border", "bands"), [("ignore", 255), ("foreground", 1), ("background", 0)]
)
def test_pets_border(pets, border, bands):
    data = opened("pets", pets, f"?border={border}")
    assert (len(data), data.classes, data.class_names) == (6, 2, ("background", "pet"))
    label = data[0].label
    assert label[[0, 5, 11], 0].tolist() == [0, bands, 1]


def test_pets_by_species(pets):
    data = opened("pets", pets, "?target=species")
    assert (data.classes, data.class_names) == (3, ("background", "cat", "dog"))
    assert values(data, "Abyssinian_1") == [0, 1, 255]
    assert values(data, "beagle_1") == [0, 2, 255]
    borders = opened("pets", pets, "?target=species&border=foreground")
    assert (borders["beagle_1"].label == 2).mean() == 2 / 3


def test_pets_official_lists_are_the_split(pets):
    split = make_split(opened("pets", pets), DataConfig(val_fraction=0.25))
    assert split.test == ("Abyssinian_10", "beagle_10")
    assert (len(split.train), len(split.val)) == (3, 1)
    assert opened("pets", pets, "?split=none").predefined is None


def test_pets_files_that_are_not_what_they_seem(pets):
    path = pets.path / "images"
    photo = Image.open(path / "Abyssinian_1.jpg").convert("RGB")
    photo.quantize(16).save(path / "Abyssinian_1.jpg", "GIF")
    photo.convert("RGBA").save(path / "Abyssinian_2.jpg", "PNG")
    for name, turn in (("beagle_1", 0), ("beagle_2", 1)):
        exif = Image.Exif()
        exif[274] = turn
        photo.rotate(turn * 180).save(path / f"{name}.jpg", exif=exif)
    pets.text("images/Abyssinian_100.mat", b"MATLAB 5.0 MAT-file")
    for name in ("annotations/trimaps/._Abyssinian_1.png", "images/._Abyssinian_1.jpg"):
        pets.text(name, b"\0\5\x16\7")
    data = opened("pets", pets)
    assert [data[i].image.shape for i in range(6)] == [(12, 16, 3)] * 6
    assert all(text.startswith("duplicate images: ") for text in data.warnings)


def test_pets_in_no_list_are_left_out(pets):
    """Abyssinian_34: a photo of a cat with a trimap that is all background."""
    pets.image("images/Abyssinian_34.jpg", rgb=True)
    pets.mask("annotations/trimaps/Abyssinian_34.png", (2, 2))
    data = opened("pets", pets)
    assert "Abyssinian_34" not in data.names
    assert data.warnings == ("1 images in no official list left out: Abyssinian_34",)


def test_pets_listed_without_a_pet_pixel_is_told(pets):
    pets.mask("annotations/trimaps/beagle_1.png", (2, 2))
    assert opened("pets", pets).warnings == ("1 of 6 masks are empty: beagle_1",)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "beagle_3 1 2 1",
            r"trainval.txt: 1 of 5 listed images have no photo or no trimap: beagle_3",
        ),
        ("../images/beagle_1 1 2 1", "1 of 5 listed images have no photo"),
        ("beagle_1 1 2 1", "'beagle_1' is listed twice"),
        ("beagle_1 1 3 1", r"trainval.txt:6: 'beagle_1 1 3 1' is not NAME CLASS SPECIES BREED"),
        ("beagle_1", "is not NAME CLASS"),
        ("b\udcff 1 1 1", "cannot be read"),
    ],
)
def test_pets_bad_lists(pets, line, said):
    path = pets.path / "annotations" / "trainval.txt"
    path.write_bytes(path.read_bytes() + line.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=said):
        opened("pets", pets)


def test_pets_empty_list(pets):
    pets.text("annotations/test.txt", "# nothing\n")
    with pytest.raises(DataError, match=r"test.txt: lists no image; restore"):
        opened("pets", pets)


def test_busi_joins_every_mask(busi):
    busi.mask("benign/benign (1)_mask.png", (255, 0, 0, 0))
    busi.mask("benign/benign (1)_mask_1.png", (0, 0, 255, 0))
    busi.mask("benign/benign (1)_mask_2.png", (0, 0, 0, 255))
    data = opened("busi", busi)
    sample = data["benign/benign (1)"]
    assert len(sample.files) == 4
    assert sample.label[[0, 4, 7, 11], 0].tolist() == [1, 0, 1, 1]
    assert any("2 of 7 masks are empty: normal/normal (1)" in line for line in data.warnings)


def test_busi_kinds(busi):
    data = opened("busi", busi, "?kinds=malignant,benign")
    assert {name.partition("/")[0] for name in data.names} == {"benign", "malignant"}
    assert len(opened("busi", busi, "?kinds=benign")) == 3
    with pytest.raises(DataError, match=r"all 2 masks are empty .* choose other options"):
        opened("busi", busi, "?kinds=normal")


def test_busi_masks_of_every_mode_are_read_by_colour_not_by_alpha(busi):
    """Published masks are 1-bit, RGB, and RGBA whose alpha is 255 everywhere."""
    path = busi.path / "benign"
    mask = Image.open(path / "benign (1)_mask.png")
    expected = (np.asarray(mask) > 0).astype(int).tolist()
    for number, mode in enumerate(("1", "RGB", "RGBA"), start=1):
        mask.convert(mode).save(path / f"benign ({number})_mask.png")
    data = opened("busi", busi, "?kinds=benign")
    assert [data[i].label.tolist() for i in range(3)] == [expected] * 3


def test_busi_equal_images_never_straddle(busi):
    """benign (433) and malignant (145) are one image with two masks."""
    same = Image.open(busi.path / "benign" / "benign (2).png")
    same.save(busi.path / "malignant" / "malignant (1).png", compress_level=1)
    data = opened("busi", busi)
    twins = {"benign/benign (2)", "malignant/malignant (1)"}
    assert [set(same.names) for same in data.duplicates] == [twins]
    for seed in range(20):
        split = make_split(data, DataConfig(val_fraction=0.3, test_fraction=0.3, split_seed=seed))
        parts = [twins & set(part) for part in (split.train, split.val, split.test)]
        assert twins in parts, seed


def test_busi_folder_of_the_archive(busi):
    (busi.path / "top").mkdir()
    for kind in ("benign", "malignant", "normal"):
        (busi.path / kind).rename(busi.path / "top" / kind)
    (busi.path / "top").rename(busi.path / "Dataset_BUSI_with_GT")
    assert opened("busi", busi).names[0] == "benign/benign (1)"


def test_isbi2012_membranes_are_dark_and_foreground(membranes):
    data = opened("isbi2012", membranes)
    assert (data.names, data.channels) == (("train/0", "train/1", "train/2"), 1)
    assert data.class_names == ("cell", "membrane")
    assert data[0].label[[0, 11], 0].tolist() == [0, 1]
    assert "3 images without any mask left out" in data.warnings[0]
    assert data.predefined is None
    cells = opened("isbi2012", membranes, "?foreground=cell")
    assert cells.class_names[1] == "cell"
    assert cells[0].label[[0, 11], 0].tolist() == [1, 0]
    (membranes.path / "train/label/0.png").unlink()
    with pytest.raises(DataError, match=r"1 images without mask: train/image/0.png"):
        opened("isbi2012", membranes)


def test_isbi2012_stacks_are_read_page_by_page(membranes, tmp_path):
    folder = tmp_path / "stacks" / "ISBI-2012-challenge"
    folder.mkdir(parents=True)
    for kind, name in (("image", "volume"), ("label", "labels")):
        pages = [Image.open(membranes.path / f"train/{kind}/{i}.png") for i in range(3)]
        pages[0].save(folder / f"train-{name}.tif", save_all=True, append_images=pages[1:])
    pictures, stacks = (
        Dataset(f"isbi2012:{path}", CONFIG) for path in (membranes.path, folder.parent)
    )
    assert (stacks.names, stacks.warnings) == (pictures.names, ())
    for index in range(3):
        np.testing.assert_array_equal(stacks[index].image, pictures[index].image)
        np.testing.assert_array_equal(stacks[index].label, pictures[index].label)
    for pixels in ("image", "label"):
        assert len({getattr(stacks[i], pixels).tobytes() for i in range(3)}) == 3
    pages[0].save(folder / "train-labels.tif")
    with pytest.raises(DataError, match=r"train-labels.tif: 1 pages, but .* has 3; restore both"):
        Dataset(f"isbi2012:{folder}", CONFIG)
    (folder / "train-volume.tif").write_bytes(b"II*\0nothing")
    with pytest.raises(DataError, match=r"train-volume\.tif: "):
        Dataset(f"isbi2012:{folder}", CONFIG)


def test_camvid_classes_void_and_split(camvid):
    data = opened("camvid", camvid)
    assert (data.classes, len(data.class_names)) == (11, 11)
    assert data[0].label[:, 0].tolist() == [*range(11), 255]
    split = make_split(data, CONFIG)
    assert split.val == ("val/0016E5_000005",)
    assert len(split.test) == 2


def test_camvid_says_which_sequences_the_official_split_cuts(camvid):
    told = "the official split cuts sequences, which flatters its scores: "
    warnings = opened("camvid", camvid).warnings
    assert warnings == (f"{told}0001TP (test, train); 0016E5 (train, val)",)
    data = opened("camvid", camvid, "?split=none")
    assert (data.predefined, data.warnings) == (None, ())
    split = make_split(data, DataConfig(val_fraction=0.4, groups=r"/(\w+?)_"))
    sequences = [
        {name.split("/")[1].split("_")[0] for name in part} for part in (split.train, split.val)
    ]
    assert not sequences[0] & sequences[1]


def test_dsb2018_merges_the_nuclei_and_drops_alpha(nuclei):
    data = opened("dsb2018", nuclei)
    assert data.names == ("a", "b", "c")
    sample = data[0]
    assert (sample.image.shape, len(sample.files)) == ((12, 16, 3), 3)
    assert sample.label[[0, 5, 11], 0].tolist() == [1, 0, 1]


def test_a_run_opens_its_source_again(pets):
    data = opened("pets", pets, "?target=species")
    again = Dataset(data.source, CONFIG, label_map=data.label_map, channels=data.channels)
    assert again.fingerprint() == data.fingerprint()
    np.testing.assert_array_equal(again[5].label, data[5].label)
    with pytest.raises(DataError, match="has 2 classes, the run 3"):
        Dataset(f"pets:{pets.path}", CONFIG, label_map=data.label_map)


def test_options_that_change_labels_change_the_fingerprint(pets):
    queries = [
        f"?target={target}&border={border}"
        for target in ("pet", "species")
        for border in ("ignore", "foreground", "background")
    ]
    assert len({opened("pets", pets, query).fingerprint() for query in queries}) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pets:", "the folder is missing; `tinyseg data download pets PATH`"),
        ("pets", "the folder is missing; `tinyseg data download pets PATH`"),
        ("cats:x", "cats:x: no such folder, and cats: is no known dataset; known: pets:, busi:"),
        ("pets:nowhere", "no such folder: nowhere; `tinyseg data download pets nowhere`"),
        ("pets:.", "not there: images, annotations/trimaps, annotations/trainval.txt"),
        ("busi:.?kind=x", "unknown option 'kind'; known: kinds"),
        ("dsb2018:.?kind=x", "unknown option 'kind'; known: none"),
        ("busi:.?kinds=x", "kinds='x' must be some, each once, of benign, malignant, normal"),
        ("busi:.?kinds=benign,benign", "kinds='benign,benign' must be"),
        ("pets:.?border=", "border='' must be one of ignore, foreground, background"),
    ],
)
def test_bad_texts_are_one_line(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        Dataset(text, CONFIG)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_of_the_config_have_no_say(pets):
    config = Config().override(["data.labels=1:1,2:0,3:0"]).data
    with pytest.raises(DataError, match=r"remove data\.labels='1:1,2:0,3:0'"):
        Dataset(f"pets:{pets.path}", config)


def test_the_folder_may_be_in_the_home(pets, monkeypatch):
    monkeypatch.setenv("HOME", str(pets.path.parent))
    assert len(Dataset(f"pets:~/{pets.path.name}", CONFIG)) == 6


def test_a_folder_that_is_named_like_a_dataset_is_a_folder(folder, monkeypatch):
    folder.pairs(3, prefix="pets/")
    monkeypatch.chdir(folder.path)
    assert Dataset("pets", CONFIG).names == ("a0", "a1", "a2")


def test_every_source_is_published_over_https_with_its_terms():
    for name, source in SOURCES.items():
        assert source.title
        assert "cite" in source.terms, name
        for archive in source.archives:
            assert archive.url.startswith("https://")
            assert archive.sha256 is None or len(archive.sha256) == 64
