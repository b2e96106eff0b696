"""Images of any number of channels and depth, from files and arrays to predictions."""

import struct
import sys

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import Config
from tinyseg.data import Dataset, channel_names
from tinyseg.data.checks.check import check
from tinyseg.data.reading.decode import decode_image, load_image
from tinyseg.data.reading.pixel_range import (
    Extent,
    PixelRange,
    find_ranges,
    ranges_from_json,
    to_unit,
)
from tinyseg.drawing.pictures import color_image
from tinyseg.errors import ConfigError, DataError
from tinyseg.inference.predict_files import predict
from tinyseg.inference.run import load_run
from tinyseg.training.train import train

RANDOM = np.random.default_rng(0)


def bands_tiff(values: np.ndarray, bits: int = 8) -> bytes:
    """An uncompressed little-endian TIFF of (H, W, bands) with bands that have no meaning."""
    rows, columns, bands = values.shape
    body = values.astype(f"<u{bits // 8}").tobytes()
    entries = [(256, 4, columns), (257, 4, rows), (258, 3, bits), (259, 3, 1), (262, 3, 1)]
    entries += [(273, 4, 8), (277, 3, bands), (278, 4, rows), (279, 4, len(body))]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(body))
    return head + body + struct.pack("<H", len(entries)) + table + struct.pack("<I", 0)


def test_bands_without_tifffile_are_refused_with_the_pip_command(folder, monkeypatch):
    folder.mask("masks/a.png")
    path = folder.text("images/a.tif", bands_tiff(RANDOM.integers(0, 256, (12, 16, 5))))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for read in (lambda: load_image(path, None), lambda: Dataset(folder.path)):
        with pytest.raises(DataError, match=r'a\.tif: .*pip install "tinyseg\[tiff\]"$'):
            read()


@pytest.mark.parametrize(("bits", "bands"), [(8, 2), (16, 3), (16, 4), (8, 9)])
def test_every_band_is_read_as_stored(folder, bits, bands):
    pytest.importorskip("tifffile")
    values = RANDOM.integers(0, 1 << bits, (12, 16, bands))
    read = decode_image(folder.text("a.tif", bands_tiff(values, bits)))
    assert read.mode == f"{bands} x uint{bits}"
    np.testing.assert_array_equal(read.pixels, values)


