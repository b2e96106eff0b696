"""One way in: what the network gets does not depend on who asks."""

import numpy as np
import pytest

from tinyseg.config import DataConfig
from tinyseg.data import InputPipeline, InputScale, find_scale
from tinyseg.data.prepare.preprocess import Preprocess
from tinyseg.data.prepare.resize import image_tile, place_image, scale_image
from tinyseg.errors import DataError

RNG = np.random.default_rng(3)
SCALE = InputScale((0.4,), (0.2,))


def image(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 1), dtype=np.uint8)


def test_preprocessing_comes_before_resizing_and_the_scale_last() -> None:
    config = DataConfig(size=32, preprocess="median(size=3)+quantize(bits=2)")
    pixels = image(50, 70)
    found = InputPipeline(config, SCALE).tile(pixels)
    placement = place_image(50, 70, 32, "resize")
    scaled = scale_image(Preprocess(config.preprocess)(pixels), placement)
    tile = image_tile(scaled, placement, 32)
    np.testing.assert_array_equal(found.pixels, tile)
    assert found.placement == placement
    expected = (tile.astype(np.float64)[..., 0] / 255 - 0.4) / 0.2
    np.testing.assert_allclose(InputPipeline.to_batch([found])[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize("fit", ["resize", "pad"])
@pytest.mark.parametrize("text", ["image", "minmax"])
def test_the_mirrored_rest_does_not_disturb_an_images_own_scale(text: str, fit: str) -> None:
    config = DataConfig(size=48, fit=fit, normalize=text)
    pixels = image(20, 31)
    pixels[:2] = 255  # bright where it is mirrored
    found = InputPipeline(config, None).tile(pixels)
    place = found.placement
    x_hw = InputPipeline.to_batch([found])[0, 0, place.top :][: place.rows]
    x_hw = x_hw[:, place.left :][:, : place.cols]
    if text == "image":
        assert x_hw.mean() == pytest.approx(0, abs=1e-5)
        assert x_hw.std() == pytest.approx(1, abs=1e-5)
    else:
        assert (x_hw.min(), x_hw.max()) == pytest.approx((0, 1), abs=1e-6)


@pytest.mark.parametrize("text", ["dataset", "image", "minmax", "none"])
def test_neighbours_in_a_batch_change_no_bit(text: str) -> None:
    config = DataConfig(size=32, normalize=text, preprocess="clahe(tiles=2)")
    images = [image(40, 30), image(16, 16), (image(9, 50) / 255).astype(np.float32)]
    pipeline = InputPipeline(config, find_scale(config, images, 1))
    together = pipeline.to_batch([pipeline.tile(one) for one in images])
    for x_chw, one in zip(together, images, strict=True):
        np.testing.assert_array_equal(pipeline.to_batch([pipeline.tile(one)])[0], x_chw)


def test_the_scale_of_the_dataset_is_that_of_preprocessed_images() -> None:
    config = DataConfig(size=32, preprocess="quantize(bits=1)")
    images = [image(10, 12), image(8, 9)]
    found = find_scale(config, images, 1)
    black_or_white = np.concatenate([(one >= 128).ravel() for one in images])
    assert found is not None
    assert found.mean == pytest.approx((black_or_white.mean(),))
    assert find_scale(DataConfig(normalize="image"), images, 1) is None


@pytest.mark.parametrize("value", [255.0, -1.0, np.nan])
def test_floats_outside_0_to_1_are_refused(value: float) -> None:
    pixels = np.full((8, 8, 1), value, np.float32)
    with pytest.raises(DataError, match="must be 0 to 1; divide by 255"):
        InputPipeline(DataConfig(size=16), SCALE).tile(pixels)
