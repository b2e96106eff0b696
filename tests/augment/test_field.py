"""Elastic deformation against SciPy, crops and their foreground against counts."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tinyseg.augment import Augmentation
from tinyseg.augment.field import _cubic, _foreground, crop, elastic
from tinyseg.augment.sampling import Draw
from tinyseg.device import random as draws
from tinyseg.device.tensors import to_device

Array = Any


def test_bicubic_weights_interpolate_and_repeat_parabolas() -> None:
    """Keys' kernel goes through the nodes and is exact for polynomials of degree 2."""
    weights = _cubic(7, 41).numpy().astype(np.float64)
    np.testing.assert_allclose(weights[::10], np.eye(7)[1:-1], atol=1e-6)
    nodes, places = np.arange(7) - 1.0, np.linspace(0, 4, 41)
    for power in (0, 1, 2):
        np.testing.assert_allclose(weights @ nodes**power, places**power, atol=1e-5)


def test_the_displacement_is_the_bicubic_surface_over_the_nodes() -> None:
    rng = np.random.default_rng(0)
    nodes = rng.standard_normal((2, 2 * 25)).astype(np.float32)
    draw = Draw(iter([]), lambda count: to_device(nodes), None)
    got = elastic(draw, std=0.1, grid=3.0)(2, 20, 30).numpy()
    down, right = (_cubic(5, size).numpy().astype(np.float64) for size in (20, 30))
    for b in range(2):
        for axis, size in enumerate((20, 30)):
            grid = nodes[b].reshape(2, 5, 5)[axis].astype(np.float64) * 0.1 * size
            np.testing.assert_allclose(got[b, axis], down @ grid @ right.T, atol=1e-5)


def test_an_elastic_batch_is_what_scipy_makes_of_its_displacements() -> None:
    """Ramps as two channels tell where each pixel came from; the third must come from there."""
    size = 40
    places = np.indices((size, size)).astype(np.float32)
    rng = np.random.default_rng(1)
    picture = ndimage.gaussian_filter(rng.standard_normal((size, size)), 1).astype(np.float32)
    label = rng.integers(0, 9, (size, size)).astype(np.uint8)
    image = np.concatenate([places, picture[None]])[None].repeat(3, axis=0)
    moved, classes = Augmentation("elastic(std=0.05)", seed=4).arrays(
        image, label[None].repeat(3, axis=0)
    )
    for sample, found in zip(moved, classes, strict=True):
        source, inside = sample[:2].astype(np.float64), found != 255
        shift = (source - places)[:, inside]
        assert 0.3 < shift.std() < 6  # 0.05 of 40 pixels is 2
        inner = inside & (source > 0.5).all(axis=0) & (source < size - 1.5).all(axis=0)
        wanted = ndimage.map_coordinates(picture.astype(np.float64), source, order=1)
        np.testing.assert_allclose(sample[2][inner], wanted[inner], atol=1e-4)
        clear = inner & (np.abs(source % 1 - 0.5) > 1e-3).all(axis=0)
        nearest = ndimage.map_coordinates(label, source, order=0)
        np.testing.assert_array_equal(found[clear], nearest[clear])
        assert inner.mean() > 0.6


def test_elastic_nodes_have_the_std_that_was_asked_for() -> None:
    label = np.zeros((64, 50, 50), np.uint8)
    ramps = np.indices((50, 50)).astype(np.float32)[None].repeat(64, axis=0)
    moved, _ = Augmentation("elastic(std=0.02)+reflect", seed=1).arrays(ramps, label)
    middle = (moved - ramps)[:, :, 24:26, 24:26].mean(axis=(2, 3))  # on the middle node
    assert middle.std() == pytest.approx(0.02 * 50, rel=0.2)  # 128 numbers, 3 deviations
    assert abs(middle.mean()) < 0.3


# Crops


def numbers(*values: float) -> Draw:
    return Draw((to_device(np.full(3, v, np.float32)) for v in values), lambda count: None, None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("place", [0.0, 0.25, 1.0])
def test_a_window_lies_where_it_was_drawn(place: float) -> None:
    label = to_device(np.zeros((3, 40, 60), np.uint8))
    made = crop(numbers(0.5, place, 1 - place, 0.9, 0.1, 0.2), low=0.2)
    assert made.side.numpy() == pytest.approx(0.6)
    down, right = (middle.numpy() for middle in made(label))
    # of 40 rows a window of 24 may begin at 0 to 16; its middle is then 8 pixels from the image's
    assert down == pytest.approx((2 * place - 1) * 8)
    assert right == pytest.approx((1 - 2 * place) * 12)


def test_a_window_with_foreground_has_it_in_the_middle_and_stays_inside() -> None:
    label = np.zeros((3, 40, 60), np.uint8)
    label[0, 20, 30], label[1, 39, 2] = 1, 3  # near the middle, in a corner, nowhere
    made = crop(numbers(0.0, 0.5, 0.5, 0.1, 0.1, 0.2), low=0.5, foreground=0.33)
    down, right = (middle.numpy() for middle in made(to_device(label)))
    assert down == pytest.approx([0.5, 10, 0])
    assert right == pytest.approx([0.5, -15, 0])


def test_a_crop_shows_the_window_that_scipy_would_cut_out() -> None:
    rng = np.random.default_rng(2)
    image = rng.standard_normal((4, 1, 32, 32)).astype(np.float32)
    label = (rng.random((4, 32, 32)) < 0.1).astype(np.uint8)
    moved, classes = Augmentation("crop(low=0.5,foreground=1)", seed=1).arrays(image, label)
    ramps = np.indices((32, 32)).astype(np.float32)[None].repeat(4, axis=0)
    source = Augmentation("crop(low=0.5,foreground=1)", seed=1).arrays(ramps, label)[0]
    assert (classes != 255).all()  # a window never leaves the image
    for k in range(4):
        rows, columns = source[k, :, 1:-1, 1:-1].astype(np.float64)
        side = rows[1, 0] - rows[0, 0]
        assert 0.5 <= side <= 1
        assert columns[0, 1] - columns[0, 0] == pytest.approx(side, abs=1e-4)
        wanted = ndimage.map_coordinates(image[k, 0].astype(np.float64), [rows, columns], order=1)
        np.testing.assert_allclose(moved[k, 0, 1:-1, 1:-1], wanted, atol=1e-4)


def test_foreground_pixels_are_equally_likely_within_a_class_and_classes_among_them() -> None:
    label = np.zeros((400, 5, 8), np.uint8)
    label[:, 0, :4], label[:, 4, 7], label[:, 2] = 1, 2, 255  # four pixels of 1, one of 2
    key = draws.make_key(3)
    salts = [draws.uniform(key, 400, stream) for stream in (0, 1)]
    found = _foreground(to_device(label), *salts).numpy()
    index, count = np.unique(found & 0xFFFFFF, return_counts=True)
    assert index.tolist() == [0, 1, 2, 3, 39]
    assert count[-1] == pytest.approx(200, abs=40)  # four deviations
    assert count[:4] == pytest.approx(50, abs=28)


def test_without_foreground_there_is_no_pixel() -> None:
    label = np.full((2, 4, 4), 255, np.uint8)
    label[1] = 0
    salts = [to_device(np.full(2, u, np.float32)) for u in (0.3, 0.7)]
    assert (_foreground(to_device(label), *salts).numpy() == 0).all()
