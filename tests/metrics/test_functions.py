"""The public measures of two arrays."""

from typing import Any

import numpy as np
import pytest

import tinyseg as ts
from tinyseg.errors import DataError
from tinyseg.metrics import evaluate_image, summarize

RNG = np.random.default_rng(0)
MEASURES = {
    "dice": lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn),
    "iou": lambda tp, fp, fn: tp / (tp + fp + fn),
    "precision": lambda tp, fp, fn: tp / (tp + fp),
    "recall": lambda tp, fp, fn: tp / (tp + fn),
}


@pytest.mark.parametrize("shape", [(60,), (5, 12), (2, 5, 6), (2, 3, 2, 5)])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_those_of_counting_in_any_shape(name: str, shape: tuple[int, ...]) -> None:
    prediction, label = RNG.integers(0, 3, shape), RNG.integers(0, 3, shape)
    wanted = []
    for k in range(3):
        tp = np.sum((prediction == k) & (label == k))
        fp, fn = np.sum(prediction == k) - tp, np.sum(label == k) - tp
        wanted.append(MEASURES[name](tp, fp, fn))
    found = getattr(ts, name)
    np.testing.assert_allclose(found(prediction, label, per_class=True), wanted)
    assert found(prediction, label) == pytest.approx(np.mean(wanted[1:]))
    assert isinstance(found(prediction, label), float)
    assert ts.accuracy(prediction, label) == pytest.approx(np.mean(prediction == label))


def test_dice_of_a_stack_is_the_pooled_dice_of_its_images() -> None:
    prediction, label = RNG.integers(0, 4, (3, 8, 9)), RNG.integers(0, 4, (3, 8, 9))
    label[0, :4] = 255
    images = [evaluate_image(p, y, 4) for p, y in zip(prediction, label, strict=True)]
    pooled = summarize(images).pooled["dice"]
    np.testing.assert_array_equal(ts.dice(prediction, label, per_class=True), pooled)


def test_lists_bools_and_every_integer_are_alike() -> None:
    prediction, label = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    for one in (prediction.tolist(), prediction.astype(bool), prediction.astype(np.int16)):
        for other in (label.tolist(), label.astype(bool), label.astype(np.uint64)):
            assert ts.dice(one, other) == 0.5
            assert ts.confusion(one, other).tolist() == [[1, 1], [1, 1]]


def test_probabilities_need_a_threshold() -> None:
    probability, label = np.array([0.5, 0.7, 0.2, 0.4]), np.array([1, 1, 0, 0])
    with pytest.raises(DataError, match=r"prediction has dtype float64.* pass prediction >= 0\.5"):
        ts.dice(probability, label)
    assert ts.dice(probability, label, threshold=0.5) == 1.0
    assert ts.recall(probability, label, threshold=0.6) == 0.5
    with pytest.raises(DataError, match=r"threshold=0\.5 is for probabilities: .* int64"):
        ts.dice(label, label, threshold=0.5)


@pytest.mark.parametrize(
    ("prediction", "label", "message"),
    [
        ([0, 1], [[0], [1]], r"prediction has shape \(2,\), label \(2, 1\)"),
        ([0, 255], [0, 1], r"prediction has values \[0, 255\]: they must be 0 to 254"),
        ([0, -1], [0, 1], r"prediction has values \[-1, 0\]"),
        ([0, 1], [0.0, 1.0], "label has dtype float64"),
    ],
)
def test_arrays_that_cannot_be_compared_are_refused(
    prediction: Any, label: Any, message: str
) -> None:
    for measure in (ts.dice, ts.iou, ts.precision, ts.recall, ts.accuracy):
        with pytest.raises(DataError, match=message):
            measure(prediction, label)


def test_ignored_and_absent_classes_count_nowhere() -> None:
    assert ts.dice([0, 1, 1], [0, 1, 255]) == 1.0
    assert ts.dice([0, 0, 3], [0, 0, 3]) == 1.0  # 1 and 2 are nowhere
    assert np.isnan(ts.dice([0, 0], [0, 0]))
    assert ts.accuracy([0, 0], [0, 0]) == 1.0


def test_a_mask_of_0_and_255_is_warned_about() -> None:
    mask = np.array([0, 255, 255], np.uint8)
    with pytest.warns(UserWarning, match="255 is ignored: of a mask of 0 and 255 pass label > 0"):
        ts.dice(mask > 0, mask)
    assert ts.dice(mask > 0, mask > 0) == 1.0
