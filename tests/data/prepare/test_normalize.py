"""The numbers a network sees, beside NumPy in float64."""

import numpy as np
import pytest

from tinyseg.data.prepare.normalize import InputScale, Normalize, normalize_batch, unit_range
from tinyseg.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def image(height: int = 16, width: int = 16, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_scale_is_mean_and_std_of_all_pixels(channels: int) -> None:
    images = [image(5, 7, channels), image(20, 3, channels) // 2, image(1, 1, channels)]
    pixels = np.concatenate([i.reshape(-1, channels) for i in images]).astype(np.float64) / 255
    scale = InputScale.of(images)
    assert scale.mean == pytest.approx(pixels.mean(axis=0), abs=1e-7)
    assert scale.std == pytest.approx(pixels.std(axis=0), abs=1e-7)
    assert all(type(value) is float for value in (*scale.mean, *scale.std))


def test_deep_images_have_the_scale_of_the_same_8_bit_image() -> None:
    eight = image()
    deep = (eight / 255).astype(np.float32)
    for of in (lambda pixels: InputScale.of([pixels]), InputScale.of_range):
        one, other = of(eight), of(deep)
        assert one.mean == pytest.approx(other.mean)
        assert one.std == pytest.approx(other.std)


@pytest.mark.parametrize("grey", [0, 37, 255])
@pytest.mark.parametrize("text", ["image", "minmax"])
def test_a_flat_image_is_not_divided_by_nothing(grey: int, text: str) -> None:
    scale = Normalize(text).of_image(np.full((8, 8, 1), grey, np.uint8))
    assert scale.std == (1.0,)
    assert scale.mean == pytest.approx((grey / 255,))


def test_a_std_that_is_only_rounding_counts_as_none() -> None:
    pixels = np.full((31, 33, 1), 0.1, np.float32)
    pixels[::2] += 1e-6
    assert InputScale.of([pixels, np.full((7, 3, 1), 0.1, np.float32)]).std == (1.0,)


def test_each_image_goes_to_the_door_by_its_own_scale() -> None:
    batch = RNG.integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    scales = [
        InputScale((0.1, 0.2, 0.3), (0.5, 1.0, 2.0)),
        InputScale((0.4, 0.0, 0.9), (0.1, 3.0, 0.7)),
    ]
    found = normalize_batch(batch, scales)
    for x_chw, pixels, scale in zip(found, batch, scales, strict=True):
        expected = (pixels / 255 - scale.mean) / scale.std
        np.testing.assert_allclose(x_chw, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


def door_of(text: str, images: list[np.ndarray]) -> np.ndarray:
    """What the network gets of images of one size."""
    normalize = Normalize(text)
    shared = normalize.of_dataset(images, images[0].shape[2])
    return normalize_batch(np.stack(images), [shared or normalize.of_image(one) for one in images])


def test_each_way_does_what_it_says() -> None:
    images = [image(9, 9, 3) // (index + 1) + index for index in range(3)]
    x = door_of("dataset", images)
    np.testing.assert_allclose(x.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(0, 2, 3)), 1, atol=1e-5)
    x = door_of("image", images)
    np.testing.assert_allclose(x.mean(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(axis=(2, 3)), 1, atol=1e-5)
    x = door_of("minmax", images)
    np.testing.assert_allclose(x.min(axis=(2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(x.max(axis=(2, 3)), 1, atol=1e-6)
    plain = np.stack(images).transpose(0, 3, 1, 2) / 255
    np.testing.assert_allclose(door_of("none", images), plain, atol=1e-6)
    given = door_of("fixed(mean=[0.1,0.2,0.3],std=[1,2,4])", images)
    mean, std = np.array([[0.1, 0.2, 0.3], [1, 2, 4]])[:, :, None, None]
    np.testing.assert_allclose(given, (plain - mean) / std, atol=1e-6)
    one = door_of("fixed(mean=[0.5],std=[0.25])", images)
    np.testing.assert_allclose(one, (plain - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("zscore", "unknown normalization 'zscore'; known: dataset, image, minmax, fixed, none"),
        ("fixed(mean=[0.5,0.5],std=[0.1])", "a positive std for each channel"),
        ("fixed(mean=[0.5],std=[0])", "a positive std"),
        ("fixed(mean=0.5)", "give a list of numbers"),
        ("dataset+image", r"an example: fixed\("),
        ("", r"an example: fixed\("),
    ],
)
def test_what_cannot_be_used_is_said_with_the_setting(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^data.normalize: .*{told}"):
        Normalize(text)


def test_given_values_must_fit_the_channels() -> None:
    with pytest.raises(ConfigError, match="has 2 values, the images have 3 channels"):
        Normalize("fixed(mean=[0.5,0.5],std=[1,1])").of_dataset([], 3)


def test_unit_range() -> None:
    assert unit_range(np.array([0, 51, 255], np.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert unit_range(np.array([0, 255], np.uint8)).dtype == np.float32
    deep = np.array([0, 0.5], np.float32)
    assert unit_range(deep) is deep


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.bool_])
def test_other_pixels_are_refused_not_taken_for_bright(dtype: type) -> None:
    with pytest.raises(DataError, match=f"uint8, or float in .0, 1., not {np.dtype(dtype)}"):
        unit_range(np.ones((4, 4, 1), dtype))
