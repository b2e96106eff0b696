import json

import pytest

from tinyseg.config import DataConfig
from tinyseg.data import Dataset, Split, make_split
from tinyseg.data.content import Content
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.reading.label_map import LabelMap
from tinyseg.data.splits.groups import group_of
from tinyseg.data.splits.split import Folds, load_split, make_folds
from tinyseg.errors import DataError


def dataset(names, predefined=None, twins=(), pixels=None):
    """Labels hold `pixels` of each class for each name; without, all hold the same."""
    content = Content(
        "made up",
        names,
        read=lambda index: pytest.fail("a split must not read images"),
        fingerprint="",
        decided=LabelMap({0: 0, 255: 1}),
        channels=1,
        predefined=predefined,
        duplicates=[Duplicate(names, "identical") for names in twins],
        class_pixels=pixels or [{0: 3, 1: 1}] * len(names),
    )
    return Dataset(content)


NAMES = [f"a{i}" for i in range(100)]


def parts(split):
    return [set(part) for part in (split.train, split.val, split.test)]


def test_fractions_are_met_and_no_name_is_lost_or_doubled():
    split = make_split(dataset(NAMES), DataConfig(val_fraction=0.25, test_fraction=0.1))
    assert [len(part) for part in parts(split)] == [65, 25, 10]
    assert set.union(*parts(split)) == set(NAMES)
    assert list(split.train[:20]) == sorted(split.train[:20], key=lambda name: int(name[1:]))


@pytest.mark.parametrize(("count", "sizes"), [(2, [1, 1]), (3, [2, 1]), (7, [6, 1]), (8, [6, 2])])
def test_small_datasets_still_get_a_validation_image(count, sizes):
    split = make_split(dataset(NAMES[:count]), DataConfig(val_fraction=0.2))
    assert [len(split.train), len(split.val)] == sizes


def test_the_seed_decides_and_nothing_else():
    first = make_split(dataset(NAMES), DataConfig())
    assert make_split(dataset(NAMES), DataConfig()) == first
    assert make_split(dataset(NAMES), DataConfig(split_seed=1)) != first


def test_a_known_split_never_changes():
    split = make_split(dataset(NAMES[:10]), DataConfig())
    assert split.val == ("a1", "a8")


def test_new_images_leave_most_old_ones_where_they_are():
    before = make_split(dataset(NAMES), DataConfig())
    after = make_split(dataset([*NAMES, *(f"b{i}" for i in range(10))]), DataConfig())
    assert len(set(before.val) & set(after.val)) >= len(before.val) - 4


@pytest.mark.parametrize("seed", range(8))
def test_groups_never_straddle(seed):
    names = [f"patient{p}_{i}" for p in range(12) for i in range(1 + p % 5)]
    config = DataConfig(
        groups=r"(patient\d+)_", split_seed=seed, val_fraction=0.3, test_fraction=0.2
    )
    split = make_split(dataset(names), config)
    groups = [{name.split("_")[0] for name in part} for part in parts(split)]
    assert all(groups)
    assert not groups[0] & groups[1] | groups[1] & groups[2] | groups[0] & groups[2]
    assert set.union(*parts(split)) == set(names)
    assert abs(len(split.val) - 0.3 * len(names)) <= 3


def test_one_large_group_does_not_swallow_the_training_images():
    names = [f"big_{i}" for i in range(80)] + [f"s{i}_0" for i in range(20)]
    for seed in range(8):
        config = DataConfig(groups=r"^[a-z0-9]+", split_seed=seed)
        assert len(make_split(dataset(names), config).val) == 20


def test_equal_images_stay_together():
    twins = (("a1", "a50"), ("a50", "a70"), ("a2", "a3"))
    for seed in range(12):
        split = make_split(
            dataset(NAMES, twins=twins), DataConfig(split_seed=seed, test_fraction=0.3)
        )
        for pair in twins:
            assert sum(any(name in part for name in pair) for part in parts(split)) == 1


