import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyseg.errors import DataError
from tinyseg.metrics.baselines import GrayThreshold, baselines, best_gray_threshold
from tinyseg.metrics.pixel import MEASURES, confusion, mean, scores
from tinyseg.metrics.summary import Summary, evaluate_image, foreground_mean, summarize
from tinyseg.metrics.surface import surface_distances

Map = NDArray[Any]


def pair(classes: int, seed: int, shape: tuple[int, int] = (9, 13)) -> tuple[Map, Map]:
    """A prediction and a label with a fifth of its pixels ignored."""
    random = np.random.default_rng(seed)
    prediction = random.integers(0, classes, shape).astype(np.uint8)
    label = np.where(random.random(shape) < 0.6, prediction, random.integers(0, classes, shape))
    label[random.random(shape) < 0.2] = 255
    return prediction, label.astype(np.uint8)


def brute_scores(prediction: Map, label: Map, kind: int) -> dict[str, float]:
    """The measures of one class by counting pixel after pixel."""
    tp = fp = fn = tn = 0
    for p, y in zip(prediction.ravel(), label.ravel(), strict=True):
        if y != 255:
            tp += p == kind and y == kind
            fp += p == kind and y != kind
            fn += p != kind and y == kind
            tn += p != kind and y != kind
    return {
        "accuracy": (tp + tn) / (tp + fp + fn + tn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
    }


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_are_refused_with_the_remedy(dtype: Any) -> None:
    label = np.array([[0, 1], [1, 1]], np.uint8)
    probability = np.where(label, 0.9, 0.1).astype(dtype)
    for name, pair in (("prediction", (probability, label)), ("label", (label, probability))):
        told = rf"{name} has dtype {np.dtype(dtype)}.* pass {name} >= 0\.5"
        with pytest.raises(DataError, match=told):
            confusion(*pair, 2)
        with pytest.raises(DataError, match=told):
            evaluate_image(*pair, 2, surface=True)
        with pytest.raises(DataError, match=told):
            surface_distances(*pair)
    assert scores(confusion(probability >= 0.5, label, 2))["dice"].tolist() == [1, 1]


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_counting_by_hand(classes: int) -> None:
    prediction, label = pair(classes, seed=1)
    found = scores(confusion(prediction, label, classes))
    assert tuple(found) == MEASURES
    for kind in range(classes):
        values = {name: found[name][kind] for name in MEASURES}
        assert values == pytest.approx(brute_scores(prediction, label, kind))


def test_confusion_has_label_rows_and_prediction_columns_and_leaves_255_out() -> None:
    prediction, label = np.array([[0, 1, 1, 2, 0]]), np.array([[0, 1, 0, 255, 2]])
    np.testing.assert_array_equal(
        confusion(prediction, label, 3), [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    )
    assert confusion(prediction, np.full_like(label, 255), 3).sum() == 0


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([[0, 1]], [[0], [1]], r"prediction has shape \(1, 2\), label \(2, 1\)"),
        ([[0, 1]], [[0, 7]], r"label has values \[0, 7\]: they must be 0 to 1"),
        ([[0, 2]], [[0, 1]], r"prediction has values \[0, 2\]: they must be 0 to 1"),
        ([[0, 0]], [[-1, 0]], r"label has values \[-1, 0\]"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(
    prediction: Any, label: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        confusion(np.array(prediction), np.array(label), 2)


def test_what_is_divided_by_zero_is_nan() -> None:
    empty = np.zeros((4, 4), np.uint8)
    found = scores(confusion(empty, empty, 2))
    assert [np.isnan(found[name][1]) for name in MEASURES] == [False, True, True, False, True, True]
    assert found["accuracy"][1] == found["specificity"][1] == found["dice"][0] == 1
    ignored = scores(confusion(empty, empty + 255, 2))
    assert all(np.isnan(values).all() for values in ignored.values())


# Surfaces


def brute_surface(mask: Map) -> list[tuple[int, int]]:
    inside = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(r, c) for r, c in inside if any((r + i, c + j) not in inside for i, j in steps)]


def brute_distances(one: Map, other: Map, spacing: tuple[float, float]) -> tuple[float, float]:
    points = [np.array(brute_surface(mask)) * spacing for mask in (one, other)]
    table = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(-1))
    there, back = table.min(1), table.min(0)
    far = max(np.percentile(there, 95), np.percentile(back, 95))
    return far, (there.sum() + back.sum()) / (len(there) + len(back))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("seed", range(4))
def test_surface_distances_are_those_over_all_pairs_of_points(
    seed: int, spacing: tuple[float, float]
) -> None:
    random = np.random.default_rng(seed)
    one = np.kron(random.random((5, 6)) < 0.4, np.ones((3, 3), bool))
    other = np.roll(one, 2, axis=1) | np.kron(random.random((5, 6)) < 0.1, np.ones((3, 3), bool))
    found = surface_distances(one, other, spacing)
    assert found == pytest.approx(brute_distances(one, other, spacing))
    assert found == pytest.approx(surface_distances(other, one, spacing))


def test_surface_distances_of_a_shifted_square_and_of_empty_masks() -> None:
    square, empty = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    square[5:9, 5:9] = True
    assert surface_distances(square, square) == (0, 0)
    assert surface_distances(square, np.roll(square, 3, axis=0))[0] == pytest.approx(3)
    assert surface_distances(empty, empty) == (0, 0)
    assert np.isnan(surface_distances(square, empty)).all()
    assert np.isnan(surface_distances(empty, square)).all()


def test_surfaces_are_measured_class_by_class_without_ignored_pixels() -> None:
    prediction, label = np.zeros((12, 12), np.uint8), np.zeros((12, 12), np.uint8)
    prediction[2:6, 2:6], label[2:6, 3:7] = 1, 1
    prediction[9:11, :], label[9:11, :] = 2, 2
    label[8:, 6:] = 255
    distances = evaluate_image(prediction, label, 3, surface=True).distances
    wanted = surface_distances(prediction == 1, label == 1)
    assert (distances["hd95"][1], distances["assd"][1]) == wanted
    assert wanted[0] > 0
    assert distances["hd95"][2] == distances["assd"][2] == 0
    assert evaluate_image(prediction, label, 3).distances == {}


# Many images


def hand_made() -> Summary:
    """Four images of 10 pixels: half right, empty and right, empty with 3 false, missed."""
    label, prediction = np.zeros((4, 2, 5), np.uint8), np.zeros((4, 2, 5), np.uint8)
    label[0, 0, :4], prediction[0, 0, 2:4] = 1, 1
    prediction[2, 1, :3] = 1
    label[3, 0, 0] = 1
    pairs = zip(prediction, label, strict=True)
    return summarize([evaluate_image(p, y, 2, surface=True) for p, y in pairs])


def test_both_conventions_for_images_with_an_empty_label() -> None:
    summary = hand_made()
    assert summary.per_image["dice"][1] == pytest.approx((4 / 6 + 0) / 2)
    assert summary.per_image["iou"][1] == pytest.approx((2 / 4 + 0) / 2)
    assert summary.per_image["dice_or_one"][1] == pytest.approx((4 / 6 + 1 + 0 + 0) / 4)
    assert summary.per_image["iou_or_one"][1] == pytest.approx((2 / 4 + 1 + 0 + 0) / 4)
    assert summary.empty.tolist() == [0, 2]
    assert summary.missed.tolist() == [0, 1]
    assert summary.false_area[1] == pytest.approx((0 + 0.3) / 2)
    assert np.isnan(summary.false_area[0])


def test_the_other_means_over_images_leave_out_only_what_is_nan() -> None:
    summary = hand_made()
    assert summary.per_image["recall"][1] == pytest.approx((0.5 + 0) / 2)
    assert summary.per_image["precision"][1] == pytest.approx((1 + 0) / 2)
    assert summary.per_image["specificity"][1] == pytest.approx((1 + 1 + 0.7 + 1) / 4)
    assert summary.per_image["accuracy"][1] == pytest.approx((0.8 + 1 + 0.7 + 0.9) / 4)
    distances = [summary.per_image[name][1] for name in ("hd95", "assd")]
    row = np.zeros((2, 5), bool)
    one, other = row.copy(), row.copy()
    one[0, :4], other[0, 2:4] = True, True
    assert distances == pytest.approx(surface_distances(one, other))


def test_pooled_measures_are_those_of_all_pixels_together() -> None:
    pairs = [pair(3, seed) for seed in range(3)]
    summary = summarize([evaluate_image(p, y, 3) for p, y in pairs])
    prediction, label = (np.concatenate(maps) for maps in zip(*pairs, strict=True))
    for kind in range(3):
        values = {name: summary.pooled[name][kind] for name in MEASURES}
        assert values == pytest.approx(brute_scores(prediction, label, kind))
    dice = [brute_scores(p, y, 2)["dice"] for p, y in pairs]
    assert summary.per_image["dice"][2] == pytest.approx(np.mean(dice))


def test_measures_stay_between_zero_and_one() -> None:
    random = np.random.default_rng(3)
    for seed in range(30):
        prediction, label = pair(3, seed, shape=(2, 4))
        label[random.random(label.shape) < random.random()] = 255
        for values in evaluate_image(prediction, label, 3).values.values():
            there = values[~np.isnan(values)]
            assert ((there >= 0) & (there <= 1)).all()


def test_a_mean_over_classes_is_over_the_foreground_that_is_there() -> None:
    assert foreground_mean(np.array([0.9, 0.5, np.nan, 0.1])) == pytest.approx(0.3)
    assert np.isnan(foreground_mean(np.array([0.9, np.nan])))
    np.testing.assert_array_equal(
        mean(np.array([[1, np.nan, np.nan], [0, np.nan, 3]])), [0.5, np.nan, 3]
    )


def test_a_summary_is_json_with_none_for_nan() -> None:
    summary = hand_made()
    table = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert table["images"] == 4
    assert table["pooled"]["dice"]["mean"] == table["pooled"]["dice"]["classes"][1]
    assert table["pooled"]["dice"]["mean"] == pytest.approx(2 * 2 / (2 * 2 + 3 + 3))
    assert table["false_positive_area"] == {"mean": pytest.approx(0.15), "classes": [None, 0.15]}
    assert (table["empty_images"], table["missed_images"]) == ([0, 2], [0, 1])
    nothing = np.zeros((3, 3), np.uint8)
    image = evaluate_image(nothing, nothing, 2).to_dict()
    assert json.loads(json.dumps(image, allow_nan=False))["dice"] == {
        "mean": None,
        "classes": [1, None],
    }


def test_a_wholly_ignored_image_counts_nowhere() -> None:
    prediction, label = pair(2, seed=4)
    image = evaluate_image(prediction, label, 2)
    ignored = evaluate_image(prediction, np.full_like(label, 255), 2)
    assert summarize([image, ignored]).to_dict() == summarize([image]).to_dict()
    for nothing in ([], [ignored]):
        with pytest.raises(DataError, match="no image has a labeled pixel"):
            summarize(nothing)


# Baselines


@pytest.mark.parametrize("bright", [True, False])
def test_the_best_threshold_is_the_best_of_all_tried_one_by_one(bright: bool) -> None:
    random = np.random.default_rng(5)
    images, labels = [], []
    for _ in range(3):
        label = (random.random((8, 9)) < 0.3).astype(np.uint8)
        lift = (40 if bright else -40) * label.astype(int)
        images.append((random.integers(80, 140, label.shape) + lift).astype(np.uint8))
        labels.append(np.where(random.random(label.shape) < 0.1, 255, label).astype(np.uint8))
    rules = [GrayThreshold(value, side) for side in (True, False) for value in range(257)]
    dice = [pooled_dice(rule, images, labels) for rule in rules]
    best = best_gray_threshold(images, labels)
    assert best.bright == bright
    assert best == rules[int(np.argmax(dice))]
    assert str(best) == f"gray {'>=' if bright else '<'} {best.value}"


def pooled_dice(rule: GrayThreshold, images: list[Map], labels: list[Map]) -> float:
    valid = np.stack(labels) != 255
    mask, target = np.stack([rule(image) for image in images]) == 1, np.stack(labels) == 1
    return float(2 * (mask & target).sum() / ((mask & valid).sum() + target.sum()))


def test_a_threshold_reads_grey_color_and_fractions_alike() -> None:
    grey = np.array([[0, 99], [100, 255]], np.uint8)
    for image in (grey, grey[..., None], np.stack([grey] * 3, -1), grey / np.float32(255)):
        np.testing.assert_array_equal(GrayThreshold(100, bright=True)(image), [[0, 0], [1, 1]])
        np.testing.assert_array_equal(GrayThreshold(100, bright=False)(image), [[1, 1], [0, 0]])
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 255
    assert GrayThreshold(76, bright=True)(red) == 1
    assert GrayThreshold(77, bright=True)(red) == 0


def test_binary_baselines_are_found_on_one_set_and_measured_on_the_other() -> None:
    train_label, label = np.array([[0, 1, 1, 255]]), np.array([[1, 0, 0, 1]])
    train_image, image = (np.array([row], np.uint8) for row in ([9, 50, 60, 0], [70, 55, 20, 40]))
    found = baselines([train_image], [train_label], [image], [label], ["rest", "own"])
    assert [(item.name, item.rule) for item in found] == [
        ("background", "all background"),
        ("foreground", "all foreground"),
        ("threshold", "gray >= 10"),
    ]
    dice = [item.summary.pooled["dice"][1] for item in found]
    assert dice == pytest.approx([0, 2 * 2 / 6, 2 * 2 / 6])
    assert found[2].summary.per_image["iou"][1] == pytest.approx(2 / 4)


def test_the_threshold_may_not_see_the_measured_labels() -> None:
    image = np.array([[10, 200]], np.uint8)
    label = np.array([[0, 1]])
    found = baselines([image], [label], [image], [1 - label], ["rest", "own"])
    assert found[2].rule == "gray >= 11"
    assert found[2].summary.pooled["dice"][1] == 0


def test_baselines_of_many_classes_are_each_class_everywhere() -> None:
    label = np.array([[0, 1, 1, 2]])
    found = baselines(
        [label], [label], [np.zeros((1, 4), np.uint8)], [label], ["sky", "road", "car"]
    )
    assert [item.rule for item in found] == [
        "all sky",
        "all road (most pixels)",
        "all car",
    ]
    assert found[1].summary.pooled["dice"].tolist() == pytest.approx([0, 2 * 2 / 6, 0])
