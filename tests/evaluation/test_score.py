"""The one scoring loop."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from tinyseg.data import Sample
from tinyseg.evaluation.score import score
from tinyseg.inference.postprocess import Postprocess
from tinyseg.metrics import evaluate_image

LABEL = np.array([[0, 0, 1, 1], [0, 1, 1, 255]], np.uint8)


def sample(name: str, value: int) -> Sample:
    return Sample(name, np.full((2, 4, 1), value, np.uint8), LABEL)


def brightness(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """A network that reads two images ahead and gives each pixel's value as its probability."""
    waiting: list[np.ndarray] = []
    for image in images:
        waiting.append(image)
        if len(waiting) == 2:
            yield from (one.transpose(2, 0, 1) / np.float32(255) for one in waiting)
            waiting = []
    yield from (one.transpose(2, 0, 1) / np.float32(255) for one in waiting)


@pytest.mark.parametrize(("threshold", "foreground"), [(0.3, [0, 1, 1]), (0.5, [0, 0, 1])])
def test_each_sample_comes_with_its_own_mask_and_scores(
    threshold: float, foreground: list[int]
) -> None:
    samples = [sample(name, value) for name, value in (("a", 0), ("b", 100), ("c", 255))]
    found = list(score(brightness, samples, 2, threshold))
    assert [one.sample.name for one in found] == ["a", "b", "c"]
    assert [int(one.mask[0, 0]) for one in found] == foreground
    for one, value in zip(found, (0, 100, 255), strict=True):
        np.testing.assert_array_equal(one.probability, np.full((1, 2, 4), value / 255, np.float32))
        wanted = evaluate_image(one.mask, LABEL, 2)
        np.testing.assert_array_equal(one.scores.matrix, wanted.matrix)
        assert not one.scores.distances


def test_masks_are_post_processed_before_they_are_scored() -> None:
    image = np.zeros((2, 4, 1), np.uint8)
    image[0, 2:] = image[1, 0] = 255
    (one,) = score(brightness, [Sample("a", image, LABEL)], 2, 0.5, Postprocess("largest"), True)
    assert one.mask.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert one.dice == pytest.approx(2 * 2 / (2 + 4))
    assert one.scores.distances["hd95"][1] > 0


def test_samples_are_read_as_they_are_needed() -> None:
    read: list[str] = []

    def samples() -> Iterator[Sample]:
        for name in "abcd":
            read.append(name)
            yield sample(name, 0)

    scored = score(brightness, samples(), 2)
    assert read == []
    assert next(scored).dice == 0.0
    assert read == ["a", "b"]
