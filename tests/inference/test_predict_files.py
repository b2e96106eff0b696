"""Predictions as files. The network is a stand-in, so that nothing is compiled."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import IGNORE, Config, DataConfig
from tinyseg.data import Dataset
from tinyseg.data.reading.decode import decode_mask, load_image
from tinyseg.data.reading.mask_pixels import COLOR
from tinyseg.errors import DataError
from tinyseg.inference.mask_files import file_values, mask_picture
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.predict_files import predict

RNG = np.random.default_rng(0)


class Bright:
    """Stands in for a Predictor: the probability is the brightness; reads two images at a time."""

    def __init__(self, classes: int = 1):
        self.classes = classes

    def __call__(self, images: Iterable[np.ndarray], watch: object) -> Iterator[np.ndarray]:
        waiting: list[np.ndarray] = []
        for image in images:
            waiting.append(image)
            if len(waiting) == 2:
                yield from map(self._one, waiting)
                waiting = []
        yield from map(self._one, waiting)

    def _one(self, image: np.ndarray) -> np.ndarray:
        grey = image[..., 0].astype(np.float32) / 255
        if self.classes == 1:
            return grey[None]
        rest = (1 - grey) / (self.classes - 1)
        return np.stack([*[rest] * (self.classes - 1), grey])


def stub(label_map: dict[int, int] | None = None, predictor: object = None, **data: object):
    """What `predict` needs of a Run."""
    config = Config().override([f"data.{key}={value}" for key, value in data.items()])
    facts = SimpleNamespace(
        channels=1,
        label_map=label_map or {0: 0, 255: 1},
        input_statistics=None,
        class_names=(),
    )
    rest = {"predictor": predictor or Bright(), "folder": Path("run"), "key": repr(config)}
    run = SimpleNamespace(config=config, facts=facts, **rest)
    run.postprocess = lambda given: Postprocess(given or "")
    run.threshold_or = lambda given: given or 0.5
    run.load_image = lambda path, page: load_image(path, 1, page)
    return run


def test_class_names_are_written_with_the_values_of_the_masks(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    run = stub({0: 0, 4: 1, 0x1FF8000: 2}, Bright(3))
    run.facts.class_names = ("background", "lion", "red fox")
    predict(run, tmp_path / "in", tmp_path / "out")
    listing = tmp_path / "out" / "classes.txt"
    assert listing.read_text() == "0 background\n4 lion\n#ff8000 red fox\n"
    listing.write_text("mine")
    predict(run, tmp_path / "in", tmp_path / "out")
    assert listing.read_text() == "mine"


def image(path: Path, height: int = 6, width: int = 9, grey: int | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width), dtype=np.uint8)
    if grey is not None:
        pixels[:] = grey
    Image.fromarray(pixels).save(path)
    with Image.open(path) as stored:
        return np.array(stored.convert("L"))


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as mask:
        return np.array(mask)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("[!.]*") if p.is_file())


PALETTE_MAP = {value: value for value in range(21)} | {255: 255}
MAPS = {
    "0, 255": {0: 0, 255: 1},
    "turned": {0: 1, 255: 0},
    "0, 1": {0: 0, 1: 1},
    "1, 2": {1: 0, 2: 1},
    "0, 2": {0: 0, 2: 1},
    "trimap": {1: 1, 2: 0, 3: 255},
    "three": {0: 0, 1: 1, 2: 2},
    "grey levels": {0: 0, 127: 1, 254: 2},
    "small and large": {0: 0, 1: 1, 200: 2},
    "voc": PALETTE_MAP,
    "a ninth": {0: 0, 9: 1},
    "16 bits": {0: 0, 1000: 1, 65535: 2},
    "colors": {0: 0, COLOR + 0xFF0000: 1, COLOR + 0x00FF80: 2},
    "colors and white": {0: 0, COLOR + 0xFF0000: 1, 255: 2},
    "colors and a grey background": {128: 0, COLOR + 0x000001: 1},
}


@pytest.mark.parametrize("label_map", MAPS.values(), ids=MAPS.keys())
def test_values_are_the_inverse_of_the_label_map(label_map: dict[int, int]) -> None:
    values = file_values(label_map)
    for value, kind in label_map.items():
        if kind != 255:
            assert values[kind] == value


def test_of_a_range_the_background_takes_the_smallest_and_others_the_largest() -> None:
    ranges = {value: int(value >= 128) for value in range(256)}
    assert file_values(ranges)[:2].tolist() == [0, 255]
    objects = {0: 0} | dict.fromkeys(range(1, 65536), 1)
    assert file_values(objects)[:2].tolist() == [0, 65535]
    assert file_values({0: 0, 1: 1, 3: 255, 255: 255})[:2].tolist() == [0, 1]


@pytest.mark.parametrize("label_map", MAPS.values(), ids=MAPS.keys())
def test_masks_can_stand_in_for_the_masks_of_the_run(
    tmp_path: Path, label_map: dict[int, int]
) -> None:
    """What the library reads from the written file are the values of the run's own masks."""
    classes = max(kind for kind in label_map.values() if kind != 255) + 1
    every = np.arange(3 * classes, dtype=np.uint8).reshape(3, classes) % classes
    for shown in (every, np.zeros((3, 4), np.uint8), np.full((3, 4), classes - 1, np.uint8)):
        mask_picture(shown, label_map).save(tmp_path / "mask.png")
        read = decode_mask(tmp_path / "mask.png").pixels
        np.testing.assert_array_equal(read, file_values(label_map)[shown])
        meaning = np.vectorize(label_map.__getitem__)(read)
        np.testing.assert_array_equal(meaning, shown)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "labels"),
    [("isbi2012", "0:1,255:0"), ("camvid", "auto,11:ignore"), ("pets", "1:1,2:0,3:ignore")],
)
def test_real_labels_written_as_masks_are_the_same_labels(
    tmp_path: Path, shared_data: Path, folder: str, labels: str
) -> None:
    dataset = Dataset(shared_data / folder, DataConfig(labels=labels))
    for index in range(3):
        label = dataset[index].label
        label = np.where(label == IGNORE, 0, label)  # a prediction has a class everywhere
        mask_picture(label, dataset.label_map).save(tmp_path / "mask.png")
        values = decode_mask(tmp_path / "mask.png").pixels
        again = np.vectorize(dataset.label_map.__getitem__)(values)
        np.testing.assert_array_equal(again, label)


