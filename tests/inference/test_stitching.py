"""Windows: every pixel seen, no seam, one compiled shape, one image's sums at a time."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tinygrad import Tensor

from tinyseg.config import DataConfig
from tinyseg.data import InputPipeline, InputScale, Placement, place_tiles, visible_part
from tinyseg.inference.predictor import Predictor
from tinyseg.inference.stitching import Stitcher, gaussian

RNG = np.random.default_rng(0)
SIZE = 16
SHAPES = [(16, 16), (40, 33), (9, 50), (17, 16), (5, 7), (64, 16)]


def image(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 1), dtype=np.uint8)


class Logits:
    """A network that is a function of Tensors; it keeps the shapes it was called with."""

    out_channels = 1

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function, self.shapes = function, list[tuple[int, ...]]()

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        self.shapes.append(tuple(x_bchw.shape))
        return self.function(x_bchw).contiguous()


def predictor(function: Callable[[Tensor], Tensor], overlap: float = 0.5) -> Predictor:
    config = DataConfig(size=SIZE, fit="tile", overlap=overlap)
    return Predictor(
        Logits(function), InputPipeline(config, InputScale((0.5,), (0.25,))), 3, jit=False
    )


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


# Where the windows lie


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_windows_cover_the_image_and_share_what_was_asked(
    height: int, width: int, overlap: float
) -> None:
    times = np.zeros((height, width), int)
    placements = place_tiles(height, width, SIZE, "tile", overlap)
    for placement in placements:
        times[visible_part(placement, SIZE)] += 1
        assert (placement.rows, placement.cols) == placement.original == (height, width)
        for start, length in ((placement.top, height), (placement.left, width)):
            # inside the image where it is larger, around its middle where it is smaller
            assert (SIZE - length <= start <= 0) if length > SIZE else start == (SIZE - length) // 2
    assert times.min() >= 1
    tops = sorted({-placement.top for placement in placements})
    shared = [SIZE - (after - before) for before, after in pairwise(tops)]
    assert all(share >= int(SIZE * overlap) for share in shared)
    assert len(placements) == len(set(placements))


def test_an_image_of_the_windows_size_has_one_window() -> None:
    assert place_tiles(SIZE, SIZE, SIZE, "tile", 0.5) == [Placement((SIZE, SIZE), 0, 0, SIZE, SIZE)]
    assert len(place_tiles(SIZE + 1, SIZE, SIZE, "tile", 0.0)) == 2


# No seam


def test_constant_logits_give_a_constant_image() -> None:
    constant = predictor(lambda x: x * 0 + 0.7)
    for p_khw, shape in zip(constant(image(*shape) for shape in SHAPES), SHAPES, strict=True):
        assert p_khw.shape == (1, *shape)
        assert p_khw.dtype == np.float32
        np.testing.assert_allclose(p_khw, sigmoid(0.7), rtol=1e-6)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_a_pixelwise_network_gives_the_same_tiled_and_whole(overlap: float) -> None:
    images = [image(*shape) for shape in SHAPES]
    tiled = predictor(lambda x: x * 3 - 1, overlap)
    for pixels, p_khw in zip(images, tiled(images), strict=True):
        whole = sigmoid((pixels[..., 0] / 255 - 0.5) / 0.25 * 3 - 1)
        np.testing.assert_allclose(p_khw[0], whole, atol=1e-5)


def blurred(x_bchw: Tensor) -> Tensor:
    return Tensor(gaussian_filter(x_bchw.numpy(), (0, 0, 1, 1), mode="constant", radius=2))


def test_what_a_network_guesses_at_an_edge_counts_little() -> None:
    """A blur with zeros beyond the edge, as convolutions have them, is wrong at each window's."""
    pixels = image(48, 32)  # three by two windows without overlap
    (p_khw,) = predictor(blurred)([pixels])
    (apart,) = predictor(blurred, 0.0)([pixels])
    values = (pixels[..., 0] / 255 - 0.5) / 0.25
    whole = sigmoid(gaussian_filter(values, 1, mode="constant", radius=2))
    wrong, without = (np.abs(p[0] - whole).max() for p in (p_khw, apart))
    assert without > 0.05
    assert wrong < without / 20


def test_weights_are_those_of_a_gaussian_with_an_eighth_of_the_side() -> None:
    row, col = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    expected = np.exp(-(row**2 + col**2) / (2 * (SIZE / 8) ** 2))
    np.testing.assert_allclose(gaussian(SIZE), expected, rtol=1e-5)


def test_a_mosaic_is_the_weighted_mean() -> None:
    placements = place_tiles(20, 30, SIZE, "tile", 0.5)
    windows = [RNG.random((2, SIZE, SIZE)).astype(np.float32) for _ in placements]
    mosaic, total, weight = Stitcher(len(placements)), np.zeros((2, 20, 30)), np.zeros((20, 30))
    for window, placement in zip(windows, placements, strict=True):
        mosaic.add(window, placement)
        rows, cols = (
            slice(-placement.top, SIZE - placement.top),
            slice(-placement.left, SIZE - placement.left),
        )
        total[:, rows, cols] += window.astype(float) * gaussian(SIZE)
        weight[rows, cols] += gaussian(SIZE)
    assert mosaic.left == 0
    np.testing.assert_allclose(mosaic.image(), total / weight, atol=1e-6)


# One shape, few windows waiting


def test_windows_of_several_images_share_a_batch_of_one_shape() -> None:
    network = predictor(lambda x: x)
    images = [image(*shape) for shape in SHAPES]
    assert len(list(network(images))) == len(SHAPES)
    count = sum(len(network.input_pipeline.tiles(one)) for one in images)
    assert network.step.model.shapes == [(3, 1, SIZE, SIZE)] * -(-count // 3)


def test_an_image_is_given_before_the_next_but_one_is_read() -> None:
    read: list[int] = []

    def stream() -> Iterator[np.ndarray]:
        for index in range(4):
            read.append(index)
            yield image(40, 40)

    results = predictor(lambda x: x)(stream())
    for index in range(4):
        next(results)
        assert len(read) <= index + 2
