"""What is decoded once is never decoded again, and what is damaged is never used."""

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.common.cache_dir import FileCache
from tinyseg.common.threads import in_threads
from tinyseg.config import DataConfig
from tinyseg.data import (
    Dataset,
    InputPipeline,
    InputScale,
    Store,
    cached_scale,
    find_scale,
    image_part,
    load_image,
    prepare_images,
    prepare_label,
    visible_part,
)
from tinyseg.data.prepare import prepared_images
from tinyseg.data.reading import cases
from tinyseg.data.reading.cases import join
from tinyseg.data.simulation.simulate import Simulation
from tinyseg.data.storage import records, store
from tinyseg.errors import DataError

CONFIG = DataConfig(size=16)
NO_SCALE = InputScale((0.0,), (1.0,))
PIPELINE = InputPipeline(CONFIG, NO_SCALE)
FIT = (16, "resize")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from here on."""
    visible: list[str] = []
    for name in ("decode_image", "decode_mask"):
        original = getattr(cases, name)

        def counted(path, *args, original=original):
            visible.append(f"{path.parent.name}/{path.name}")
            return original(path, *args)

        monkeypatch.setattr(cases, name, counted)
    return visible


def files(own_cache: Path) -> list[Path]:
    return sorted(own_cache.glob("*.records"))


def everything(folder, **options) -> tuple:
    """All that a dataset gives, and its fitted tiles."""
    data = Dataset(folder.path, CONFIG, **options)
    tiles = prepare_images(data, data.names, PIPELINE).records
    samples = [data[index] for index in range(len(data))]
    pixels = [(s.image.tobytes(), s.label.tobytes(), s.image.dtype, s.files) for s in samples]
    told = (data.names, data.label_map, data.channels, data.warnings, data.duplicates)
    counts = [(data.class_pixels(index), data.size(index)) for index in range(len(data))]
    for (areas, size), sample in zip(counts, samples, strict=True):
        assert size == sample.image.shape[:2]
        assert areas == {k: (sample.label == k).sum() for k in np.unique(sample.label)}
    return told, counts, data.fingerprint(), pixels, tiles.dtype, tiles.tobytes()


# 1. Once


def test_a_second_start_decodes_nothing_and_gives_the_same(folder, decoded):
    folder.pairs(3)
    folder.mask("masks/a0_mask.png", (255, 0, 0))
    first = everything(folder)
    assert sorted(decoded) == sorted(
        [f"{kind}/a{i}.png" for kind in ("images", "masks") for i in range(3)]
        + ["masks/a0_mask.png"]
    )
    decoded.clear()
    assert everything(folder) == first
    assert decoded == []


def test_only_a_file_that_changed_is_decoded_again_wherever_it_lies(folder, decoded):
    folder.pairs(3)
    everything(folder)
    folder.mask("masks/a1.png", (255, 0))
    (folder.path / "images/a2.png").rename(folder.path / "images/b.png")
    (folder.path / "masks/a2.png").rename(folder.path / "masks/b.png")
    decoded.clear()
    changed = everything(folder)
    assert sorted(decoded) == ["images/a1.png", "masks/a1.png"]
    assert changed[3][1][1] == mask_bytes((255, 0))


def mask_bytes(values: tuple[int, ...]) -> bytes:
    bands = np.array(values)[np.arange(12) * len(values) // 12] // 255
    return np.repeat(bands[:, None], 16, 1).astype(np.uint8).tobytes()


@pytest.mark.parametrize("normalize", ["dataset", "image", "minmax"])
def test_tiles_are_what_preparing_each_file_gives(folder, normalize):
    for index, (height, width) in enumerate([(12, 16), (40, 30), (16, 16)]):
        folder.image(f"images/a{index}.png", height, width)
        folder.mask(f"masks/a{index}.png", (0, 255, 0), height, width)
    config = DataConfig(size=16, normalize=normalize, preprocess="median(size=3)")
    data, names = Dataset(folder.path, config), ("a2", "a1")
    pipeline = InputPipeline(config, cached_scale(data, names, config))
    for _ in range(2):
        tiles = prepare_images(data, names, pipeline)
        assert isinstance(tiles.records, np.memmap)
        assert len(tiles) == 2
        for name, tile, label in zip(names, tiles, tiles.labels, strict=True):
            expected = pipeline.tile(load_image(folder.path / f"images/{name}.png", 1))
            mask = load_image(folder.path / f"masks/{name}.png", 1)[..., 0] // 255
            np.testing.assert_array_equal(tile.pixels, expected.pixels)
            np.testing.assert_array_equal(label, prepare_label(mask, *FIT))
            assert (tile.placement, tile.scale) == (expected.placement, expected.scale)
    with pytest.raises(ValueError, match="read-only"):
        tiles.labels[0] = 0


def test_tiles_are_those_that_the_pipeline_gives_with_their_labels(folder):
    for index, (height, width) in enumerate([(12, 40), (16, 16), (33, 20)]):
        folder.image(f"images/a{index}.png", height, width)
        folder.mask(f"masks/a{index}.png", (0, 255, 0), height, width)
    config = DataConfig(size=16, fit="tile", normalize="image")
    data, pipeline = Dataset(folder.path, config), InputPipeline(config, None)
    tiles = prepare_images(data, data.names, pipeline, config.overlap)
    samples = [data[index] for index in range(3)]
    groups = list(tiles.images())
    assert [len(group) for group in groups] == [len(pipeline.tiles(s.image)) for s in samples]
    assert len(tiles) == sum(map(len, groups)) > 9
    for sample, group in zip(samples, groups, strict=True):
        for found, expected in zip(group, pipeline.tiles(sample.image), strict=True):
            np.testing.assert_array_equal(found.pixels, expected.pixels)
            assert (found.placement, found.scale) == (expected.placement, expected.scale)
    for image, tile, label in zip(tiles.image_index, tiles, tiles.labels, strict=True):
        whole = samples[image].label
        part = image_part(label, tile.placement)
        np.testing.assert_array_equal(part, whole[visible_part(tile.placement, 16)])
        assert (label == 255).sum() == label.size - part.size


def test_the_scale_is_found_once(folder, monkeypatch):
    folder.pairs(3)
    for normalize in ("dataset", "image", "none"):
        config = DataConfig(normalize=normalize)
        data = Dataset(folder.path, config)
        found = cached_scale(data, data.names[:2], config)
        images = [data[index].image for index in range(2)]
        assert found == find_scale(config, images, 1), normalize
        assert cached_scale(data, data.names[:2], config) == found
    monkeypatch.setattr(prepared_images, "find_scale", lambda *arguments: None)
    assert cached_scale(data, data.names[:2], DataConfig(normalize="dataset")) is not None
    assert cached_scale(data, data.names, DataConfig(normalize="dataset")) is None
    assert cached_scale(data, data.names[:2], DataConfig(preprocess="median(size=3)")) is None


def test_one_deep_image_makes_all_tiles_float(folder):
    folder.pairs(2)
    deep = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300
    folder.save("images/a1.png", Image.fromarray(deep))
    data = Dataset(folder.path, CONFIG)
    for _ in range(2):
        pixels = [tile.pixels for tile in prepare_images(data, data.names, PIPELINE)]
        expected = PIPELINE.tile(load_image(folder.path / "images/a1.png", 1)).pixels
        np.testing.assert_array_equal(pixels[1], expected)
        flat = PIPELINE.tile(load_image(folder.path / "images/a0.png", 1)).pixels
        np.testing.assert_array_equal(pixels[0], flat.astype(np.float32) / 255)


def test_each_thing_that_shapes_the_tiles_has_its_own_file(folder, own_cache):
    folder.pairs(3)
    options = [{}, {"label_map": {0: 1, 255: 0}}, {"channels": 3}]
    settings = [{}, {"size": 32}, {"fit": "pad"}, {"preprocess": "median(size=3)"}]
    counts = []
    for option in options:
        data = Dataset(folder.path, CONFIG, **option)
        scales = [InputScale((mean,) * data.channels, (1.0,) * data.channels) for mean in (0, 0.5)]
        pipelines = [InputPipeline(DataConfig(**setting), scales[0]) for setting in settings]
        pipelines += [
            InputPipeline(CONFIG, scales[1]),
            InputPipeline(DataConfig(normalize="minmax"), None),
        ]
        for names in (data.names, data.names[:2], data.names[::-1]):
            for pipeline in pipelines:
                prepare_images(data, names, pipeline)
                counts.append(len(files(own_cache)))
    assert counts == list(range(7, 7 + 3 * 3 * 6))


def test_code_and_libraries_are_in_every_key(monkeypatch):
    keys = {store.digest("case"), store.digest("case", 1), store.digest("tiles")}
    for changed in ("code", "pillow"):
        monkeypatch.setattr(store, "_versions", lambda changed=changed: (changed,))
        keys.add(store.digest("case"))
    assert len(keys) == 5
    monkeypatch.undo()
    code = store._versions.__wrapped__()
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"changed")
    assert store._versions.__wrapped__()[0] != code[0]
    assert store._versions.__wrapped__()[1:] == code[1:]


def test_simulated_images_are_drawn_once(monkeypatch):
    data = Dataset("sim:shapes?n=3&size=32", CONFIG)
    first = [data[index] for index in range(3)]
    monkeypatch.setattr(Simulation, "sample", None)
    again = Dataset("sim:shapes?n=3&size=32", CONFIG)
    for index, sample in enumerate(first):
        np.testing.assert_array_equal(again[index].image, sample.image)
        np.testing.assert_array_equal(again[index].label, sample.label)


# 2. Masks before they have a meaning


@pytest.mark.parametrize("values", [(0, 255), (0, 1, 2, 7), tuple(range(300)), (3, 70000, 1 << 25)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_joined_masks_give_the_label_that_their_maximum_gives(values, count):
    rng = np.random.default_rng(len(values) + count)
    dtype = np.uint8 if max(values) < 256 else np.int32
    masks = [np.array(values, dtype)[rng.integers(0, len(values), (23, 31))] for _ in range(count)]
    table = {value: int(rng.integers(0, 4)) if rng.random() < 0.9 else 255 for value in values}
    numbers, sets, areas = join(masks)
    expected = np.max([np.vectorize(table.get)(mask) for mask in masks], axis=0)
    found = np.array([max(table[value] for value in known) for known in sets])[numbers]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(areas, np.bincount(numbers.ravel()))
    assert len(set(sets)) == len(sets)


def test_many_masks_of_two_values_are_three_sets_at_most():
    rng = np.random.default_rng(0)
    masks = [(rng.random((9, 9)) < 0.1).astype(np.uint8) * 255 for _ in range(300)]
    assert len(join(masks)[1]) <= 3


# 3. Damage, kills, full disks


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[: len(content) // 2],
        lambda content: content + b"\0",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:-200] + bytes([content[-200] ^ 1]) + content[-199:],
        lambda content: content[:-1] + b"?",
        lambda content: bytes(len(content)),
    ],
)
def test_what_is_damaged_is_made_again(folder, own_cache, decoded, change):
    folder.pairs(2)
    first = everything(folder)
    before = {path: path.read_bytes() for path in files(own_cache)}
    for path in before:
        path.write_bytes(change(path.read_bytes()))
    assert everything(folder) == first
    assert {path: path.read_bytes() for path in files(own_cache)} == before


def test_a_header_that_lies_is_refused(tmp_path):
    record = np.dtype([("image", np.uint8, (4,))])
    with (tmp_path / "file").open("w+b") as file:
        records.write_records(
            file, "key", record, 1, lambda put: put(0, [np.arange(4, dtype=np.uint8)])
        )
        assert records.map_records(file, "key")["image"].tolist() == [[0, 1, 2, 3]]
        content = (tmp_path / "file").read_bytes()
        for old, new in ((b"'|u1'", b"'|O'"), (b"(4,)", b"(-4,)"), (b"(1,)", b"(10000000000,)")):
            assert old in content
            changed = content.replace(old, new)[16:]
            file.seek(0)
            file.truncate()
            file.write(hashlib.blake2b(changed, digest_size=16).digest() + changed)
            with pytest.raises(records.Damaged):
                records.map_records(file, "key")


def test_a_whole_file_under_the_name_of_another_is_not_taken_for_it(tmp_path):
    kept = store.Store(store.image_files(tmp_path))
    for value in (0, 1):
        kept.keep(f"{value}", {"image": np.full((2, 2), value, np.uint8)})
    files = store.image_files(tmp_path)
    files.path("0").write_bytes(files.path("1").read_bytes())
    assert kept.load("0") is None
    assert kept.load("1")["image"].all()


def test_files_are_private(folder, own_cache):
    folder.pairs(2)
    everything(folder)
    assert {path.stat().st_mode & 0o777 for path in own_cache.iterdir()} == {0o600}
    assert own_cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_full_disk_is_told_once_and_stops_nothing(folder, own_cache, monkeypatch, after):
    folder.pairs(3)
    expected = everything(folder)
    for path in files(own_cache):
        path.unlink()
    pwrite, calls = os.pwrite, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(28, "No space left on device")
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    found = everything(folder)
    assert found[3:] == expected[3:]
    assert list(own_cache.glob("*.partial")) == []
    warnings = found[0][3]
    assert len(warnings) == (after < 3), "the last time, the tiles alone are not kept"
    assert all("not kept on disk" in w and "No space left on device" in w for w in warnings)


def test_a_folder_that_cannot_be_used_is_told_and_stops_nothing(folder, tmp_path, monkeypatch):
    folder.pairs(2)
    expected = everything(folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    found = everything(folder)
    assert found[3:] == expected[3:]
    assert "no writable cache folder" in found[0][3][0]


def test_a_file_that_is_written_while_it_is_decoded_is_not_kept(folder, own_cache, monkeypatch):
    folder.pairs(1)
    original = cases.decode_mask

    def written(*args):
        found = original(*args)
        folder.mask("masks/a0.png", (255, 0, 255))
        return found

    monkeypatch.setattr(cases, "decode_mask", written)
    Dataset(folder.path, CONFIG)
    assert files(own_cache) == []


# 4. More than fits


def test_a_store_that_is_too_small_serves_every_image_all_the_same(folder, tmp_path, decoded):
    folder.pairs(6)
    expected = everything(folder)
    small = FileCache(tmp_path / "small", ".records", 2 * 8192)
    found = everything(folder, store=Store(small))
    assert found == expected
    assert small.info().bytes <= 2 * 8192


BEYOND_MEMORY = """
import resource
import numpy as np
from tinyseg.config import DataConfig
from tinyseg.data import Dataset, InputPipeline, InputScale, Sample, prepare_images
from tinyseg.data.content import Content
from tinyseg.data.reading.label_map import LabelMap

