"""Filtering along rows and columns: kernel and plain operations against float64 NumPy."""

import numpy as np
import pytest

from tinyseg import kernels
from tinyseg.device.tensors import to_device
from tinyseg.kernels import plans


def expected(image: np.ndarray, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The filters as matrices (B, H, H) and (B, W, W), applied from both sides."""
    matrices = []
    for weights in (down.astype(np.float64), right.astype(np.float64)):
        batch, taps, size = weights.shape
        matrix = np.zeros((batch, size, size))
        for tap in range(taps):
            for place in range(size):
                source = place + tap - taps // 2
                if 0 <= source < size:
                    matrix[:, place, source] = weights[:, tap, place]
        matrices.append(matrix)
    return np.einsum(
        "bij,bcjk,blk->bcil", matrices[0], image.astype(np.float64), matrices[1], optimize=True
    )


@pytest.mark.parametrize("way", ["kernel", "plain"])
@pytest.mark.parametrize("shape", [(2, 3, 9, 37), (4, 1, 70, 66), (1, 1, 5, 5)], ids=str)
@pytest.mark.parametrize("taps", [1, 3, 9])
def test_images_match_matrix_products(
    way: str, shape: tuple[int, ...], taps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "plain":
        monkeypatch.setattr(plans, "overridden", "plain")
    rng = np.random.default_rng(taps)
    image = rng.standard_normal(shape).astype(np.float32)
    weights = []
    for size in shape[2:]:
        weight = rng.standard_normal((shape[0], taps, size)).astype(np.float32)
        source = np.arange(size) + np.arange(taps)[:, None] - taps // 2
        weights.append(weight * ((source >= 0) & (source < size)))
    for _ in range(2):  # the scratch of the first run must not reach into the second
        got = kernels.smooth(to_device(image), *map(to_device, weights)).numpy()
        np.testing.assert_allclose(got, expected(image, *weights), atol=3e-6 * taps**2)


def test_weights_that_do_not_fit_are_refused() -> None:
    image = to_device(np.zeros((1, 1, 4, 6), np.float32))
    four, six = (to_device(np.zeros((1, 3, n), np.float32)) for n in (4, 6))
    with pytest.raises(ValueError, match="do not fit"):
        kernels.smooth(image, six, four)
    even = to_device(np.zeros((1, 2, 4), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        kernels.smooth(image, even, six)
