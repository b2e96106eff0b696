"""Augmentation of batches: exact where it can be, jitted as plain, locked onto nothing."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from tiny import TwoLayers

from tinyseg.augment import PRESETS, TRANSFORMS, Augmentation, alignment
from tinyseg.device.tensors import to_device
from tinyseg.errors import StepError
from tinyseg.kernels import plans
from tinyseg.models import UNet
from tinyseg.training.step import TrainStep

Array = Any
LIGHT = "flip+rotate(degrees=30)+elastic+brightness"
GEOMETRY = "0.7*rotate(degrees=60)+scale(low=0.6,high=1.6)+shear+translate"


def batch(size: int = 24, count: int = 4, channels: int = 1, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((count, channels, size, size)).astype(np.float32)
    return image, rng.integers(0, 2, (count, size, size)).astype(np.uint8)


# 1. Exactness


def test_flips_and_quarter_turns_are_numpys_own_bit_for_bit() -> None:
    image, label = batch(channels=3, count=64)
    moved, classes = Augmentation("flip+rotate90", seed=3).arrays(image, label)
    ways = [(k, f) for k in range(4) for f in (False, True)]
    seen = set()
    for index in range(64):
        found = [
            (k, f)
            for k, f in ways
            if np.array_equal(moved[index], _turn(image[index], k, f))
            and np.array_equal(classes[index], _turn(label[index], k, f))
        ]
        assert len(found) == 1, index
        seen |= set(found)
    assert seen == set(ways)


def _turn(array: Array, turns: int, flipped: bool) -> Array:
    array = np.rot90(array, turns, axes=(-2, -1))
    return array[..., ::-1] if flipped else array


@pytest.mark.parametrize(
    ("text", "ways"), [("flip(vertical=false)", (0, -1)), ("flip(horizontal=false)", (0, -2))]
)
def test_a_flip_may_be_left_out(text: str, ways: tuple[int, int]) -> None:
    image, label = batch(count=32)
    moved, _ = Augmentation(text).arrays(image, label)
    same = np.array([np.array_equal(m, i) for m, i in zip(moved, image, strict=True)])
    other = np.array(
        [np.array_equal(m, np.flip(i, ways[1])) for m, i in zip(moved, image, strict=True)]
    )
    assert (same ^ other).all()
    assert 4 < same.sum() < 28


@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name != "reflect"])
def test_a_sample_that_does_not_get_a_transform_keeps_every_bit(name: str) -> None:
    image, label = batch(count=40)
    moved, classes = Augmentation(f"0.25*{name}", seed=1).arrays(image, label)
    same = [
        np.array_equal(m, i) and np.array_equal(c, y)
        for m, i, c, y in zip(moved, image, classes, label, strict=True)
    ]
    # 3 of 4 are left alone, and flips and turns may do nothing; 40 draws, five deviations
    assert 16 <= sum(same) <= 39


# 2. Against SciPy


@pytest.mark.parametrize("name", ["rotate(degrees=180)", "scale(low=0.5,high=2)"])
def test_turning_and_zooming_match_scipy(name: str) -> None:
    """The angle or factor is found again by trying, to float32, then all pixels must agree."""
    size = 33
    y, x = np.indices((size, size)) - (size - 1) / 2
    ramp = np.stack([y, x]).astype(np.float32)
    rng = np.random.default_rng(0)
    picture = rng.standard_normal((size, size)).astype(np.float32)
    image = np.concatenate([ramp, picture[None]])[None].repeat(8, axis=0)
    label = rng.integers(0, 9, (size, size)).astype(np.uint8)
    moved, classes = Augmentation(name, seed=5).arrays(image, label[None].repeat(8, axis=0))
    found = set()
    middle = size // 2
    for rows, columns, pixels, got in zip(*moved.transpose(1, 0, 2, 3), classes, strict=True):
        # the ramps say where the neighbours of the centre come from: that is the matrix
        matrix = np.array(
            [
                [rows[middle + 1, middle], rows[middle, middle + 1]],
                [columns[middle + 1, middle], columns[middle, middle + 1]],
            ],
            np.float64,
        )
        _check_kind(name, matrix)
        found.add(tuple(matrix.ravel().round(4)))
        offset = np.full(2, middle) - matrix @ np.full(2, middle)
        places = np.einsum("ij,jhw->ihw", matrix, np.stack([y, x])) + middle
        inside = ((places >= -0.45) & (places <= size - 0.55)).all(axis=0)
        wanted = ndimage.affine_transform(
            picture.astype(np.float64), matrix, offset, order=1, mode="nearest"
        )
        # coordinates to 2e-5 pixels, times slopes of up to 8 a pixel along both axes
        np.testing.assert_allclose(pixels[inside], wanted[inside], atol=3e-4)
        near = np.abs(places - np.floor(places) - 0.5).min(axis=0) > 1e-4
        nearest = ndimage.affine_transform(label, matrix, offset, order=0, mode="nearest")
        np.testing.assert_array_equal(got[inside & near], nearest[inside & near])
        outside = ((places < -0.55) | (places > size - 0.45)).any(axis=0)
        np.testing.assert_allclose(pixels[outside], picture.mean(), atol=1e-6)
        assert (got[outside] == 255).all()
    assert len(found) == 8


def _check_kind(name: str, matrix: Array) -> None:
    """A rotation keeps lengths and angles; a zoom is a number between 1/2 and 2."""
    if name.startswith("rotate"):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-5)
        assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-5)
    else:
        np.testing.assert_allclose(matrix, np.eye(2) * matrix[0, 0], atol=1e-5)
        assert 0.5 <= matrix[0, 0] <= 2


@pytest.mark.slow
def test_kernel_and_plain_operations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    image, label = batch(channels=2)
    text = f"flip+rotate90+{GEOMETRY}"
    fast = Augmentation(text, seed=2).arrays(image, label)
    monkeypatch.setattr(plans, "overridden", "plain")
    slow = Augmentation(text, seed=2).arrays(image, label)
    np.testing.assert_allclose(fast[0], slow[0], atol=1e-4)
    assert (fast[1] != slow[1]).mean() < 1e-3


# 3. Draws


def test_draws_differ_by_sample_by_call_and_by_seed_and_come_again_with_it() -> None:
    one, label = batch(count=1)
    image, labels = one.repeat(4, axis=0), label.repeat(4, axis=0)
    augmentation = Augmentation(GEOMETRY, seed=1)
    calls = [augmentation.arrays(image, labels)[0] for _ in range(3)]
    pictures = {picture.tobytes() for call in calls for picture in call}
    assert len(pictures) >= 11  # two that get no rotation still differ by the others
    again = Augmentation(GEOMETRY, seed=1)
    for call in calls:
        np.testing.assert_array_equal(again.arrays(image, labels)[0], call)
    other = Augmentation(GEOMETRY, seed=2).arrays(image, labels)[0]
    assert not pictures & {picture.tobytes() for picture in other}


def test_the_last_draws_can_be_looked_at_again() -> None:
    image, label = batch()
    augmentation = Augmentation(GEOMETRY, seed=1)
    augmentation.arrays(image, label)
    wanted = augmentation.arrays(image, label)
    again = augmentation.again(to_device(image), to_device(label))
    for got, array in zip(again, wanted, strict=True):
        np.testing.assert_array_equal(got.numpy(), array)
    assert augmentation.state["augment.key"].numpy().tolist() == [1, 2]


def test_a_probability_is_the_share_of_samples() -> None:
    image, label = batch(size=16, count=64)
    augmentation = Augmentation("0.3*translate(fraction=0.5)")
    changed = 0
    for _ in range(8):
        moved, _ = augmentation.arrays(image, label)
        changed += sum(not np.array_equal(m, i) for m, i in zip(moved, image, strict=True))
    assert changed / 512 == pytest.approx(0.3, abs=0.08)  # four deviations


def test_only_squares_can_be_turned_by_90_degrees() -> None:
    image, label = batch()
    with pytest.raises(StepError, match="rotate90 needs square images, not 24 x 20"):
        Augmentation("rotate90").arrays(image[..., :20], label[..., :20])


# 4. Alignment


EVERYTHING = [*PRESETS, "trivial", f"flip+rotate90+{GEOMETRY}+reflect"]


@pytest.mark.parametrize(
    "text", [pytest.param(text, marks=pytest.mark.slow) for text in EVERYTHING] + [LIGHT]
)
def test_image_and_label_stay_together(text: str) -> None:
    found = alignment(Augmentation(text).pipeline, rounds=12, channels=2, levels=(-1.0, 1.0))
    assert found.passed, found


# 5. Inside the step


def run_steps(jit: bool, seed: int = 7, text: str = f"flip+{GEOMETRY}") -> Any:
    in_unet = text.startswith("flip")
    model = UNet(1, 1, base_channels=2, depth=1, dropout=0.2, seed=1) if in_unet else TwoLayers()
    step = TrainStep(model, "bce", jit=jit, augment=Augmentation(text, seed))
    numbers = []
    for number in range(4):
        image, label = batch(size=16, count=2, seed=number)
        numbers.append(step(to_device(image), to_device(label)).numbers())
    return numbers, {name: tensor.numpy() for name, tensor in step.state.items()}, step.origin


@pytest.mark.slow
@pytest.mark.parametrize("text", [f"flip+{GEOMETRY}", "strong+rotate90", "trivial"])
def test_the_augmented_step_is_the_same_jitted_and_plain_bit_for_bit(text: str) -> None:
    jitted, plain = run_steps(True, text=text), run_steps(False, text=text)
    assert jitted[0] == plain[0]
    for name, array in plain[1].items():
        np.testing.assert_array_equal(jitted[1][name], array, err_msg=name)
    assert jitted[1]["augment.key"].tolist() == [7, 4]


@pytest.mark.slow
def test_another_seed_is_another_run_and_compiles_nothing() -> None:
    one, other = run_steps(True, seed=7), run_steps(True, seed=8)
    assert other[0] != one[0]
    assert other[2] == "taken from the cache"
    assert run_steps(True, text="flip")[2] != other[2]


@pytest.mark.slow
def test_a_step_on_one_batch_draws_anew_each_time() -> None:
    step = TrainStep(TwoLayers(dropout=0), "bce", augment="translate")
    step.learning_rate = 0.0
    image, label = map(to_device, batch(size=16, count=2))
    losses = [step(image, label).numbers()["loss"] for _ in range(6)]
    assert len(set(losses)) == 6


def test_no_augmentation_adds_nothing() -> None:
    step = TrainStep(UNet(1, 1, base_channels=2, depth=1), "bce", augment="none")
    assert not any(name.startswith("augment") for name in step.state)
