import io
import itertools

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from tinyseg.config import DataConfig
from tinyseg.data import Dataset, simulate
from tinyseg.data.reading.duplicates import (
    NEAR,
    RADIUS,
    SIDE,
    _coefficients,
    _turn,
    find_duplicates,
    thumbnail,
)
from tinyseg.data.simulation.simulate import KINDS

IMAGES = [s.image for s in simulate("cells", n=30, size=96, seed=4)]


def found(images, digests=None):
    names = [str(index) for index in range(len(images))]
    digests = digests or [name.encode() for name in names]
    return find_duplicates(names, digests, [thumbnail(image) for image in images])


def jpeg(image, quality=40):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(image, rows, columns):
    return np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC))


ALTERED = {
    "compressed": jpeg,
    "half": lambda image: resized(image, 48, 48),
    "larger and compressed": lambda image: jpeg(resized(image, 250, 250)),
    "stretched": lambda image: resized(image, 70, 130),
    "brighter": lambda image: np.clip(image.astype(int) + 25, 0, 255).astype(np.uint8),
    "contrast": lambda image: (image * 0.6 + 40).astype(np.uint8),
    "grey": lambda image: np.asarray(Image.fromarray(image).convert("L"))[..., None],
    "16 bits": lambda image: (image.mean(2, keepdims=True) / 255).astype(np.float32),
    "noise": lambda image: np.clip(
        image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("change", ALTERED)
def test_an_altered_copy_is_found_among_others_and_nothing_else(change):
    duplicates = found([*IMAGES, ALTERED[change](IMAGES[7])])
    assert [same.names for same in duplicates] == [("7", "30")]
    assert duplicates[0].kind in ("same", "near")
    assert duplicates[0].correlation >= NEAR


@pytest.mark.parametrize(
    ("turned", "words"),
    [
        (lambda image: image[:, ::-1], "mirrored"),
        (lambda image: image[::-1], "upside down"),
        (lambda image: image[::-1, ::-1], "turned by 180 degrees"),
        (lambda image: image.transpose(1, 0, 2), "transposed"),
        (lambda image: np.rot90(image, 3), "turned right"),
        (lambda image: np.rot90(image), "turned left"),
        (lambda image: image[::-1, ::-1].transpose(1, 0, 2), "transposed and turned"),
    ],
)
def test_turned_copies_are_found_with_how_they_lie(turned, words):
    (same,) = found([*IMAGES, np.ascontiguousarray(turned(IMAGES[3]))])
    assert same.names == ("3", "30")
    assert same.kind == "same"
    assert words in same.turned
    assert words in str(same)


def test_a_picture_that_is_nearly_its_own_mirror_image():
    image = IMAGES[3].astype(float)
    even = image + image[:, ::-1] + 0.2 * (image - image[:, ::-1])  # its mirror image is near too
    first = (even / even.max() * 255).astype(np.uint8)
    (mirrored,) = found([first, np.ascontiguousarray(first[:, ::-1])])
    assert mirrored.correlation > 0.999
    assert mirrored.turned == "mirrored"
    (copy,) = found([first, jpeg(first, 80)])
    assert copy.turned == ""
    waves = _coefficients(np.stack([thumbnail(first)]))
    assert NEAR < float((waves * _turn(waves, (False, False, True))).sum()) < 0.999


def test_correlations_are_those_of_the_weighted_cosine_transform():
    small = np.stack([thumbnail(image) for image in IMAGES[:6]])
    waves = dctn(small.astype(np.float64), axes=(1, 2))
    radius = np.hypot(*np.ogrid[:SIDE, :SIDE])
    waves = (waves * np.where(radius <= RADIUS, radius, 0)).reshape(6, -1)
    unit = waves / np.linalg.norm(waves, axis=1, keepdims=True)
    np.testing.assert_allclose(_coefficients(small), unit, atol=2e-5)


def test_turning_coefficients_is_turning_pictures():
    small = np.stack([thumbnail(image) for image in IMAGES[:4]])
    for turn in np.ndindex(2, 2, 2):
        planes = small.transpose(0, 2, 1) if turn[0] else small
        planes = planes[:, ::-1] if turn[1] else planes
        planes = planes[:, :, ::-1] if turn[2] else planes
        np.testing.assert_allclose(
            _turn(_coefficients(small), tuple(map(bool, turn))), _coefficients(planes), atol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_simulated_images_are_not_taken_for_each_other(kind):
    assert found([sample.image for sample in simulate(kind, n=80, size=48)]) == ()


def test_flat_and_noisy_images_do_not_flood():
    rng = np.random.default_rng(1)
    flat = [np.full((20, 20, 1), grey, np.uint8) for grey in range(20)]
    speck = [np.zeros((200, 200, 1), np.uint8) for _ in range(20)]
    for index, image in enumerate(speck):
        image[index, index] = 90
    noise = [rng.integers(0, 256, (40, 40, 1), dtype=np.uint8) for _ in range(60)]
    assert found([*flat, *speck, *noise]) == ()


def test_identical_images_are_one_group_and_stand_first():
    images = [IMAGES[0], IMAGES[1], IMAGES[0], jpeg(IMAGES[1]), IMAGES[0], jpeg(IMAGES[0])]
    duplicates = found(images, [b"a", b"b", b"a", b"c", b"a", b"d"])
    assert duplicates[0].names == ("0", "2", "4")
    assert str(duplicates[0]) == "0 = 2 = 4 (equal pixel for pixel)"
    assert {same.names for same in duplicates[1:]} == {("1", "3"), ("0", "5")}
    values = [same.correlation for same in duplicates[1:]]
    assert values == sorted(values, reverse=True)


def test_images_that_hang_together_are_one_group():
    copies = [IMAGES[2], *(jpeg(IMAGES[2], quality) for quality in (30, 40, 60))]
    found_last, found_first = found([*copies, *IMAGES[3:], jpeg(IMAGES[9])])
    assert {found_last.names, found_first.names} == {("0", "1", "2", "3"), ("10", "31")}
    (group,) = found(copies)
    least = min(found([a, b])[0].correlation for a, b in itertools.combinations(copies, 2))
    assert group.correlation == pytest.approx(least)


def test_blocks_see_every_pair_once(monkeypatch):
    images = [*IMAGES, *(jpeg(image) for image in IMAGES)]
    whole = found(images)
    assert {same.names for same in whole} == {(str(i), str(i + 30)) for i in range(30)}
    monkeypatch.setattr("tinyseg.data.reading.duplicates._ROWS", 7)
    monkeypatch.setattr("tinyseg.data.reading.duplicates._PAIRS", 3)
    assert found(images) == whole


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 90, 3), (500, 2, 1)])
def test_thumbnails_of_any_shape(shape):
    assert thumbnail(np.full(shape, 51, np.uint8)).shape == (SIDE, SIDE)
    np.testing.assert_allclose(thumbnail(np.full(shape, 51, np.uint8)), 0.2, atol=1e-6)
    np.testing.assert_allclose(thumbnail(np.full(shape, 0.2, np.float32)), 0.2, atol=1e-6)


def test_none_and_one():
    assert found([]) == ()
    assert found(IMAGES[:1]) == ()


def test_a_folder_finds_them(folder):
    folder.pairs(4)
    folder.save("images/a9.jpg", Image.fromarray(IMAGES[0]), quality=50)
    folder.save("images/b9.png", Image.fromarray(IMAGES[0]).resize((60, 60)))
    folder.mask("masks/a9.png", height=96, width=96)
    folder.mask("masks/b9.png", height=60, width=60)
    data = Dataset(folder.path, DataConfig())
    assert [same.names for same in data.duplicates] == [("a9", "b9")]
    assert any("duplicate images: a9 ~ b9 (look the same, corr" in text for text in data.warnings)
