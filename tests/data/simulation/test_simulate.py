import hashlib

import numpy as np
import pytest

from tinyseg.data import KINDS, simulate
from tinyseg.data.simulation.simulate import FACTS, Simulation
from tinyseg.errors import DataError

EVERY = pytest.mark.parametrize("kind", list(KINDS))


def digest(samples):
    bytes_ = b"".join(s.image.tobytes() + s.label.tobytes() for s in samples)
    return hashlib.sha256(bytes_).hexdigest()[:16]


def shares(samples):
    return np.array([(sample.label > 0).mean() for sample in samples])


@EVERY
def test_shapes_types_and_classes(kind):
    samples = simulate(kind, n=6, size=48, seed=1)
    for index, sample in enumerate(samples):
        assert sample.name == f"{kind}_{index:04d}"
        assert sample.files == ()
        assert sample.image.shape == (48, 48, FACTS[kind].channels)
        assert sample.image.dtype == sample.label.dtype == np.uint8
    seen = set(np.unique([sample.label for sample in samples]).tolist())
    assert seen == set(range(FACTS[kind].classes))


@EVERY
def test_the_same_arguments_give_the_same_bytes_everywhere(kind):
    assert digest(simulate(kind, n=3, size=64, seed=7)) == GOLDEN[kind]


@EVERY
def test_a_sample_does_not_depend_on_how_many_there_are(kind):
    few, many = simulate(kind, n=2, size=32, seed=2), simulate(kind, n=5, size=32, seed=2)
    assert digest(few) == digest(many[:2])
    assert digest(few) != digest(simulate(kind, n=2, size=32, seed=3))
    assert digest(many[:1]) != digest(many[1:2])


@EVERY
@pytest.mark.parametrize("wanted", ["low", "own", pytest.param("high", marks=pytest.mark.slow)])
def test_foreground_steers_the_mean_share(kind, wanted):
    facts = FACTS[kind]
    share = {"low": 0.03, "own": facts.foreground, "high": 0.9 * facts.most}[wanted]
    samples = simulate(kind, n=60, size=64, seed=0, foreground=share, empty=0)
    assert shares(samples).mean() == pytest.approx(share, rel=0.15)
    assert shares(samples).min() > 0


@EVERY
@pytest.mark.parametrize(("empty", "count"), [(0, 0), (0.25, 5), (0.5, 10), (1, 20)])
def test_empty_images_are_counted_exactly(kind, empty, count):
    samples = simulate(kind, n=20, size=32, seed=0, empty=empty)
    assert (shares(samples) == 0).sum() == count
    made = Simulation(kind, n=20, size=32, empty=empty)
    assert made.empty_names == tuple(s.name for s in samples if not s.label.any())


@EVERY
def test_contrast_and_noise_do_what_they_say(kind):
    def between_classes(**knobs):
        samples = simulate(kind, n=8, size=64, seed=0, empty=0, **knobs)
        pixels = np.stack([s.image.astype(float) for s in samples])
        inside = np.stack([s.label for s in samples]) > 0
        return np.abs(pixels[inside].mean(0) - pixels[~inside].mean(0)).max()

    def roughness(noise):
        samples = simulate(kind, n=4, size=64, seed=0, noise=noise)
        pixels = np.stack([s.image.astype(float) for s in samples])
        return np.median(np.abs(np.diff(pixels, axis=2)))

    assert between_classes(contrast=1.3) > between_classes(contrast=0.3) + 5
    assert roughness(0) < roughness(1) < roughness(2)


@pytest.mark.parametrize("kind", ["cells", "ultrasound"])
def test_no_global_threshold_solves_it(kind):
    samples = simulate(kind, n=24, size=64, seed=0)
    grey = np.stack([sample.image.mean(axis=2) for sample in samples])
    label = np.stack([sample.label for sample in samples]) > 0
    best = 0.0
    for threshold in range(0, 256, 4):
        for guess in (grey > threshold, grey <= threshold):
            best = max(best, 2 * (guess & label).sum() / (guess.sum() + label.sum()))
    assert best < 0.6


def test_cells_are_discs():
    """Labels are exact: each single disc fills pi r^2 pixels of its bounding box."""
    from scipy import ndimage

    filled = []
    for sample in simulate("cells", n=12, size=128, seed=0, foreground=0.03, empty=0):
        parts, _ = ndimage.label(sample.label)
        for rows, cols in ndimage.find_objects(parts):
            inside = rows.start > 0 and cols.start > 0 and rows.stop < 128 and cols.stop < 128
            if inside and rows.stop - rows.start >= 8:
                filled.append(sample.label[rows, cols].mean())
    assert len(filled) > 20
    assert np.median(filled) == pytest.approx(np.pi / 4, abs=0.03)


def test_ultrasound_has_one_dark_lesion_and_very_small_ones():
    from scipy import ndimage

    samples = simulate("ultrasound", n=40, size=96, seed=0, empty=0)
    sizes = shares(samples)
    assert sizes.min() < 0.012
    assert sizes.max() > 0.1
    for sample in samples:
        assert ndimage.label(sample.label, np.ones((3, 3)))[1] == 1


def test_membranes_are_thin_and_close_cells():
    from scipy import ndimage

    for sample in simulate("membranes", n=6, size=96, seed=0):
        depth = ndimage.distance_transform_edt(sample.label)
        assert np.percentile(depth[depth > 0], 90) <= 4
        assert ndimage.label(sample.label == 0)[1] >= 4


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"n": 0}, "n=0 must be a whole number from 1"),
        ({"n": 2.5}, "n=2.5 must be a whole number"),
        ({"size": 8}, "size=8 must be"),
        ({"seed": -1}, "seed=-1 must be"),
        ({"foreground": 0}, "foreground=0 must be a number from 0.005 to 0.6"),
        ({"contrast": 0}, "contrast=0 must be"),
        ({"noise": float("nan")}, "noise=nan must be"),
        ({"empty": 1.5}, "empty=1.5 must be"),
        ({"empty": "x"}, "empty='x' must be"),
    ],
)
def test_bad_knobs(knobs, said):
    with pytest.raises(DataError, match=f"sim:cells {said}"):
        simulate("cells", **knobs)


GOLDEN = {
    "cells": "ee8c3a79e6cee08d",
    "ultrasound": "d5a3d3e4774ab244",
    "membranes": "095de718627406f5",
    "shapes": "26a2bf551347f708",
}