@pytest.mark.parametrize(
    ("name", "pattern", "group"),
    [
        ("p1_x", r"(p\d)_", "p1"),
        ("p1_x", r"p\d", "p1"),
        ("p1_x", "q", "p1_x"),
        ("p1_x", "", "p1_x"),
        ("p1_x", "(q)?x", "p1_x"),
    ],
)
def test_group_of(name, pattern, group):
    assert group_of(name, pattern) == group


def test_a_bad_pattern_is_quoted():
    with pytest.raises(DataError, match=r"data\.groups='\(' is not a regular expression"):
        make_split(dataset(NAMES), DataConfig(groups="("))


def test_a_pattern_too_deep_for_python_is_refused_in_one_short_line():
    with pytest.raises(DataError, match=r"^data\.groups='\(+\.\.\.' is not a regular") as error:
        make_split(dataset(NAMES), DataConfig(groups="(" * 30_000))
    assert len(str(error.value)) < 300


def test_the_limit_cuts_training_images_only_after_splitting():
    whole = make_split(dataset(NAMES), DataConfig(test_fraction=0.1))
    cut = make_split(dataset(NAMES), DataConfig(test_fraction=0.1, max_train_images=7))
    assert len(cut.train) == 7
    assert set(cut.train) < set(whole.train)
    assert (cut.val, cut.test) == (whole.val, whole.test)
    more = make_split(dataset(NAMES), DataConfig(test_fraction=0.1, max_train_images=8))
    assert set(cut.train) < set(more.train)


def test_split_folders_go_before_fractions():
    folders = {"train": ("t/a", "t/b"), "val": ("v/a",), "test": ("e/a",)}
    names = [name for part in folders.values() for name in part]
    assert make_split(dataset(names, folders), DataConfig(val_fraction=0.9)) == Split(
        *folders.values()
    )


def test_missing_validation_folder_is_cut_from_training():
    folders = {"train": tuple(f"t/{i}" for i in range(10)), "test": ("e/0",)}
    names = [name for part in folders.values() for name in part]
    split = make_split(dataset(names, folders), DataConfig(val_fraction=0.3, test_fraction=0.5))
    assert (len(split.train), len(split.val), split.test) == (7, 3, ("e/0",))


def test_a_saved_split_goes_before_all(tmp_path):
    saved = Split(("a1", "a10"), ("a2",), ("a3",))
    saved.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == saved
    config = DataConfig(split_file=str(tmp_path / "split.json"))
    assert make_split(dataset(NAMES, {"train": ("a7",), "val": ("a8",)}), config) == saved
    with pytest.raises(DataError, match=r"split\.json: 2 names are not in made up: a3, a10; use"):
        make_split(dataset(["a1", "a2"]), config)
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "split.json"
    Split(("a",), ("b",)).save(path)
    with pytest.raises(TypeError):
        Split((object(),), ("b",)).save(path)
    assert Split.load(path) == Split(("a",), ("b",))
    assert [p.name for p in tmp_path.iterdir()] == ["split.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a saved split"),
        ("[]", "not a saved split"),
        ('{"train": ["a"]}', "not a saved split"),
        ('{"train": "a", "val": ["b"]}', "train must be a list of names"),
        ('{"train": [1], "val": ["b"]}', "train must be a list of names"),
        (json.dumps({"train": ["a", "b"], "val": ["b"]}), "appear twice: b"),
        ("[" * 100000, "not a saved split"),
        ('{"folds": [["a"], ["b"]], "val": ["c"]}', "not a saved split"),
        ('{"folds": [["a"]]}', "folds must be a list of at least two"),
        ('{"folds": {"a": 1}}', "folds must be a list of at least two"),
        ('{"folds": [["a"], "b"]}', "fold 1 must be a list of names"),
        ('{"folds": [["a"], ["b", "a"]]}', "appear twice: a"),
        ('{"folds": [["a"], ["b"]], "test": ["b"]}', "appear twice: b"),
    ],
)
def test_bad_split_files(tmp_path, content, said):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"split\.json: .*{said}") as caught:
        load_split(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        Split.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("names", "config", "said"),
    [
        (
            NAMES,
            DataConfig(val_fraction=0.0),
            r"zero validation samples of 100 \(data.val_fraction=0\); raise data.val_fraction",
        ),
        (["a"], DataConfig(), "zero training samples of 1"),
        (["p_1", "p_2"], DataConfig(groups="p"), "zero training samples of 2 .*check data.groups"),
    ],
)
def test_empty_parts_are_refused_with_the_remedy(names, config, said):
    with pytest.raises(DataError, match=said):
        make_split(dataset(names), config)


