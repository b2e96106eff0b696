"""How well labels match images, compared with least squares and with what was done to them."""

import numpy as np
import pytest

from tinyseg.config import IGNORE
from tinyseg.data.reading.agreement import explained
from tinyseg.doctor.experiments.label_agreement import (
    FACTORS,
    TURNS,
    Axis,
    Pairs,
    best_shift,
    best_stretch,
    match_z_score,
    own_share,
    pairs_of,
    rearrange,
    shift,
    stretch,
    table_of,
)


def drawn(count: int = 12, side: int = 48, classes: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Images in which each class has a level of its own, under noise."""
    rng = np.random.default_rng(0)
    images, labels = [], []
    for _ in range(count):
        label = np.zeros((side, side), np.uint8)
        for _ in range(6):
            r, c = rng.integers(0, side - 10, 2)
            label[r : r + 9, c : c + 7] = rng.integers(1, classes)
        image = 90 + 40.0 * label + rng.normal(scale=12, size=label.shape)
        images.append(image.clip(0, 255).astype(np.uint8)[..., None])
        labels.append(label)
    return images, np.stack(labels)


@pytest.fixture(params=[2, 4])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    return pairs_of(*drawn(classes=request.param), request.param)


def test_what_is_explained_is_the_share_of_least_squares(pairs: Pairs) -> None:
    for features, target, share in zip(
        pairs.features, pairs.targets, explained(pairs.features, pairs.targets), strict=True
    ):
        flat = target.reshape(len(target), -1).astype(np.float64).T
        design = np.column_stack([features.astype(np.float64).T, np.ones(features.shape[1])])
        _, rest, _, _ = np.linalg.lstsq(design, flat, rcond=None)
        fitted = design @ np.linalg.lstsq(design, flat, rcond=None)[0]
        assert share == pytest.approx(1 - ((flat - fitted) ** 2).sum() / (flat**2).sum(), abs=1e-4)
        assert rest is not None
    assert np.allclose(np.diag(table_of(pairs)), explained(pairs.features, pairs.targets))


def test_a_table_has_every_label_under_every_image(pairs: Pairs) -> None:
    table = table_of(pairs)
    for i, j in ((0, 5), (7, 2)):
        one = explained(pairs.features[i : i + 1], pairs.targets[j : j + 1])
        assert table[i, j] == pytest.approx(float(one[0]), abs=1e-6)


def test_own_labels_match_and_shuffled_ones_do_not(pairs: Pairs) -> None:
    order = np.roll(np.arange(len(pairs.targets)), 1)
    assert match_z_score(table_of(pairs)) > 6
    assert match_z_score(table_of(Pairs(pairs.features, pairs.targets[order]))) < 2


def test_the_labels_that_were_swapped_are_named(pairs: Pairs) -> None:
    order = np.arange(len(pairs.targets))
    order[[2, 5, 9]] = [5, 9, 2]
    found = rearrange(Pairs(pairs.features, pairs.targets[order]))
    assert found.match > 5
    assert found.agreed == {2: 9, 5: 2, 9: 5}
    assert rearrange(pairs).agreed == {}


@pytest.mark.parametrize("place", [(0, 0), (3, -2), (-7, 5), (0, 8)])
def test_a_shift_is_found_and_undone(place: tuple[int, int], pairs: Pairs) -> None:
    moved = Pairs(pairs.features, shift(pairs.targets, *place))
    assert best_shift(moved) == (-place[0], -place[1])


@pytest.mark.parametrize(
    "axes",
    [((1.0, 0.0), (1.0, 0.0)), ((FACTORS[9], 0.5), (FACTORS[9], 0.5)), ((FACTORS[4], 1.0), (1, 0))],
)
def test_a_stretch_is_found_and_undone(axes: tuple[Axis, Axis], pairs: Pairs) -> None:
    squeezed = [(1 / factor, place) for factor, place in axes]
    found = best_stretch(Pairs(pairs.features, stretch(pairs.targets, *squeezed)))
    for (factor, place), (wanted, fixed) in zip(found, axes, strict=True):
        assert factor == pytest.approx(wanted)
        assert factor == 1 or place == fixed


def test_a_stretch_goes_around_its_place() -> None:
    label = np.zeros((1, 1, 4, 6))
    label[0, 0, :, 2] = 1
    double = stretch(label, (1.0, 0.0), (2.0, 0.0))[0, 0]
    assert (double[0] > 0).tolist() == [False] * 3 + [True] * 3  # halves are rounded to even
    half = stretch(label, (0.5, 0.0), (1.0, 0.0))[0, 0]
    assert (half[:, 2] > 0).tolist() == [True, True, False, False]
    assert not half[2:].any()
    assert (half**2).sum() == pytest.approx(1)


def test_what_others_explain_is_not_a_labels_own(pairs: Pairs) -> None:
    table = table_of(pairs)
    for j in (0, 7):
        others = np.delete(table[:, j], j).mean()
        assert own_share(pairs)[j] == pytest.approx(table[j, j] - others, abs=1e-6)


def test_what_a_shift_brings_in_is_of_no_class() -> None:
    ones = np.ones((1, 1, 4, 5))
    assert shift(ones, 1, -2)[0, 0].tolist() == [[0] * 5, *[[1, 1, 1, 0, 0]] * 3]
    assert shift(ones, 0, 0).all()


def test_turns_are_what_they_are_called() -> None:
    label = np.arange(9).reshape(1, 1, 3, 3)
    turned = {name: turn(label)[0, 0].tolist() for name, turn in TURNS.items()}
    assert turned["mirrored left to right"] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert turned["mirrored top to bottom"] == [[6, 7, 8], [3, 4, 5], [0, 1, 2]]
    assert turned["transposed"] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert turned["rotated by 90 degrees"] == [[2, 5, 8], [1, 4, 7], [0, 3, 6]]


def test_ignored_pixels_do_not_count() -> None:
    images, labels = drawn(2)
    labels[:, :10] = IGNORE
    pairs = pairs_of(images, labels, 2)
    assert not pairs.targets[:, :, :10].any()
    assert np.allclose(pairs.targets.sum(axis=(1, 2, 3)), 0, atol=1e-4)
    assert np.allclose((pairs.targets**2).sum(axis=(1, 2, 3)), 1, atol=1e-5)