@pytest.mark.parametrize("name", [name for name in MAPS if name not in ("turned", "16 bits")])
def test_a_prediction_with_an_object_never_looks_black(name: str) -> None:
    label_map = MAPS[name]
    for kind in sorted({*label_map.values()} - {0, 255}):
        picture = mask_picture(np.full((2, 2), kind, np.uint8), label_map)
        shown = np.array(picture.convert("RGB")).max()
        assert shown > (0 if name == "colors and a grey background" else 60), (kind, shown)


def test_a_binary_mask_is_plain_black_and_white() -> None:
    picture = mask_picture(np.array([[0, 1]], np.uint8), {0: 0, 255: 1})
    assert picture.mode == "L"
    assert np.array(picture).tolist() == [[0, 255]]


def test_other_programs_read_the_values_too() -> None:
    for name in ("0, 1", "three", "voc"):
        picture = mask_picture(np.array([[0, 1]], np.uint8), MAPS[name])
        assert np.array(picture).tolist() == [[0, 1]]
    deep = mask_picture(np.array([[0, 1, 2]], np.uint8), MAPS["16 bits"])
    assert (deep.mode, np.array(deep).tolist()) == ("I;16", [[0, 1000, 65535]])


def test_a_folder_with_a_bad_file(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    names = ("a.png", "c.png", "sub/deep/d.bmp", "sub/e.PPM")
    pixels = {name: image(source / name) for name in names}
    (source / "b.png").write_bytes(b"this is no image")
    (source / "notes.txt").write_text("left alone")
    (source / ".hidden.png").write_bytes(b"left alone")
    said: list[str] = []
    written = predict(stub(), [source], out, say=said.append)
    assert files(out) == ["a.png", "c.png", "sub/deep/d.png", "sub/e.png"]
    assert written.masks == tuple(out / name for name in files(out))
    assert len(written.problems) == len(said) == 1
    assert "b.png" in written.problems[0]
    assert said[0].startswith("left out: ")
    for name, seen in pixels.items():
        mask = opened((out / name).with_suffix(".png"))
        np.testing.assert_array_equal(mask, np.where(seen / np.float32(255) >= 0.5, 255, 0))


@pytest.mark.parametrize("bad", [1, 2, 3, 4])
def test_bad_files_do_not_shift_the_names(tmp_path: Path, bad: int) -> None:
    for number in range(6):
        if number in (bad, 5):
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / f"{number}.png").write_bytes(b"")
        else:
            image(tmp_path / "in" / f"{number}.png", grey=255 * (number % 2), width=4 + number)
    written = predict(stub(), [tmp_path / "in"], tmp_path / "out", say=lambda text: None)
    assert len(written.masks) == 4
    for mask in written.masks:
        number = int(mask.stem)
        assert opened(mask).shape == (6, 4 + number)
        assert set(np.unique(opened(mask))) == {255 * (number % 2)}