def test_equal_images_in_a_folder_are_found(folder):
    folder.pairs(5)
    (folder.path / "images/a4.png").write_bytes((folder.path / "images/a0.png").read_bytes())
    assert Dataset(folder.path, DataConfig()).duplicates == (Duplicate(("a0", "a4"), "identical"),)


def test_a_group_scattered_by_folders_or_a_file_is_refused(tmp_path):
    names = ["p1_a", "p1_b", "p2_a", "p3_a"]
    folders = {"train": ("p1_a", "p2_a"), "val": ("p1_b", "p3_a")}
    with pytest.raises(DataError, match="more than one part of the split: p1;"):
        make_split(dataset(names, folders), DataConfig(groups=r"(p\d+)"))
    assert make_split(dataset(names, folders), DataConfig()).val == folders["val"]
    Split(*folders.values()).save(tmp_path / "split.json")
    given = DataConfig(groups=r"(p\d+)", split_file=str(tmp_path / "split.json"))
    with pytest.raises(DataError, match="more than one part"):
        make_split(dataset(names), given)


def shares(names, empty=0.3):
    """Label pixels by name: some empty, the others with more and more foreground."""
    count = len(names)
    return [
        {0: 1000} if index < empty * count else {0: 1000 - 9 * index, 1: 9 * index}
        for index in range(count)
    ]


@pytest.mark.parametrize("seed", range(6))
def test_every_part_gets_its_share_of_empty_small_and_large(seed):
    pixels = dict(zip(NAMES, shares(NAMES), strict=True))
    data = dataset(NAMES, pixels=list(pixels.values()))
    split = make_split(data, DataConfig(val_fraction=0.2, test_fraction=0.2, split_seed=seed))
    foreground = {name: counts.get(1, 0) for name, counts in pixels.items()}
    for part, fraction in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        names = getattr(split, part)
        assert abs(len(names) - 100 * fraction) <= 1
        assert abs(sum(not foreground[n] for n in names) - 30 * fraction) <= 1
        # the objects in quarters of 17 or 18 images
        for low, high in ((270, 427), (427, 585), (585, 742), (742, 900)):
            assert abs(sum(low <= foreground[n] < high for n in names) - 17.5 * fraction) <= 1.5


def test_without_strata_the_draw_is_by_the_seed_alone():
    config = DataConfig(stratify=False)
    data = dataset(NAMES, pixels=shares(NAMES))
    assert make_split(data, config) == make_split(dataset(NAMES), config)
    assert make_split(data, config) == make_split(dataset(NAMES), DataConfig())  # all alike
    assert make_split(data, DataConfig()) != make_split(data, config)


@pytest.mark.parametrize("seed", range(6))
def test_rare_classes_are_dealt_to_every_part(seed):
    rare = dict.fromkeys(range(0, 100, 10), 3) | dict.fromkeys(range(5, 100, 20), 2)
    pixels = [{0: 50, 1: 40, **({rare[i]: 10 + i % 7} if i in rare else {})} for i in range(100)]
    data = dataset(NAMES, pixels=pixels)
    split = make_split(data, DataConfig(split_seed=seed))
    held = [set(pixels[data.index(name)]) for name in split.val]
    assert sum(3 in kinds for kinds in held) == 2
    assert sum(2 in kinds for kinds in held) == 1