def test_axes_of_a_file_are_channels_and_frames(folder, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    values = RANDOM.integers(0, 4096, (3, 2, 12, 16)).astype(np.uint16)  # time, channel
    for options in ({"ome": True}, {"imagej": True}):
        path = tmp_path / f"{next(iter(options))}.tif"
        tifffile.imwrite(path, values, metadata={"axes": "TCYX"}, **options)
        read = decode_image(path)
        np.testing.assert_array_equal(read.pixels, values[0].transpose(1, 2, 0))
        assert read.more_frames
        np.testing.assert_array_equal(decode_image(path, 2).pixels[..., 1], values[2, 1])
        assert decode_image(path, stacked=True).pixels.shape == (12, 16, 6)


def test_pages_are_channels_when_said(folder):
    pages = [Image.fromarray(RANDOM.integers(0, 256, (12, 16)).astype(np.uint8)) for _ in range(4)]
    for index in range(2):
        folder.mask(f"masks/a{index}.png")
        path = folder.path / f"images/a{index}.tif"
        path.parent.mkdir(exist_ok=True)
        pages[0].save(path, save_all=True, append_images=pages[1:])
    first = Dataset(folder.path)
    assert first.channels == 1
    assert any("data.pages=channels" in warning for warning in first.warnings)
    stacked = Dataset(folder.path, pages="channels")
    assert stacked.channels == 4
    np.testing.assert_array_equal(stacked[0].image[..., 2], np.asarray(pages[2]))
    assert first.fingerprint() != stacked.fingerprint()


def test_each_page_is_an_image_when_said(folder):
    pages = [Image.fromarray(np.full((12, 16), 50 * (n + 1), np.uint8)) for n in range(3)]
    for index in range(2):
        folder.save(f"images/a{index}.tif", pages[0], save_all=True, append_images=pages[1:])
        path = folder.save(f"masks/a{index}.tif", pages[2], save_all=True, append_images=pages[1:])
    folder.image("images/b.png")
    folder.mask("masks/b.png")
    options = {"pages": "frames", "labels": "50:0,100:1,150:1,0:0,255:1"}
    frames = Dataset(folder.path, **options)
    assert frames.names == ("a0_0001", "a0_0002", "a0_0003", "a1_0001", "a1_0002", "a1_0003", "b")
    assert frames[4].image[0, 0, 0] == 100
    assert any('data.groups="(.*)_"' in warning for warning in frames.warnings)
    found = check(folder.path, Config().override([f"data.{k}={v}" for k, v in options.items()]))
    assert found.images == 7
    folder.save("masks/a1.tif", pages[2])
    with pytest.raises(DataError, match=rf"{path}: has 1 pages but .*a1\.tif has 3"):
        Dataset(folder.path, **options)


def test_one_range_for_all_depths_is_chosen_from_the_data(folder):
    for index, (depth, top) in enumerate(((np.uint8, 255), (np.uint16, 4095), (np.uint16, 65535))):
        shade = np.linspace(0.1, 0.9, 12 * 16).reshape(12, 16)
        folder.save(f"images/a{index}.png", (shade * top).astype(depth))
        folder.mask(f"masks/a{index}.png")
    dataset = Dataset(folder.path)
    means = [float(dataset[i].image.mean()) / (255 if i == 0 else 1) for i in range(3)]
    np.testing.assert_allclose(means, 0.5, atol=0.01)
    assert "images of several depths" in dataset.warnings[0]
    said = [one for one in check(folder.path, Config()).findings if one.check == "bit depths"]
    assert len(said) == 2
    one = Dataset(folder.path, range="0,65535")
    assert one[1].image.mean() < 0.05
    assert one[0].image.dtype == np.float32


@pytest.mark.parametrize(
    ("kind", "extents", "expected"),
    [
        ("integer", [(0, 900), (5, 2000)], [((0,), (4095,))]),
        ("integer", [(0, 4000), (5, 65000)], [((0,), (4095,)), ((0,), (65535,))]),
        ("integer", [(0, 800), (5, 9000), (9, 65000)], [((0,), (65535,))]),
        ("integer", [(0, 100000)], [((0,), (100000,))]),
        ("integer", [(-1000, 3000), (-900, 2000)], [((-1000,), (3000,))]),
        ("float", [(0, 0.3)], [((0,), (1,))]),
        ("float", [(2, 250), (1, 9)], [((1,), (250,))]),
        ("float", [(7, 7)], [((7,), (8,))]),
    ],
)
def test_ranges(kind, extents, expected):
    found = find_ranges([Extent(kind, (low,), (high,)) for low, high in extents])
    assert [(one.low, one.high) for one in found[kind]] == expected


def test_values_become_0_to_1():
    ranges = {"integer": (PixelRange((-100, 0), (100, 10)),)}
    image = np.array([[[0, 5], [300, -7]]], np.int32)
    np.testing.assert_allclose(to_unit(image, ranges), [[[0.5, 0.5], [1, 0]]])
    with pytest.raises(ConfigError, match=r"data\.range='9,1'"):
        find_ranges([], "9,1")
    for bad in ({"integer": [{"low": [1], "high": [0]}]}, {"x": [{"low": [0], "high": [1]}]}):
        with pytest.raises(ValueError, match="range"):
            ranges_from_json(bad)


def test_other_numbers_of_channels_are_not_mixed(folder):
    pytest.importorskip("tifffile")
    for index, bands in enumerate((4, 4, 2)):
        values = RANDOM.integers(0, 256, (12, 16, bands))
        folder.text(f"images/a{index}.tif", bands_tiff(values))
        folder.mask(f"masks/a{index}.png")
    with pytest.raises(DataError, match=r"images with 2 and 4 channels in one dataset.*a2"):
        Dataset(folder.path)


def test_pictures_and_names_of_many_channels():
    image = RANDOM.random((8, 8, 5)).astype(np.float32)
    shown = color_image(image)
    assert shown.shape == (8, 8, 3)
    assert shown.min() == 0
    assert shown.max() == 255
    assert color_image(image[..., :2])[..., 2].max() == 0
    np.testing.assert_array_equal(color_image(image, (5, 2, 1))[..., 2], shown[..., 0])
    assert (np.ptp(color_image(image, (4,)), axis=2) == 0).all()
    assert channel_names(2) == ("channel 1", "channel 2")


@pytest.mark.slow
def test_five_channels_train_and_predict(tmp_path):
    masks = (RANDOM.random((8, 32, 32)) > 0.7).astype(np.uint8)
    images = RANDOM.random((8, 32, 32, 5)).astype(np.float32)
    images[..., 4] = masks
    run = train(
        (images, masks),
        tmp_path / "run",
        epochs=1,
        size=32,
        base_channels=4,
        depth=1,
        say=lambda text: None,
    )
    assert run.facts.channels == 5
    assert len(run.facts.scale.mean) == 5
    assert run.predict(images[0]).shape == (32, 32)
    with pytest.raises(DataError, match="has 3 channels, but 5 are needed"):
        run.predict(images[0, ..., :3])
    Image.fromarray(masks[0]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the image has 1 channels, but 5 are needed"):
        predict(load_run(tmp_path / "run"), tmp_path / "a.png", tmp_path / "out")
