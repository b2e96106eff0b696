"""Statistics of a dataset beside NumPy over all its pixels."""

import json

import numpy as np
import pytest

from tinyseg.config import DataConfig
from tinyseg.data.checks.stats import (
    DatasetStats,
    image_stats,
    object_areas,
    open_stats,
    weighted_quantiles,
)

RNG = np.random.default_rng(11)


def stats_of(*pairs: tuple[np.ndarray, np.ndarray | None], classes: int = 3) -> DatasetStats:
    names = tuple(f"class {k}" for k in range(classes))
    return DatasetStats("made", names, tuple(image_stats(*pair, classes) for pair in pairs))


def image(height: int, width: int, channels: int = 3, deep: bool = False) -> np.ndarray:
    pixels = RNG.integers(0, 256, (height, width, channels), dtype=np.uint8) // 2 + 20
    return (pixels / 255).astype(np.float32) if deep else pixels.astype(np.uint8)


@pytest.mark.parametrize(("channels", "deep"), [(1, False), (3, False), (1, True)])
def test_a_channel_is_what_numpy_finds_over_all_pixels(channels: int, deep: bool) -> None:
    images = [image(20, 31, channels, deep), image(7, 9, channels)]
    found = stats_of(*[(pixels, None) for pixels in images]).channels
    unit = [pixels if pixels.dtype == np.float32 else pixels / 255 for pixels in images]
    flat = np.concatenate([pixels.reshape(-1, channels) for pixels in unit]).astype(np.float64)
    step = 1 / 4095 if deep else 1e-7
    for index, channel in enumerate(found.values()):
        pixels = flat[:, index]
        assert (channel.min, channel.max) == pytest.approx((pixels.min(), pixels.max()), abs=1e-6)
        assert (channel.mean, channel.std) == pytest.approx((pixels.mean(), pixels.std()), abs=step)
        marks = np.quantile(pixels, [0.01, 0.5, 0.99], method="inverted_cdf")
        assert (channel.p1, channel.median, channel.p99) == pytest.approx(marks, abs=step)


def test_objects_are_components_that_share_edges() -> None:
    mask = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 1, 1, 0, 0]])
    assert sorted(object_areas(mask == 1)) == [2, 2, 3]
    assert len(object_areas(np.zeros((3, 3), bool))) == 0


def test_foreground_empties_and_objects() -> None:
    one, two, three = (np.zeros((10, 10), np.uint8) for _ in range(3))
    one[:2, :5], one[5:, 5:] = 1, 2  # 10 and 25 pixels
    one[0, 9] = 1
    two[:, :5] = 255  # of the other half nothing is foreground
    three[:, :5], three[0, 5:] = 255, 1
    found = stats_of(*[(image(10, 10), label) for label in (one, two, three)])
    assert found.empty == 1
    assert [i.foreground for i in found.images] == pytest.approx([0.36, 0, 0.1])
    assert found.foreground == pytest.approx(
        tuple(np.quantile([0.36, 0.1], [0, 0.25, 0.5, 0.75, 1]))
    )
    first, second = found.objects.values()
    assert (first.count, first.images) == (3, 2)
    assert first.per_image == (1, 1.25, 1.5, 1.75, 2)
    assert (first.area[0], first.area[2], first.area[4]) == (1, 5, 10)
    assert (second.count, second.images, second.area) == (1, 1, (25,) * 5)
    assert "1 of 3 images have no foreground" in found.table()


def test_all_ignored_and_absent_classes_are_no_obstacle() -> None:
    found = stats_of((image(4, 4), np.full((4, 4), 255, np.uint8)), (image(4, 4), None))
    assert np.isnan(found.images[0].foreground)
    assert (found.empty, found.foreground, found.objects["class 1"].area) == (0, (), ())
    assert "0 of 2 images" in found.table()
    assert "NaN" not in json.dumps(found.to_dict())


def test_weighted_quantiles_are_those_of_repeated_values() -> None:
    values, weights = RNG.random(30), RNG.integers(0, 6, 30)
    shares = (0.01, 0.3, 0.5, 0.99)
    expected = np.quantile(np.repeat(values, weights), shares, method="inverted_cdf")
    np.testing.assert_allclose(weighted_quantiles(values, weights, shares), expected)


def test_a_dataset_is_measured_as_it_would_be_trained_on() -> None:
    plain = open_stats("sim:cells?n=4&size=32", DataConfig())
    assert plain.channel_names == ("red", "green", "blue")
    assert json.loads(json.dumps(plain.to_dict()))["images"] == 4
    two = open_stats("sim:cells?n=4&size=32", DataConfig(preprocess="quantize(bits=1)"))
    assert all(set(np.flatnonzero(i.counts.sum(axis=0))) <= {0, 255} for i in two.images)
    grey = open_stats("sim:ultrasound?n=3&size=32", DataConfig())
    assert grey.channel_names == ("gray",)
    assert len(open_stats("sim:ultrasound?n=3&size=32", DataConfig(), like=plain).channels) == 3


@pytest.mark.slow
def test_real_ultrasound(shared_data) -> None:
    found = open_stats(str(shared_data / "busi"), DataConfig())
    assert (len(found.images), found.empty) == (145, 23)
    assert next(iter(found.objects.values())).images == 122
