"""Histograms of scores against brute force over the same thresholds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import mannwhitneyu

from tinyseg.inference.predictor import to_classes
from tinyseg.metrics.best_threshold import find_thresholds, stored_threshold, to_facts
from tinyseg.metrics.bootstrap import Interval, dice_interval, gain_of, gain_of_choosing
from tinyseg.metrics.calibration import calibration_error, fit_temperature
from tinyseg.metrics.summary import ImageScores, evaluate_image, foreground_mean, summarize
from tinyseg.metrics.threshold_curves import (
    BINS,
    EDGES,
    Histograms,
    average_precision,
    best_edge,
    image_measures,
    roc_auc,
    sweep,
)

Map = NDArray[Any]


def scored(seed: int, images: int = 5, shift: float = -1.0) -> list[tuple[Map, Map]]:
    """Probabilities (1, H, W) and labels that they tell something of; the third image is empty."""
    random = np.random.default_rng(seed)
    pairs = []
    for index in range(images):
        label = (random.random((23, 17 + index)) < 0.3).astype(np.uint8) * (index != 2)
        z = random.normal(2.0 * label + shift, 1.5)
        label[random.random(label.shape) < 0.1] = 255
        pairs.append(((1 / (1 + np.exp(-z))).astype(np.float32)[None], label.astype(np.uint8)))
    return pairs


def histograms(pairs: list[tuple[Map, Map]]) -> Histograms:
    made = Histograms()
    for p_khw, label in pairs:
        made.add(p_khw, label)
    return made


def edge_scores() -> Map:
    """Every threshold, its two neighbours in float32, 0, 1 and the smallest numbers."""
    edges = EDGES.astype(np.float32)
    below, above = (np.nextafter(edges, np.float32(to)) for to in (0, 1))
    ends = np.array([0, 1, 1e-45, 1e-38, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    return np.concatenate([edges, below, above, ends]).astype(np.float32)


def test_scores_at_the_thresholds_and_beside_them_fall_on_their_side() -> None:
    p = edge_scores()
    for kind in (0, 1):
        label = np.full((1, p.size), kind, np.uint8)
        found = sweep(histograms([(p[None, None], label)]).pooled[0])
        wanted = [int(to_classes(p[None, None], float(edge)).sum()) for edge in EDGES]
        np.testing.assert_array_equal(found.tp if kind else found.fp, wanted)


def test_every_threshold_is_as_if_the_images_were_scored_with_it() -> None:
    pairs = scored(0, images=3)
    counts = histograms(pairs).counts[:, 0]
    pooled, per_image = sweep(counts.sum(0)).measures(), image_measures(counts)
    for index, edge in enumerate(EDGES):
        scores = [evaluate_image(to_classes(p, float(edge)), y, 2) for p, y in pairs]
        wanted = summarize(scores)
        for name, values in pooled.items():
            assert values[index] == pytest.approx(wanted.pooled[name][1], abs=1e-15, nan_ok=True)
            mean = wanted.per_image[name][1]
            assert per_image[name][index] == pytest.approx(mean, abs=1e-12, nan_ok=True)


def test_classes_of_a_softmax_head_are_each_against_the_rest() -> None:
    random = np.random.default_rng(3)
    p_khw = random.dirichlet((1, 1, 1), (11, 13)).transpose(2, 0, 1).astype(np.float32)
    label = random.integers(0, 3, (11, 13)).astype(np.uint8)
    label[:2] = 255
    pooled = histograms([(p_khw, label)]).pooled
    assert pooled.shape == (2, 2, BINS)
    for kind in (1, 2):
        alone = histograms([(p_khw[kind][None], np.where(label < 3, label == kind, 255))])
        np.testing.assert_array_equal(pooled[kind - 1], alone.pooled[0])


def test_more_images_than_memory_allows_share_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = scored(1, images=7)
    whole = histograms(pairs)
    monkeypatch.setattr("tinyseg.metrics.threshold_curves.MOST_BYTES", 3 * 2 * BINS * 4)
    shared = histograms(pairs)
    assert (len(whole.counts), len(shared.counts), shared.images) == (7, 3, 7)
    np.testing.assert_array_equal(shared.pooled, whole.pooled)


def test_the_best_threshold_is_the_middle_of_the_first_flat_maximum() -> None:
    dice = np.array([[0, 2, 3, 3, 3, 1, 3, 3], [5, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 2, 2]])
    assert best_edge(dice.astype(float)).tolist() == [3, 0, 6]
    p = np.array([[[0.1, 0.2, 0.8, 0.9]]], np.float32)
    (found,) = find_thresholds(histograms([(p, np.array([[0, 0, 1, 1]], np.uint8))]))
    assert found.threshold == 0.5
    assert (found.dice, found.dice_at_half, found.roc_auc) == (1.0, 1.0, 1.0)


def test_the_best_threshold_is_the_best_of_all_tried_one_by_one() -> None:
    pairs = scored(0, images=3, shift=-2.0)
    (found,) = find_thresholds(histograms(pairs))
    tried = []
    for edge in EDGES:
        scores = [evaluate_image(to_classes(p, float(edge)), y, 2) for p, y in pairs]
        tried.append(summarize(scores).pooled["dice"][1])
    assert found.dice == pytest.approx(max(tried), abs=1e-15)
    assert found.dice_at_half == pytest.approx(tried[511], abs=1e-15)
    assert tried[int(found.threshold * BINS) - 1] == max(tried) > tried[511]


def flat(pairs: list[tuple[Map, Map]]) -> tuple[Map, Map]:
    """Scores and {0, 1} labels of all pixels that are not ignored."""
    p = np.concatenate([p[0][y < 255] for p, y in pairs]).astype(np.float64)
    return p, np.concatenate([y[y < 255] for _, y in pairs])


def test_the_area_under_roc_is_the_rank_statistic_and_its_error_is_bounded() -> None:
    pairs = scored(2)
    p, y = flat(pairs)
    area, error = roc_auc(histograms(pairs).pooled[0])
    for scores, slack in ((np.floor(p * BINS), 1e-12), (p, error)):
        ranks = mannwhitneyu(scores[y == 1], scores[y == 0]).statistic
        assert abs(ranks / (y == 1).sum() / (y == 0).sum() - area) <= slack
    assert 0 < error < 1e-3


def test_average_precision_is_that_of_stepping_through_the_scores() -> None:
    pairs = scored(2)
    p, y = flat(pairs)
    wanted = {}
    for name, scores in (("binned", np.floor(p * BINS)), ("exact", p)):
        total = recall = 0.0
        for value in np.unique(scores)[::-1]:
            above = scores >= value
            step = y[above].sum() / y.sum()
            total += (step - recall) * y[above].mean()
            recall = step
        wanted[name] = total
    found = average_precision(histograms(pairs).pooled[0])
    assert found == pytest.approx(wanted["binned"], abs=1e-12)
    assert found == pytest.approx(wanted["exact"], abs=2e-3)


@pytest.mark.parametrize("logits", [(-20.0, -14.0), (14.0, 20.0)])
def test_scores_all_near_0_or_1_are_still_ordered(logits: tuple[float, float]) -> None:
    random = np.random.default_rng(8)
    label = (random.random((64, 64)) < 0.1).astype(np.uint8)
    z = np.where(random.random(label.shape) < 0.95, label, 1 - label)
    p = 1 / (1 + np.exp(-np.where(z == 1, logits[1], logits[0]).astype(np.float32)))
    (found,) = find_thresholds(histograms([(p[None], label)]), resample=False)
    own, rest = z[label == 1].mean(), z[label == 0].mean()
    assert found.roc_auc == pytest.approx(
        (own * (1 - rest)) + (own * rest + (1 - own) * (1 - rest)) / 2
    )
    precision = label[z == 1].mean()
    assert found.average_precision == pytest.approx(own * precision + (1 - own) * label.mean())


def test_the_finer_counts_hold_every_pixel_once_and_in_order() -> None:
    p = edge_scores()
    made = histograms([(p[None, None], np.zeros((1, p.size), np.uint8))])
    assert made.ordered.sum() == made.pooled.sum() == p.size
    places = []
    for score in np.sort(p)[::37]:
        (counts,) = histograms([(np.full((1, 1, 1), score), np.ones((1, 1), np.uint8))]).ordered
        places.append(int(counts[1].argmax()))
    assert places == sorted(places)


def test_calibration_error_is_that_of_the_pixels() -> None:
    pairs = scored(4)
    p, y = flat(pairs)
    wanted = 0.0
    for low in np.arange(16) / 16:
        inside = (p >= low) & (p < low + 1 / 16)
        wanted += abs(p[inside].sum() - y[inside].sum()) / p.size
    counts = histograms(pairs).pooled[0]
    assert calibration_error(counts) == pytest.approx(wanted, abs=1 / 2048)
    sure = np.zeros((2, BINS), np.int64)
    sure[:, 768] = 3, 1  # three of four are not what is said with 0.75
    assert calibration_error(sure) == pytest.approx(768.5 / BINS - 0.25)


def test_the_temperature_is_the_one_that_the_scores_were_made_with() -> None:
    random = np.random.default_rng(5)
    z = random.normal(-0.5, 1.2, 200_000)
    y = (random.random(z.size) < 1 / (1 + np.exp(-z))).astype(np.uint8)
    for made in (0.5, 1.0, 2.5):
        hot = 1 / (1 + np.exp(-z * made))

        def exact(t: float, made: float = made) -> float:
            return float(np.logaddexp(0, np.where(y == 1, -1, 1) * z * made / t).mean())

        counts = histograms([(hot.astype(np.float32)[None, None], y[None])]).pooled[0]
        found = fit_temperature(counts)
        assert found == pytest.approx(minimize_scalar(exact, bounds=(0.1, 10)).x, rel=0.01)
        assert found == pytest.approx(made, rel=0.03)
        assert calibration_error(counts, found) <= calibration_error(counts) + 1e-3
        assert calibration_error(counts, found) < 0.01


def test_the_gain_is_measured_on_images_left_out() -> None:
    pairs = scored(6, images=12, shift=-2.5)
    counts = histograms(pairs).counts[:, 0]
    found = gain_of_choosing(counts, seed=7)
    random, gains = np.random.default_rng(7), []
    draws = [np.bincount(drawn, minlength=12) for drawn in random.integers(12, size=(1000, 12))]
    edges = np.arange(16, BINS, 16)
    for drawn in draws:
        inside = sweep((counts * drawn[:, None, None]).sum(0)).measures()["dice"][edges - 1]
        chosen = edges[best_edge(inside)]
        outside = sweep(counts[drawn == 0].sum(0)).measures()["dice"]
        gains.append(outside[chosen - 1] - outside[511])
    wanted = np.array(gains)[~np.isnan(gains)]
    assert found.mean == pytest.approx(wanted.mean(), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(np.percentile(wanted, (2.5, 97.5)), abs=1e-12)
    assert 0 < found.low < found.mean < found.high


def test_a_threshold_that_only_fits_noise_is_not_said_to_gain() -> None:
    """Scores without meaning beyond 0.5: on its own images every chosen threshold gains."""
    apparent, honest = [], []
    for seed in range(10):
        random = np.random.default_rng(seed)
        pairs = []
        for _ in range(6):
            y = (random.random((6, 6)) < 0.5).astype(np.uint8)
            p = np.where(y == 1, 0.75, 0.25) + random.uniform(-0.25, 0.25, y.shape)
            wrong = random.random(y.shape) < 0.2
            pairs.append((np.where(wrong, 1 - p, p).astype(np.float32)[None], y))
        (found,) = find_thresholds(histograms(pairs))
        apparent.append(found.dice - found.dice_at_half)
        honest.append(found.gain.mean)
    assert min(apparent) >= 0
    assert np.mean(apparent) > 0.003
    assert np.mean(honest) < 0


def test_the_gain_of_a_given_rule_is_resampled_over_images() -> None:
    random = np.random.default_rng(8)
    hit = random.integers(5, 50, (9, 2, 3))
    size = 2 * hit + random.integers(0, 60, (9, 2, 3))
    hit[..., 2] = size[..., 2] = 0  # a class that is nowhere
    found = gain_of(hit, size, seed=1)
    gains = []
    for rows in np.random.default_rng(1).integers(9, size=(1000, 9)):
        first, second = (2 * hit[rows, :, :2].sum(0) / size[rows, :, :2].sum(0)).mean(-1)
        gains.append(second - first)
    first, second = (2 * hit[..., :2].sum(0) / size[..., :2].sum(0)).mean(-1)
    assert found.mean == pytest.approx(second - first)
    assert (found.low, found.high) == pytest.approx(np.percentile(gains, (2.5, 97.5)), abs=1e-12)
    same = gain_of(hit[:, :1].repeat(2, 1), size[:, :1].repeat(2, 1))
    assert same == Interval(0.0, 0.0, 0.0)


def test_pooled_dice_of_classes_is_resampled_over_images() -> None:
    random = np.random.default_rng(8)
    matrices = random.integers(0, 30, (7, 4, 4))
    matrices[:, 3], matrices[..., 3] = 0, 0  # a class that is nowhere
    matrices[1:, 2], matrices[1:, :, 2] = 0, 0  # and one in one image only
    hit, size = matrices.diagonal(axis1=1, axis2=2), matrices.sum(1) + matrices.sum(2)
    found = dice_interval(hit[:, 1:], size[:, 1:], seed=3)
    pooled = [
        foreground_mean(ImageScores(matrices[rows].sum(0), {}).values["dice"])
        for rows in np.random.default_rng(3).integers(7, size=(1000, 7))
    ]
    assert found.mean == pytest.approx(
        foreground_mean(ImageScores(matrices.sum(0), {}).values["dice"])
    )
    assert (found.low, found.high) == pytest.approx(np.percentile(pooled, (2.5, 97.5)), abs=1e-12)


def test_without_foreground_there_is_nothing_to_choose() -> None:
    for label in (np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)):
        made = histograms([(np.full((1, 4, 4), 0.3, np.float32), label)] * 2)
        (found,) = find_thresholds(made)
        facts = to_facts(made, [found])
        assert found.threshold == 0.5
        assert facts["classes"][0]["roc_auc"] is None
        assert stored_threshold({"thresholds": facts}) == 0.5


def test_facts_hold_the_threshold_and_the_counts_it_came_from() -> None:
    made = histograms(scored(9, shift=-2.0))
    found = find_thresholds(made)
    facts = to_facts(made, found)
    assert facts["images"] == 5
    np.testing.assert_array_equal(facts["classes"][0]["counts"], made.pooled[0])
    assert stored_threshold({"position": {}}) == 0.5


@pytest.mark.parametrize(("images", "clear"), [(5, False), (40, True)])
def test_a_threshold_is_used_only_where_it_clearly_gains(images: int, clear: bool) -> None:
    made = histograms(scored(9, images, shift=-2.0))
    (found,) = find_thresholds(made)
    assert found.dice > found.dice_at_half + 0.03
    assert found.gain is not None
    assert (found.gain.low > 0) is clear
    used = stored_threshold({"thresholds": to_facts(made, [found])})
    assert used == (found.threshold if clear else 0.5)


@pytest.mark.parametrize(
    "damaged", [None, {}, {"classes": []}, {"classes": [{"threshold": 1.5}]}, {"classes": [3]}]
)
def test_damaged_facts_are_told(damaged: object) -> None:
    with pytest.raises(ValueError, match="threshold"):
        stored_threshold({"thresholds": damaged})