def test_the_threshold_of_the_run_is_used_unless_another_is_given(tmp_path: Path) -> None:
    image(tmp_path / "a.png", grey=100)
    for threshold, value in ((0.3, 255), (None, 0)):
        predict(stub(), [tmp_path / "a.png"], tmp_path / "out", threshold=threshold)
        assert set(np.unique(opened(tmp_path / "out" / "a.png"))) == {value}


def test_images_of_one_name_all_get_a_mask(tmp_path: Path) -> None:
    names = ("a.jpg", "a.png", "a.png.jpg", "a.png.png", "b/x.png", "c/x.png", "d/x.png")
    for width, name in enumerate(names, start=5):
        image(tmp_path / "in" / name, width=width)
    written = predict(stub(), [tmp_path / "in"], tmp_path / "out")
    assert files(tmp_path / "out")[:2] == ["a.jpg.png", "a.png"]
    assert len(files(tmp_path / "out")) == len({*written.masks}) == len(names)
    single = [tmp_path / "in" / folder / "x.png" for folder in "bcd"]
    written = predict(stub(), single, tmp_path / "flat")
    assert files(tmp_path / "flat") == ["x.png", "x.png.png", "x.png.png.png"]
    assert [opened(mask).shape[1] for mask in written.masks] == [9, 10, 11]


