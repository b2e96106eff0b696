from collections.abc import Iterator

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg.config import DataConfig
from tinyseg.data import InputPipeline, InputScale
from tinyseg.device.tensors import to_device
from tinyseg.inference.predictor import Predictor, to_classes
from tinyseg.models import UNet

RNG = np.random.default_rng(0)
SIZE = 16


def image(height: int = SIZE, width: int = SIZE, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def input_pipeline(mean: float = 0.0, std: float = 1.0) -> InputPipeline:
    return InputPipeline(DataConfig(size=SIZE), InputScale((mean,), (std,)))


class Brightness:
    """A network whose logits are the pixels' mean, so that a result tells its image."""

    out_channels = 1

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        assert not training
        self.batches.append(tuple(x_bchw.shape))
        return x_bchw.mean(axis=(1, 2, 3), keepdim=True).expand(-1, 1, SIZE, SIZE).contiguous()


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    model = UNet(base_channels=2, depth=1)
    return Predictor(model, input_pipeline(0.4, 0.2), batch=3)


# The predictor


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_order_is_kept_and_short_batches_are_filled(count: int, batch: int) -> None:
    model = Brightness()
    predictor = Predictor(model, input_pipeline(), batch, jit=False)
    images = [np.full((10 + i, 8, 1), 30 * i, np.uint8) for i in range(count)]
    found = list(predictor(images))
    assert [p.shape for p in found] == [(1, 10 + i, 8) for i in range(count)]
    for index, p_khw in enumerate(found):
        expected = 1 / (1 + np.exp(-30 * index / 255))
        np.testing.assert_allclose(p_khw, expected, rtol=1e-5)
    assert set(model.batches) <= {(batch, 1, SIZE, SIZE)}
    assert len(model.batches) == -(-count // batch)


def test_images_are_read_a_batch_at_a_time() -> None:
    predictor = Predictor(Brightness(), input_pipeline(), 2, jit=False)
    read: list[int] = []

    def stream() -> Iterator[np.ndarray]:
        for index in range(6):
            read.append(index)
            yield image()

    results = predictor(stream())
    assert read == []
    next(results)
    assert read == [0, 1]
    next(results)
    assert read == [0, 1]
    next(results)
    assert read == [0, 1, 2, 3]


@pytest.mark.slow
def test_an_image_of_the_right_size_meets_the_plain_model(predictor: Predictor) -> None:
    images = [image() for _ in range(4)]
    found = np.stack(list(predictor(images)))
    x = predictor.input_pipeline.to_batch([predictor.input_pipeline.tile(one) for one in images])
    expected = predictor.step.model(to_device(x), training=False).sigmoid().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert found.dtype == np.float32
    assert found.std() > 0.01


def test_mixed_sizes_and_depths_return_at_their_own_size(predictor: Predictor) -> None:
    shapes = [(16, 16), (40, 20), (7, 31), (1, 1), (16, 16)]
    images = [image(*shape) for shape in shapes]
    images[1] = (images[1] / 255).astype(np.float32)
    found = list(predictor(images))
    assert [p.shape[1:] for p in found] == shapes
    assert all(p.min() >= 0 and p.max() <= 1 for p in found)
    # each as if it were alone: neighbours in a batch change nothing
    for one, p_khw in zip(images, found, strict=True):
        np.testing.assert_allclose(next(predictor([one])), p_khw, rtol=1e-4, atol=1e-5)


def test_a_deep_image_is_predicted_as_the_same_8_bit_image(predictor: Predictor) -> None:
    eight = image()
    pair = list(predictor([eight, (eight / 255).astype(np.float32)]))
    np.testing.assert_allclose(pair[0], pair[1], rtol=1e-4, atol=1e-5)


def test_two_calls_give_the_same_bits_and_keep_the_first(predictor: Predictor) -> None:
    images = [image(20, 30) for _ in range(3)]
    first = list(predictor(images))
    kept = [p.copy() for p in first]
    second = list(predictor(images[::-1]))
    for before, after, again in zip(first, kept, second[::-1], strict=True):
        np.testing.assert_array_equal(before, after)
        np.testing.assert_array_equal(before, again)


# Classes


def test_one_channel_is_foreground_from_the_threshold_on() -> None:
    p_khw = np.array([[[0.0, 0.499], [0.5, 1.0]]], np.float32)
    assert to_classes(p_khw).tolist() == [[0, 0], [1, 1]]
    assert to_classes(p_khw, 0.4).tolist() == [[0, 1], [1, 1]]
    assert to_classes(p_khw).dtype == np.uint8


def test_several_channels_give_the_most_probable_class() -> None:
    p_khw = np.array([[[0.2, 0.6]], [[0.5, 0.1]], [[0.3, 0.3]]], np.float32)
    assert to_classes(p_khw).tolist() == [[1, 0]]
    assert to_classes(p_khw, threshold=0.9).tolist() == [[1, 0]]
    assert to_classes(p_khw).dtype == np.uint8
