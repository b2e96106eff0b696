"""The distance of two datasets, and the normalisation that brings them together."""

import numpy as np
import pytest

from tinyseg.config import DataConfig
from tinyseg.data.checks.compare import PLAIN, WAYS, Comparison, compare, distance, normalized
from tinyseg.data.checks.stats import DatasetStats, image_stats, open_stats
from tinyseg.data.prepare.normalize import InputScale, Normalize, normalize_batch
from tinyseg.data.prepare.preprocess import Preprocess

RNG = np.random.default_rng(2)
IMAGE, CLIPPED = list(WAYS)[1], list(WAYS)[3]


def stats_of(images: list[np.ndarray]) -> DatasetStats:
    return DatasetStats("made", ("background",), tuple(image_stats(i, None, 1) for i in images))


def images(count: int, low: float, high: float, size: int = 40) -> list[np.ndarray]:
    """Each with a light of its own between low and high."""
    noise = RNG.normal(0, 12, (count, size, size, 1))
    light = RNG.uniform(low, high, (count, 1, 1, 1))
    return [*(noise + light).clip(0, 255).astype(np.uint8)]


def test_the_distance_is_the_area_between_sorted_values() -> None:
    ours, theirs = RNG.normal(0, 1, 300), RNG.normal(0.7, 2, 300)
    expected = np.abs(np.sort(ours) - np.sort(theirs)).mean()
    expected /= np.concatenate([ours, theirs]).std()
    ones = np.ones(300)
    assert distance(ours, ones, theirs, ones / 7) == pytest.approx(expected)
    scaled = distance(5 + 3 * ours, ones, 5 + 3 * theirs, ones)
    assert scaled == pytest.approx(expected)
    assert distance(ours, ones, ours, ones) == 0
    assert distance(np.zeros(4), np.ones(4), np.zeros(9), np.ones(9)) == 0


@pytest.mark.parametrize("way", list(WAYS))
def test_the_levels_are_those_that_enter_the_network(way: str) -> None:
    settings = dict(part.split("=", 1) for part in way.split(" "))
    prepare = Preprocess(settings.get("data.preprocess", "").strip('"'))
    normalize = Normalize(settings["data.normalize"].replace("dataset", "none"))
    given = images(1, 40, 200)
    (values, weights), *_ = normalized(stats_of(given), way)
    prepared = prepare(given[0])
    scale = normalize.of_dataset([], 1) or normalize.of_image(prepared)
    x = normalize_batch(prepared[None], [scale]).ravel()
    assert np.average(values, weights=weights) == pytest.approx(x.mean(), abs=0.01)
    assert values[weights > 0].min() == pytest.approx(x.min(), abs=0.01)
    assert values[weights > 0].max() == pytest.approx(x.max(), abs=0.01)
    assert isinstance(scale, InputScale)


def test_lights_that_differ_ask_for_the_image_itself() -> None:
    found = compare(stats_of(images(20, 30, 90)), stats_of(images(20, 150, 220)))
    assert found.distances[PLAIN][0] > 1
    assert found.distances[IMAGE][0] < 0.1
    assert found.best == IMAGE
    assert found.advice().startswith("data.normalize=image reduces the difference most")
    assert found.to_dict()["best"] in found.table(("gray",))


def test_equal_datasets_ask_for_nothing() -> None:
    same = stats_of(images(20, 60, 180))
    found = compare(same, same)
    assert all(row == (0,) for row in found.distances.values())
    assert found.best == PLAIN
    assert "keep data.normalize=dataset" in found.advice()


def test_a_tenth_is_not_worth_a_change() -> None:
    assert Comparison({PLAIN: (0.5,), IMAGE: (0.46,)}).best == PLAIN
    assert Comparison({PLAIN: (0.5,), IMAGE: (0.44,)}).best == IMAGE


def test_a_bright_corner_asks_for_the_clip() -> None:
    def marked(of: list[np.ndarray], size: int) -> list[np.ndarray]:
        for pixels in of:
            pixels[:size, :size] = 255
        return of

    ours = [pixels // 3 for pixels in images(20, 90, 240)]
    theirs = marked([pixels // 3 for pixels in images(20, 90, 240)], 3)
    found = compare(stats_of(ours), stats_of(theirs))
    minmax = found.distances["data.normalize=minmax"][0]
    assert found.distances[CLIPPED][0] < 0.5 * minmax


@pytest.mark.slow
def test_simulated_and_real_ultrasound(shared_data) -> None:
    ours = open_stats("sim:ultrasound?n=30", DataConfig())
    found = compare(ours, open_stats(str(shared_data / "busi"), DataConfig(), like=ours))
    assert found.best == IMAGE
