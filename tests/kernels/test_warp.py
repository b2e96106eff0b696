"""Sampling at displaced places: kernel and plain operations against SciPy in float64."""

import numpy as np
import pytest
from scipy import ndimage
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.device.tensors import to_device
from tinyseg.kernels import plans

SHAPE = (2, 3, 21, 34)
SIZES = [(21, 34), (16, 12)]


@pytest.fixture(params=["kernel", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both paths, one after the other."""
    if request.param == "plain":
        monkeypatch.setattr(plans, "overridden", "plain")
    return str(request.param)


def draw(dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.standard_normal(SHAPE).astype(np.float32)
    label = rng.integers(0, 5, (SHAPE[0], *SHAPE[2:])).astype(dtype)
    # turned, stretched and moved so far that corners come from outside; no place is a tie
    matrix = [[1.2137, -0.5213, 11.313, 0.4241, 0.8171, 15.127]]
    matrix += [[0.3123, 1.1317, 9.0229, -0.9133, 0.2087, 17.531]]
    return image, label, np.array(matrix, np.float32)


def expected(
    image: np.ndarray, label: np.ndarray, places: np.ndarray, reflect: bool
) -> tuple[np.ndarray, np.ndarray]:
    """One plane (H, W) and its label at places (2, rows, columns)."""
    rows, columns = label.shape
    mode = "reflect" if reflect else "nearest"
    moved = ndimage.map_coordinates(image.astype(np.float64), places, order=1, mode=mode)
    classes = ndimage.map_coordinates(label, places, order=0, mode=mode)
    y, x = places
    inside = (y >= -0.5) & (y <= rows - 0.5) & (x >= -0.5) & (x <= columns - 0.5)
    return (
        (moved, classes)
        if reflect
        else (np.where(inside, moved, 7), np.where(inside, classes, 255))
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("reflect", [False, True])
def test_images_and_labels_match_scipy(
    way: str, size: tuple[int, int], shifted: bool, reflect: bool
) -> None:
    image, label, matrix = draw()
    shift = np.random.default_rng(1).standard_normal((2, 2, *size)).astype(np.float32) * 3
    given = to_device(shift) if shifted else None
    fill = None if reflect else to_device(np.full((2, 3), 7, np.float32))
    made = kernels.warp(to_device(image), to_device(label), to_device(matrix), given, fill, size)
    got_image, got_label = (tensor.numpy() for tensor in made)
    assert got_image.shape == (2, 3, *size)
    centred = np.indices(size) - (np.array(size).reshape(2, 1, 1) - 1) / 2
    for b in range(2):
        y, x = centred + (shift[b].astype(np.float64) if shifted else 0)
        m = matrix[b].astype(np.float64)
        places = np.stack([m[0] * y + m[1] * x + m[2], m[3] * y + m[4] * x + m[5]])
        for channel in range(3):
            pixels, classes = expected(image[b, channel], label[b], places, reflect)
            # a coordinate of 30 has 4e-6 between float32 numbers, times a slope of about 4
            np.testing.assert_allclose(got_image[b, channel], pixels, atol=1e-4)
        np.testing.assert_array_equal(got_label[b], classes)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_whole_pixel_moves_are_exact_in_every_label_type(way: str, dtype: type) -> None:
    image, label, _ = draw(dtype)
    matrix = to_device(np.array([[1, 0, 12, 0, 1, 14.5]] * 2, np.float32))  # 2 down, 2 to the left
    fill = to_device(np.arange(6, dtype=np.float32).reshape(2, 3))
    got_image, got_label = kernels.warp(to_device(image), to_device(label), matrix, None, fill)
    assert got_label.dtype == to_device(label).dtype
    np.testing.assert_array_equal(got_image.numpy()[:, :, :-2, 2:], image[:, :, 2:, :-2])
    np.testing.assert_array_equal(got_label.numpy()[:, :-2, 2:], label[:, 2:, :-2])
    assert (got_label.numpy()[:, -2:] == 255).all()
    assert (got_image.numpy()[:, :, 0, 0] == np.arange(6).reshape(2, 3)).all()


def test_places_far_outside_are_filled_and_never_read(way: str) -> None:
    image, label, matrix = draw()
    far = matrix * np.array([1, 1, 1e9, 1, 1, -1e9], np.float32)
    fill = to_device(np.full((2, 3), -3, np.float32))
    got_image, got_label = kernels.warp(
        to_device(image), to_device(label), to_device(far), None, fill
    )
    assert (got_image.numpy() == -3).all()
    assert (got_label.numpy() == 255).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    image, label, matrix = map(to_device, draw())
    with pytest.raises(ValueError, match=r"need \(2, 21, 34\)"):
        kernels.warp(image, Tensor.zeros(2, 21, 33), matrix)
    with pytest.raises(ValueError, match=r"need \(2, 6\)"):
        kernels.warp(image, label, matrix[:1])
    with pytest.raises(ValueError, match=r"need \(2, 2, 5, 5\)"):
        kernels.warp(image, label, matrix, matrix, size=(5, 5))
    with pytest.raises(ValueError, match=r"need \(2, 3\)"):
        kernels.warp(image, label, matrix, fill=matrix)
