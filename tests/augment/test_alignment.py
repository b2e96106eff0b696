"""The proof itself: it passes what keeps image and label together and fails what does not."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from tinyseg.augment import alignment

Pair = tuple[np.ndarray, np.ndarray]


def turned(order: int, degrees: float = 17) -> Callable[[np.ndarray, np.ndarray], Pair]:
    """A rotation by SciPy whose label is interpolated in some order."""

    def pipeline(image: np.ndarray, label: np.ndarray) -> Pair:
        planes = [ndimage.rotate(p, degrees, reshape=False, order=1) for p in image.T]
        moved = np.stack(planes).T
        # `.T` turned the planes over, so the label takes the same way
        return moved, ndimage.rotate(label.T, degrees, reshape=False, order=order, cval=255).T

    return pipeline


@pytest.mark.parametrize(
    "pipeline",
    [
        lambda image, label: (image, label),
        lambda image, label: (image[:, ::-1], label[:, ::-1]),
        lambda image, label: (np.rot90(image), np.rot90(label)),
        lambda image, label: (ndimage.shift(image, (1, 0, 0), order=0, mode="nearest"), label),
        lambda image, label: (image * 0.1 + 77.0, label),
        lambda image, label: (255.0 * (image / 255.0) ** 3, label),
        lambda image, label: (ndimage.gaussian_filter(image, (2, 2, 0)), label),
        turned(order=0),
    ],
)
def test_aligned_pipelines_pass(pipeline: Callable[..., Pair]) -> None:
    assert alignment(pipeline, channels=3, rounds=4).passed


def test_noise_on_single_pixels_is_no_misalignment() -> None:
    rng = np.random.default_rng(0)
    found = alignment(lambda i, y: (i + rng.normal(0, 50, i.shape), y), rounds=4)
    assert found.passed, found


@pytest.mark.parametrize(
    ("pipeline", "atleast"),
    [
        (lambda image, label: (image[:, ::-1], label), 3),
        (lambda image, label: (image[::-1], label), 3),
        (lambda image, label: (image, np.rot90(label, 2)), 3),
        (lambda image, label: (np.rot90(image), np.rot90(label, 3)), 3),
        (lambda image, label: (image.swapaxes(0, 1), label), 3),
        (lambda image, label: (np.roll(image, 2, axis=0), label), 2),
        (lambda image, label: (np.roll(image, -2, axis=1), label), 2),
        (lambda image, label: (ndimage.shift(image, (0, 2, 0), order=0), label), 2),
        (lambda image, label: (turned(0)(image, label)[0], label), 2),
        (lambda image, label: (image, np.zeros_like(label)), 3),
    ],
)
def test_planted_misalignment_fails(pipeline: Callable[..., Pair], atleast: float) -> None:
    found = alignment(pipeline, rounds=4)
    assert not found.passed
    assert found.distance >= atleast
    assert "NOT aligned" in str(found)


def test_blended_labels_fail_by_their_new_values() -> None:
    found = alignment(turned(order=1), rounds=2)
    assert not found.passed
    assert found.new_values
    assert str(found.new_values[0]) in str(found)


def test_a_pipeline_that_is_right_only_sometimes_fails() -> None:
    calls = iter(range(100))
    found = alignment(lambda i, y: (i, y if next(calls) != 5 else y[::-1]), rounds=8)
    assert not found.passed
