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
    open_dataset,
)

RNG = np.random.default_rng(5)


def batch(count: int, mean: float = 0.0, deviation: float = 1.0, channels: int = 1) -> np.ndarray:
    """Images whose own mean varies by 0.2 and whose own deviation varies by a tenth."""
    x = RNG.normal(0, 1, (count, channels, 16, 16)) * RNG.normal(1, 0.1, (count, 1, 1, 1))
    return deviation * x + mean + RNG.normal(0, 0.2, (count, channels, 1, 1))


def contract_of(x_bchw: np.ndarray) -> InputStatistics:
    return InputStatistics.of(image_moments(x_bchw))


def warned(contract: InputStatistics | None, *batches: np.ndarray) -> str:
    watch = DriftMonitor()
    for x_bchw in batches:
        watch(x_bchw)
    return watch.warning(contract)


def test_the_contract_is_what_numpy_finds_over_all_pixels() -> None:
    x = batch(20, 0.3, 2.0, channels=3)
    found = contract_of(x)
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
    contract = contract_of(batch(count, channels=3))
    assert InputStatistics.from_json(json.loads(json.dumps(asdict(contract)))) == contract


@pytest.mark.parametrize("count", [1, 3, 30])
def test_images_of_the_same_kind_pass(count: int) -> None:
    contract = contract_of(batch(40))
    assert [warned(contract, batch(count)) for _ in range(50)] == [""] * 50


@pytest.mark.parametrize("count", [1, 8])
def test_what_differs_is_named_with_both_numbers(count: int) -> None:
    contract = contract_of(batch(40, channels=3))
    odd = batch(count, channels=3)
    odd[:, 2] += 3
    text = warned(contract, odd[:1], *([odd[1:]] if count > 1 else []))
    assert "the images are unlike" in text
    assert f": blue mean {odd[:, 2].mean():.2f} where training had" in text
    assert f"had {contract.channels[2].mean:.2f};" in text
    assert "red" not in text
    assert "green" not in text
    assert "\n" not in text
    flat = warned(contract_of(batch(40)), batch(count, 0, 0.004))
    assert "grey deviation 0.00 where training had " in flat
    assert "grey mean" not in flat


def test_channels_that_differ_alike_are_told_together() -> None:
    text = warned(contract_of(batch(40, channels=3)), batch(8, 9, channels=3))
    assert "red, green, blue mean " in text
    assert text.count("where training had") == 1


@pytest.mark.parametrize("change", [{"images": 0}, {"channels": [{"mean": 1.0}]}, {"images": "x"}])
def test_a_damaged_contract_is_refused(change: dict[str, object]) -> None:
    table = {**asdict(contract_of(batch(3))), **change}
    with pytest.raises((KeyError, TypeError, ValueError)):
        InputStatistics.from_json(table)


def test_more_images_make_it_sharper() -> None:
    contract = contract_of(batch(40))
    assert warned(contract, batch(16, mean=0.6))
    assert not warned(contract, batch(1, mean=0.6))


def test_nothing_known_or_nothing_seen_says_nothing() -> None:
    assert warned(None, batch(3, 99)) == ""
    assert warned(contract_of(batch(9))) == ""
    assert warned(contract_of(batch(1)), batch(1)) == ""
    assert warned(contract_of(batch(1)), batch(5, 40)) != ""


# Simulated and real images


def seen(door: InputPipeline, images: list[np.ndarray]) -> np.ndarray:
    return np.stack([door.to_batch([door.fit(image)])[0] for image in images])


def opened(
    source: object, **settings: object
) -> tuple[Dataset, list[np.ndarray], list[np.ndarray]]:
    config = DataConfig(size=64, **settings)  # type: ignore[arg-type]
    data = open_dataset(str(source), config)
    split = make_split(data, config)
    train, val = (
        [data.load(data.index(n)).image for n in part] for part in (split.train, split.val)
    )
    return data, train, val


def check(source: object, **settings: object) -> None:
    """Validation images pass, alone and together; 0..1 saved as 0..255 does not."""
    data, train, val = opened(source, **settings)
    config = DataConfig(size=64)
    door = InputPipeline(config, find_scale(config, train, data.channels))
    contract = contract_of(seen(door, train))
    assert warned(contract, seen(door, val)) == ""
    alone = [bool(warned(contract, seen(door, [image]))) for image in val]
    assert np.mean(alone) <= 0.05
    dark = [(image / 255).astype(np.uint8) for image in val]
    assert "deviation" in warned(contract, seen(door, dark[:1]))


@pytest.mark.parametrize("kind", ["cells", "ultrasound", "membranes", "shapes"])
def test_simulated_images(kind: str) -> None:
    check(f"sim:{kind}?n=40&size=64")


@pytest.mark.slow
def test_real_images(real_data) -> None:
    check(real_data / "isbi2012", labels="0:1,255:0")
    check(real_data / "camvid", labels="auto,11:ignore")