def test_strata_keep_most_images_where_they_are_when_new_ones_come():
    before = make_split(dataset(NAMES, pixels=shares(NAMES)), DataConfig())
    more = [*NAMES, *(f"b{i}" for i in range(10))]
    pixels = [*shares(NAMES), *({0: 600, 1: 400 + i} for i in range(10))]
    after = make_split(dataset(more, pixels=pixels), DataConfig())
    assert len(set(before.val) & set(after.val)) >= len(before.val) - 5


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_folds_hold_every_image_once_and_are_alike(count):
    pixels = shares(NAMES)
    data = dataset(NAMES, pixels=pixels)
    made = make_folds(data, DataConfig(folds=count))
    assert sorted(name for fold in made.folds for name in fold) == sorted(NAMES)
    assert max(map(len, made.folds)) - min(map(len, made.folds)) <= 1
    empty = [sum(1 not in pixels[data.index(name)] for name in fold) for fold in made.folds]
    assert max(empty) - min(empty) <= 1
    for fold in range(count):
        split = make_split(data, DataConfig(folds=count, fold=fold))
        assert split.val == made.folds[fold]
        assert set(split.train) == set(NAMES) - set(split.val)


def test_the_first_fold_is_the_split_of_its_fraction():
    data = dataset(NAMES, pixels=shares(NAMES))
    assert make_split(data, DataConfig(folds=5)) == make_split(data, DataConfig(val_fraction=0.2))


def test_folds_leave_the_test_images_out():
    made = make_folds(dataset(NAMES), DataConfig(folds=4, test_fraction=0.2))
    assert [len(fold) for fold in made.folds] == [20] * 4
    assert len(made.test) == 20
    folders = {"train": tuple(NAMES[:50]), "val": tuple(NAMES[50:80]), "test": tuple(NAMES[80:])}
    made = make_folds(dataset(NAMES, folders), DataConfig(folds=4, test_fraction=0.2))
    assert made.test == folders["test"]
    assert sorted(name for fold in made.folds for name in fold) == sorted(NAMES[:80])


@pytest.mark.parametrize("seed", range(6))
def test_folds_keep_groups_and_duplicates_together(seed):
    names = [f"p{p}_{i}" for p in range(20) for i in range(1 + p % 4)]
    twins = (("p0_0", "p1_0"), ("p1_1", "p2_0"))
    config = DataConfig(folds=5, groups=r"(p\d+)_", split_seed=seed)
    made = make_folds(dataset(names, twins=twins), config)
    patients = [{name.split("_")[0] for name in fold} for fold in made.folds]
    assert sum(map(len, patients)) == 20
    assert sum({"p0", "p1", "p2"} <= fold for fold in patients) == 1
    assert max(map(len, made.folds)) - min(map(len, made.folds)) <= 6


def test_too_few_groups_for_the_folds():
    with pytest.raises(DataError, match=r"data\.folds=5 needs as many .*, there are 3; lower"):
        make_folds(dataset(["p1_a", "p1_b", "p2", "p3"]), DataConfig(folds=5, groups=r"p\d"))


def test_saved_folds_are_used_again(tmp_path):
    data, path = dataset(NAMES), tmp_path / "folds.json"
    made = make_folds(data, DataConfig(folds=3, test_fraction=0.1))
    made.save(path)
    assert load_split(path) == made
    # another seed, another number of images: the file decides
    config = DataConfig(split_file=str(path), fold=2, split_seed=9)
    assert make_split(data, config) == made.split(2)
    assert make_split(data, DataConfig(split_file=str(path), fold=1, folds=3)) == made.split(1)
    with pytest.raises(DataError, match=r"holds 3 folds; set data\.fold to 0 \.\.\. 2"):
        make_split(data, DataConfig(split_file=str(path), fold=3))
    with pytest.raises(DataError, match="holds 3 folds"):
        make_split(data, DataConfig(split_file=str(path), folds=4))
    with pytest.raises(DataError, match="holds folds, not one split"):
        Split.load(path)
    made.split(0).save(path)
    with pytest.raises(DataError, match=r"holds one split; omit data\.folds=3"):
        make_split(data, DataConfig(split_file=str(path), folds=3))


def test_folds_as_a_value():
    made = Folds((("a",), ("b10", "b9"), ("c",)), ("t",))
    assert made.split(0) == Split(("b9", "b10", "c"), ("a",), ("t",))