def read(index):
    pixels = np.full((2048, 2048), index, np.uint8)
    return Sample(str(index), pixels[..., None], pixels)

def fit(count):
    names = [str(index) for index in range(count)]
    data = Dataset(Content("", names, read, "", LabelMap({0: 0, 1: 1}), 1))
    data.cache_bytes = 8 << 20
    pipeline = InputPipeline(DataConfig(size=512), InputScale((0.0,), (1.0,)))
    tiles = prepare_images(data, names, pipeline)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, tiles

before, _ = fit(8)
after, tiles = fit(40)
print(after - before, tiles[39].pixels.max())
"""


def test_memory_is_not_that_of_all_images(tmp_path):
    """320 MiB of images pass through a process that keeps 8 MiB of them."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment["PYTHONPATH"] = str(Path(store.__file__).parents[3])
    command = [sys.executable, "-c", BEYOND_MEMORY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    growth, last = map(int, done.stdout.split())
    assert last == 39
    assert growth < 64


# 5. At the same time


def test_builders_at_the_same_time_agree(folder, own_cache):
    folder.pairs(4)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: everything(folder), range(6)))
    assert all(one == found[0] for one in found)
    assert len(files(own_cache)) == 9
    assert list(own_cache.glob("*.partial")) == []


def test_an_error_leaves_the_rest_undone_and_results_keep_their_order():
    begun, gate = [], threading.Event()

    def work(item):
        begun.append(item)
        if item == 1:
            raise DataError("bad")
        gate.wait(0.01)
        return item

    with pytest.raises(DataError):
        list(in_threads(work, range(1000)))
    assert len(begun) < 100
    calls = []
    assert list(in_threads(str, range(20), lambda *told: calls.append(told))) == [
        str(item) for item in range(20)
    ]
    assert calls == [(done, 20) for done in range(1, 21)]
