import numpy as np
import pytest
from PIL import Image

from tinyseg.data.prepare.resize import (
    Placement,
    image_tile,
    place_image,
    prepare_label,
    restore_size,
    scale_image,
)
from tinyseg.errors import DataError

RNG = np.random.default_rng(0)


def prepare_image(image: np.ndarray, size: int, fit: str) -> tuple[np.ndarray, Placement]:
    placement = place_image(image.shape[0], image.shape[1], size, fit)
    return image_tile(scale_image(image, placement), placement, size), placement


@pytest.mark.parametrize(
    ("height", "width", "size", "placement"),
    [
        (100, 200, 64, Placement((100, 200), 16, 0, 32, 64)),
        (200, 100, 64, Placement((200, 100), 0, 16, 64, 32)),
        (10, 20, 64, Placement((10, 20), 16, 0, 32, 64)),
        (64, 64, 64, Placement((64, 64), 0, 0, 64, 64)),
        (1, 1000, 64, Placement((1, 1000), 31, 0, 1, 64)),
    ],
)
def test_resize_keeps_the_aspect_and_centres(height, width, size, placement):
    assert place_image(height, width, size, "resize") == placement


def test_pad_keeps_the_pixels():
    image = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)
    padded, placement = prepare_image(image, 64, "pad")
    assert padded.shape == (64, 64, 3)
    assert placement == Placement((20, 31), 22, 16, 20, 31)
    np.testing.assert_array_equal(padded[22:42, 16:47], image)
    np.testing.assert_array_equal(padded[21, 16:47], image[0])
    np.testing.assert_array_equal(padded[42:62, 16:47], image[::-1])


def test_pad_refuses_what_is_larger():
    with pytest.raises(DataError, match=r"70 x 20 .* data\.size=64 .* set data\.size=80 or"):
        prepare_image(np.zeros((70, 20, 1), np.uint8), 64, "pad")


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_down_scaling_averages(dtype):
    """Each output pixel of a twofold reduction is a triangle-weighted mean: of a ramp, the ramp."""
    ramp = np.broadcast_to(np.arange(128)[:, None, None], (128, 128, 1)).astype(dtype)
    tile, _ = prepare_image(ramp, 64, "resize")
    assert tile.dtype == dtype
    expected = np.arange(64) * 2 + 0.5
    np.testing.assert_allclose(tile[2:-2, 5, 0], expected[2:-2], atol=0.51)


def test_fine_stripes_turn_grey_not_moire():
    stripes = np.zeros((128, 128, 1), np.uint8)
    stripes[::2] = 255
    tile, _ = prepare_image(stripes, 32, "resize")
    assert np.abs(tile[2:-2].astype(int) - 127).max() <= 4


def test_labels_are_taken_at_the_centres_as_pillow_does():
    label = RNG.integers(0, 3, (50, 90), dtype=np.uint8)
    tile = prepare_label(label, 64, "resize")
    placement = place_image(50, 90, 64, "resize")
    inside = tile[
        placement.top : placement.top + placement.rows,
        placement.left : placement.left + placement.cols,
    ]
    nearest = Image.fromarray(label).resize(
        (placement.cols, placement.rows), Image.Resampling.NEAREST
    )
    np.testing.assert_array_equal(inside, np.asarray(nearest))
    assert (tile[: placement.top] == 255).all()
    assert (tile[placement.top + placement.rows :] == 255).all()
    assert tile.dtype == np.uint8


@pytest.mark.parametrize(("height", "width"), [(96, 60), (33, 77), (200, 150)])
def test_image_and_label_stay_aligned(height, width):
    row, col = np.mgrid[:height, :width]
    label = ((row - height / 2) ** 2 + (col - width / 3) ** 2 < (width / 4) ** 2).astype(np.uint8)
    tile, _ = prepare_image((label * 255)[..., None], 64, "resize")
    labels = prepare_label(label, 64, "resize")
    valid = labels != 255
    assert ((tile[..., 0] > 127) == labels)[valid].mean() > 0.985


@pytest.mark.parametrize(("height", "width", "fit"), [(40, 64, "pad"), (150, 90, "resize")])
def test_restore_size_returns_a_map_of_the_original_size_in_place(height, width, fit):
    row, col = np.mgrid[:height, :width].astype(np.float32)
    smooth = np.stack([np.sin(row / 30) * 0.5 + 0.5, col / width]).astype(np.float32)
    planes = [prepare_image(plane[..., None], 64, fit) for plane in smooth]
    p_khw = np.stack([tile[..., 0] for tile, _ in planes])
    back = restore_size(p_khw, planes[0][1])
    assert back.shape == (2, height, width)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, smooth, atol=0.02 if fit == "resize" else 0)


def test_restored_size_of_an_enlarged_image():
    p_khw = np.zeros((1, 64, 64), np.float32)
    p_khw[:, :, 32:] = 1
    back = restore_size(p_khw, Placement((16, 16), 0, 0, 64, 64))
    np.testing.assert_allclose(back[0, 3, [0, 6, 9, 15]], [0, 0, 1, 1], atol=1e-6)
