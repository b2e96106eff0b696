"""New images beside those of the training: when a warning comes, and when it does not."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from tinyseg.config import DataConfig
from tinyseg.data import (
    Dataset,
    DriftMonitor,
    InputPipeline,
    InputStatistics,
    find_scale,
    image_moments,
    make_split,
)

RNG = np.random.default_rng(5)


def batch(count: int, mean: float = 0.0, std: float = 1.0, channels: int = 1) -> np.ndarray:
    """Images whose own mean varies by 0.2 and whose own std varies by a tenth."""
    x = RNG.normal(0, 1, (count, channels, 16, 16)) * RNG.normal(1, 0.1, (count, 1, 1, 1))
    return std * x + mean + RNG.normal(0, 0.2, (count, channels, 1, 1))


def statistics_of(x_bchw: np.ndarray) -> InputStatistics:
    return InputStatistics.of(image_moments(x_bchw))


def warned(statistics: InputStatistics | None, *batches: np.ndarray) -> str:
    monitor = DriftMonitor()
    for x_bchw in batches:
        monitor(x_bchw)
    return monitor.warning(statistics)


def test_the_statistics_are_what_numpy_finds_over_all_pixels() -> None:
    x = batch(20, 0.3, 2.0, channels=3)
    found = statistics_of(x)
    assert found.images == 20
    for index, channel in enumerate(found.channels):
        pixels = x[:, index]
        expected = (pixels.mean(), pixels.std(), pixels.min(), pixels.max())
        assert (channel.mean, channel.std, channel.min, channel.max) == pytest.approx(expected)
        means, stds = pixels.mean(axis=(1, 2)), pixels.std(axis=(1, 2))
        assert channel.spread_mean == pytest.approx(means.std(ddof=1))
        assert channel.typical_std == pytest.approx(np.exp(np.log(stds).mean()))
        assert channel.spread_std == pytest.approx(np.log(stds).std(ddof=1))


@pytest.mark.parametrize("count", [1, 2, 20])
def test_json_brings_it_back_equal(count: int) -> None:
    statistics = statistics_of(batch(count, channels=3))
    assert InputStatistics.from_json(json.loads(json.dumps(asdict(statistics)))) == statistics


@pytest.mark.parametrize("count", [1, 3, 30])
def test_images_of_the_same_kind_pass(count: int) -> None:
    statistics = statistics_of(batch(40))
    assert [warned(statistics, batch(count)) for _ in range(50)] == [""] * 50


@pytest.mark.parametrize("count", [1, 8])
def test_what_differs_is_named_with_both_numbers(count: int) -> None:
    statistics = statistics_of(batch(40, channels=3))
    odd = batch(count, channels=3)
    odd[:, 2] += 3
    text = warned(statistics, odd[:1], *([odd[1:]] if count > 1 else []))
    assert "the images differ from the training set" in text
    assert f": blue mean {odd[:, 2].mean():.2f} where training had" in text
    assert f"had {statistics.channels[2].mean:.2f};" in text
    assert "red" not in text
    assert "green" not in text
    assert "\n" not in text
    flat = warned(statistics_of(batch(40)), batch(count, 0, 0.004))
    assert "gray std 0.00 where training had " in flat
    assert "gray mean" not in flat


def test_channels_that_differ_alike_are_told_together() -> None:
    text = warned(statistics_of(batch(40, channels=3)), batch(8, 9, channels=3))
    assert "red, green, blue mean " in text
    assert text.count("where training had") == 1


@pytest.mark.parametrize("change", [{"images": 0}, {"channels": [{"mean": 1.0}]}, {"images": "x"}])
def test_damaged_statistics_are_refused(change: dict[str, object]) -> None:
    table = {**asdict(statistics_of(batch(3))), **change}
    with pytest.raises((KeyError, TypeError, ValueError)):
        InputStatistics.from_json(table)


def test_more_images_make_it_sharper() -> None:
    statistics = statistics_of(batch(40))
    assert warned(statistics, batch(16, mean=0.6))
    assert not warned(statistics, batch(1, mean=0.6))


def test_nothing_known_or_nothing_seen_says_nothing() -> None:
    assert warned(None, batch(3, 99)) == ""
    assert warned(statistics_of(batch(9))) == ""
    assert warned(statistics_of(batch(1)), batch(1)) == ""
    assert warned(statistics_of(batch(1)), batch(5, 40)) != ""


# Simulated and real images


def seen(pipeline: InputPipeline, images: list[np.ndarray]) -> np.ndarray:
    return np.stack([pipeline.to_batch([pipeline.tile(image)])[0] for image in images])


def opened(
    source: object, **settings: object
) -> tuple[Dataset, list[np.ndarray], list[np.ndarray]]:
    config = DataConfig(size=64, **settings)  # type: ignore[arg-type]
    data = Dataset(str(source), config)
    split = make_split(data, config)
    train, val = ([data[n].image for n in part] for part in (split.train, split.val))
    return data, train, val


def check(source: object, **settings: object) -> None:
    """Validation images pass, alone and together; 0..1 saved as 0..255 does not."""
    data, train, val = opened(source, **settings)
    config = DataConfig(size=64)
    pipeline = InputPipeline(config, find_scale(config, train, data.channels))
    statistics = statistics_of(seen(pipeline, train))
    assert warned(statistics, seen(pipeline, val)) == ""
    alone = [bool(warned(statistics, seen(pipeline, [image]))) for image in val]
    assert np.mean(alone) <= 0.05
    dark = [(image / 255).astype(np.uint8) for image in val]
    assert "std" in warned(statistics, seen(pipeline, dark[:1]))


@pytest.mark.parametrize("kind", ["cells", "ultrasound", "membranes", "shapes"])
def test_simulated_images(kind: str) -> None:
    check(f"sim:{kind}?n=40&size=64")


@pytest.mark.slow
def test_real_images(shared_data) -> None:
    check(shared_data / "isbi2012", labels="0:1,255:0")
    check(shared_data / "camvid", labels="auto,11:ignore")