@pytest.mark.parametrize("given", ["folder", "file"])
def test_an_image_is_never_overwritten_by_its_mask(tmp_path: Path, given: str) -> None:
    image(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    path = tmp_path if given == "folder" else tmp_path / "a.png"
    with pytest.raises(DataError, match=r"a\.png would be overwritten by its mask; give another"):
        predict(stub(), [path], tmp_path / "sub" / "..")
    assert (tmp_path / "a.png").read_bytes() == before


def test_masks_of_the_user_are_never_replaced(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        image(tmp_path / folder / "a.png")
    truth = (tmp_path / "masks" / "a.png").read_bytes()
    given = (stub(), [tmp_path / "images"], tmp_path / "masks")
    with pytest.raises(DataError, match=r"a\.png: 1 files there were not written by .*--force"):
        predict(*given)
    assert (tmp_path / "masks" / "a.png").read_bytes() == truth
    predict(*given, force=True)
    assert (tmp_path / "masks" / "a.png").read_bytes() != truth
    predict(*given, threshold=0.9)  # its own ones are


def test_an_image_that_the_run_cannot_fit_is_left_out(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png", 10, 10)
    image(tmp_path / "in" / "b.png", 10, 40)
    run = stub(size=16, fit="pad")
    written = predict(run, [tmp_path / "in"], tmp_path / "out", say=lambda text: None)
    assert files(tmp_path / "out") == ["a.png"]
    assert len(written.problems) == 1
    assert "b.png: image of 10 x 40 pixels is larger than data.size=16" in written.problems[0]
    rest = {"others": [run], "say": lambda text: None}
    assert (
        predict(stub(), [tmp_path / "in"], tmp_path / "both", **rest).problems == written.problems
    )


def test_probabilities_have_16_bits(tmp_path: Path) -> None:
    seen = image(tmp_path / "a.png")
    predict(stub(), [tmp_path / "a.png"], tmp_path / "out", probability=True)
    assert files(tmp_path / "out") == ["a.png", "probability/a.png"]
    deep = opened(tmp_path / "out" / "probability" / "a.png")
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep, np.round(seen / np.float32(255) * 65535))


def test_each_foreground_class_has_a_probability_of_its_own(tmp_path: Path) -> None:
    seen = image(tmp_path / "a.png") / np.float32(255)
    run = stub(MAPS["three"], Bright(classes=3))
    predict(run, [tmp_path / "a.png"], tmp_path / "out", probability=True)
    names = ["a.png", "probability/1/a.png", "probability/2/a.png"]
    assert files(tmp_path / "out") == names
    for name, expected in zip(names[1:], ((1 - seen) / 2, seen), strict=True):
        deep = opened(tmp_path / "out" / name)
        np.testing.assert_allclose(deep / 65535, expected, atol=1e-4)


def test_nothing_to_predict_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no image there; give files or folders"):
        predict(stub(), [tmp_path], tmp_path / "out")
    with pytest.raises(DataError, match=r"none\.png: no such file or folder"):
        predict(stub(), [tmp_path / "none.png"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pipes_loops_and_endless_stacks_are_left_out_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tinyseg.data.reading.decode.MOST_PAGES", 2)
    image(tmp_path / "a.png")
    pages = [Image.new("L", (4, 4)) for _ in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    done = predict(stub(), [tmp_path, tmp_path / "pipe.png"], tmp_path / "out", say=lambda _: None)
    assert [mask.name for mask in done.masks] == ["a.png"]
    left = [problem.partition(": ")[0].rpartition("/")[2] for problem in done.problems]
    assert sorted(left) == ["loop.png", "pages.tif", "pipe.png", "pipe.png"]


def test_no_usable_image_at_all_is_an_error_that_tells_why(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"none of 1 images can be used; the first: .*a\.png"):
        predict(stub(), [tmp_path], tmp_path / "out", say=lambda text: None)


def test_the_masks_of_a_folder_are_not_predicted(tmp_path: Path) -> None:
    for name in ("c (1).png", "c (1)_mask.png", "c (1)_mask_1.png", "d.png"):
        image(tmp_path / "beside" / name)
    for name in ("images/a.png", "masks/a.png"):
        image(tmp_path / "apart" / name)
    predict(stub(), [tmp_path / "beside"], tmp_path / "one")
    assert files(tmp_path / "one") == ["c (1).png", "d.png"]
    predict(stub(), [tmp_path / "apart"], tmp_path / "two")
    assert files(tmp_path / "two") == ["images/a.png"]


def test_masks_and_probabilities_do_not_meet(tmp_path: Path) -> None:
    for width, name in enumerate(("a.bmp", "a.png", "a_probability.png"), start=5):
        image(tmp_path / "in" / name, width=width)
    predict(stub(), [tmp_path / "in"], tmp_path / "out", probability=True)
    names = ["a.bmp.png", "a.png", "a_probability.png"]
    assert files(tmp_path / "out") == [*names, *(f"probability/{name}" for name in names)]
    assert [opened(tmp_path / "out" / name).shape[1] for name in names] == [5, 6, 7]


def test_a_name_of_the_longest_kind_is_no_obstacle(tmp_path: Path) -> None:
    image(tmp_path / ("x" * 248 + ".bmp"))
    image(tmp_path / "y.png")
    written = predict(stub(), [tmp_path], tmp_path.parent / "long")
    assert files(tmp_path.parent / "long")[-1] == "y.png"
    assert len(written.masks) == 2


# A call that was cut off, and pages


class Counting(Bright):
    """Counts the images it is given; may be interrupted after some."""

    def __init__(self, stop: int = 1000) -> None:
        super().__init__()
        self.seen, self.stop = 0, stop

    def _one(self, image: np.ndarray) -> np.ndarray:
        if self.seen == self.stop:
            raise KeyboardInterrupt
        self.seen += 1
        return super()._one(image)


def test_a_second_call_goes_on_where_the_first_was_cut_off(tmp_path: Path) -> None:
    for number in range(7):
        image(tmp_path / "in" / f"{number}.png", grey=40 * number)
    with pytest.raises(KeyboardInterrupt):
        predict(stub(predictor=Counting(3)), [tmp_path / "in"], tmp_path / "out")
    assert files(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    again, said = Counting(), list[str]()
    written = predict(stub(predictor=again), [tmp_path / "in"], tmp_path / "out", say=said.append)
    assert again.seen == 4
    assert said == ["3 of 7 masks are there already, made by the same run and settings"]
    assert [mask.name for mask in written.masks] == [f"{number}.png" for number in range(7)]
    third = Counting()
    assert len(predict(stub(predictor=third), [tmp_path / "in"], tmp_path / "out").masks) == 7
    assert third.seen == 0
    image(tmp_path / "in" / "5.png", grey=255, width=20)
    predict(stub(predictor=third), [tmp_path / "in"], tmp_path / "out")
    assert third.seen == 1
    assert (opened(tmp_path / "out" / "5.png") == np.full((6, 20), 255)).all()
    fourth = Counting()
    predict(stub(predictor=fourth), [tmp_path / "in"], tmp_path / "out", probability=True)
    assert fourth.seen == 7


def test_a_bad_image_is_told_again_by_the_second_call(tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"bad")
    for _ in range(2):
        written = predict(stub(), [tmp_path / "in"], tmp_path / "out", say=lambda text: None)
        assert [mask.name for mask in written.masks] == ["a.png"]
        assert len(written.problems) == 1


def test_few_images_are_in_memory_at_a_time(tmp_path: Path) -> None:
    """Of three hundred, the network has at most two, and each mask is written as it comes."""
    for number in range(300):
        image(tmp_path / "in" / f"{number:03}.png", 3, 3)

    class Looking(Counting):
        def _one(self, pixels: np.ndarray) -> np.ndarray:
            there = len(list((tmp_path / "out").glob("*.png")))
            assert self.seen - there <= 2
            return super()._one(pixels)

    predict(stub(predictor=Looking()), [tmp_path / "in"], tmp_path / "out")
    assert len(files(tmp_path / "out")) == 300


def test_every_page_of_a_tiff_has_a_mask(tmp_path: Path) -> None:
    pages = [np.full((4, 5 + page), 250 * (page % 2), np.uint8) for page in range(3)]
    first, *rest = (Image.fromarray(page) for page in pages)
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "stack.tif", save_all=True, append_images=rest)
    image(tmp_path / "in" / "stack_0002.png")
    Image.fromarray(pages[1]).save(tmp_path / "in" / "single.tiff")
    predict(stub(), [tmp_path / "in"], tmp_path / "out")
    names = ["single.png", "stack.tif_0002.png", "stack_0001.png", "stack_0002.png"]
    assert files(tmp_path / "out") == [*names, "stack_0003.png"]
    for number, name in enumerate(("stack_0001", "stack.tif_0002", "stack_0003")):
        mask = opened(tmp_path / "out" / f"{name}.png")
        np.testing.assert_array_equal(mask, np.where(pages[number] > 127, 255, 0))
