"""Grey values: blur against SciPy, resolution against NumPy, tone and noise by their definition."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tinyseg.augment import Augmentation
from tinyseg.augment.intensity import Optics, Statistics, brightness, contrast, cutout, gamma, noise
from tinyseg.augment.sampling import Draw
from tinyseg.device import random as draws
from tinyseg.device.tensors import to_device
from tinyseg.kernels import plans

Array = Any


def draw(*values: Any, normal: Any = None) -> Draw:
    """Draws that are known: each value a list, one number for each sample."""
    return Draw((to_device(np.array(v, np.float32)) for v in values), normal, None)


def images(channels: int = 2, size: int = 24) -> Array:
    rng = np.random.default_rng(0)
    return rng.standard_normal((3, channels, size, size)).astype(np.float32) + 0.5


# 1. Optics


def test_a_blur_is_scipys_with_the_border_left_out() -> None:
    x = images()
    sigmas = np.array([0.5, 1.0, 2.0], np.float32)
    optics = Optics(to_device(sigmas**2), largest=4.0)
    got = optics(to_device(x)).numpy()
    for image, sigma, blurred in zip(x.astype(np.float64), sigmas, got, strict=True):

        def filtered(plane: Array, sigma: float = sigma) -> Array:
            return ndimage.gaussian_filter(plane, sigma, mode="constant", radius=6)

        wanted = [filtered(plane) / filtered(np.ones_like(plane)) for plane in image]
        np.testing.assert_allclose(blurred, wanted, atol=3e-6)


def test_no_blur_and_no_loss_of_resolution_keep_every_bit() -> None:
    x = images()
    optics = Optics(
        to_device(np.zeros(3, np.float32)), to_device(np.ones(3, np.float32)), 4.0, 0.25
    )
    np.testing.assert_array_equal(optics(to_device(x)).numpy(), x)


def test_a_lower_resolution_is_gaussian_samples_and_straight_lines_between() -> None:
    """Half the resolution by the definition: blurred, sampled, and interpolated by NumPy."""
    size, x = 24, images(1)
    optics = Optics(zoom=to_device(np.full(3, 0.5, np.float32)), smallest=0.5)
    got = optics(to_device(x)).numpy()
    away = np.arange(size) - np.arange(size)[:, None]
    blurred = np.exp(-(away**2) / (2 * 0.25))  # (1 / 0.5^2 - 1) / 12
    blurred /= blurred.sum(axis=1, keepdims=True)
    coarse, fine = 2 * np.arange(size // 2) + 0.5, np.arange(size)
    down = np.stack([np.interp(coarse, fine, row) for row in np.eye(size)], 1)
    up = np.stack([np.interp(fine, coarse, row) for row in np.eye(size // 2)], 1)
    matrix = up @ down @ blurred
    wanted = np.einsum("ij,bcjk,lk->bcil", matrix, x.astype(np.float64), matrix)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize("zoom", [0.2, 0.31, 0.75, 0.99, 0.9999, 1.0])
@pytest.mark.parametrize("size", [5, 24, 31])
def test_weights_are_a_mean_of_neighbours_and_keep_the_place(zoom: float, size: int) -> None:
    optics = Optics(zoom=to_device(np.array([zoom], np.float32)), smallest=0.2)
    weights = optics.weights(1, size).numpy()[0].astype(np.float64)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
    assert (weights >= 0).all()
    source = np.arange(size) + np.arange(len(weights))[:, None] - len(weights) // 2
    assert (weights[(source < 0) | (source >= size)] == 0).all()
    # a straight line stays one, but where the border has no neighbours
    drift = (weights * source).sum(axis=0) - np.arange(size)
    inner = slice(int(5 / zoom), size - int(5 / zoom))
    assert np.abs(drift[inner]).max(initial=0) < 1e-3


# 2. Tone


def statistics(x: Array) -> tuple[Array, Array, Array]:
    x = x.astype(np.float64)
    return tuple(f(x, axis=(2, 3), keepdims=True) for f in (np.mean, np.min, np.max))  # type: ignore[return-value]


def toned(tone: Any, x: Array) -> Array:
    return tone.change(to_device(x), Statistics.of(to_device(x))).numpy()


def test_contrast_stretches_around_the_own_mean() -> None:
    x, (mean, _, _) = images(), statistics(images())
    got = toned(contrast(draw([0, 0.5, 0.999]), 0.5, 2.0), x)
    factor = np.array([0.5, 1.25, 1.9985]).reshape(3, 1, 1, 1)
    np.testing.assert_allclose(got, mean + (x - mean) * factor, atol=1e-5)


def test_gamma_bends_within_the_own_range() -> None:
    x, (_, low, high) = images(), statistics(images())
    got = toned(gamma(draw([0, 0.5, 0.999]), 0.5, 2.0), x)
    exponent = 2.0 ** np.array([-1, 0, 0.998]).reshape(3, 1, 1, 1)
    share = np.clip((x - low) / (high - low), 1e-6, 1)
    np.testing.assert_allclose(got, low + share**exponent * (high - low), atol=2e-5)


def test_gamma_of_a_flat_image_is_finite_and_the_same() -> None:
    flat = np.full((1, 1, 8, 8), 0.25, np.float32)
    np.testing.assert_allclose(toned(gamma(draw([0.1])), flat), flat, atol=1e-5)


def test_brightness_adds_one_number_to_an_image() -> None:
    x = images()
    got = toned(brightness(draw([0, 0.5, 0.75]), 0.4), x)
    shift = x.std(axis=(2, 3), keepdims=True) * np.reshape([-0.4, 0, 0.2], (3, 1, 1, 1))
    np.testing.assert_allclose(got - x, np.broadcast_to(shift, x.shape), atol=1e-6)


def test_noise_is_normal_with_the_std_that_was_drawn() -> None:
    key, x = draws.make_key(1), images(size=64) * 5

    def normal(count: int) -> Any:
        return draws.normal(key, 3 * count, 5).reshape(3, count)

    got = toned(noise(draw([0, 0.25, 0.5], normal=normal), 0.8), x).astype(np.float64)
    np.testing.assert_array_equal(got[0], x[0])
    got = (got - x) / x.std(axis=(2, 3), keepdims=True)
    for sample, deviation in ((got[1], 0.2), (got[2], 0.4)):
        # 8192 numbers: three deviations of mean, deviation and kurtosis (-0.15 by definition)
        assert abs(sample.mean()) < 3 * deviation / 90
        assert sample.std() == pytest.approx(deviation, rel=0.024)
        assert ((sample / deviation) ** 4).mean() - 3 == pytest.approx(-0.15, abs=0.17)
    flat = got[1:].reshape(2, -1)
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.04
    assert abs(np.corrcoef(flat[0, :-1], flat[0, 1:])[0, 1]) < 0.04


# 3. Holes


def test_a_hole_is_empty_in_the_image_and_ignored_in_the_label() -> None:
    x, label = images(size=20), np.ones((3, 20, 20), np.uint8)
    gone = cutout(draw([0.5, 1.0, 0.0], [0.5, 0.0, 0.3], [0.5, 0.25, 0.3]), side=0.4)(
        20, 20
    ).numpy()
    assert gone[0, 8:12, 8:12].all()
    assert gone[1, :4, 1:9].all()
    assert gone.sum(axis=(1, 2)).tolist() == [16, 32, 0]
    moved, classes = Augmentation("cutout(side=0.6)", seed=1).arrays(x, label)
    holes = classes == 255
    assert holes.any()
    for channel in range(2):
        plane, mean = x[:, channel], x[:, channel].mean(axis=(1, 2), keepdims=True)
        np.testing.assert_array_equal(moved[:, channel][~holes], plane[~holes])
        wanted = np.broadcast_to(mean, plane.shape)[holes]
        np.testing.assert_allclose(moved[:, channel][holes], wanted, atol=1e-6)


@pytest.mark.slow
def test_a_sample_has_at_most_one_of_the_trivial_transforms() -> None:
    x = np.concatenate([np.indices((32, 32)), images(1, 32)[0]]).astype(np.float32)
    x, label = x[None].repeat(64, axis=0), np.ones((64, 32, 32), np.uint8)
    moved, classes = Augmentation("trivial", seed=2).arrays(x, label)
    same = [np.array_equal(m, i) for m, i in zip(moved, x, strict=True)]
    assert 1 <= sum(same) <= 14  # one of 13 is nothing: 5 expected, four deviations
    holes = [(c == 255).any() for c in classes]
    assert 2 <= sum(holes) <= 50


@pytest.mark.slow
def test_kernels_and_plain_operations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x, label = images(), np.ones((3, 24, 24), np.uint8)
    text = "elastic+blur+lowres+gamma+contrast+noise+cutout"
    fast = Augmentation(text, seed=1).arrays(x, label)
    monkeypatch.setattr(plans, "overridden", "plain")
    slow = Augmentation(text, seed=1).arrays(x, label)
    np.testing.assert_allclose(fast[0], slow[0], atol=1e-4)
    np.testing.assert_array_equal(fast[1], slow[1])
