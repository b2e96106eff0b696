import numpy as np
import pytest

from tinyseg.data import epoch_order
from tinyseg.errors import DataError


@pytest.mark.parametrize(("count", "batch"), [(4, 4), (10, 4), (7, 3), (64, 1), (5, 4)])
def test_every_image_once_and_the_last_batch_filled_from_the_start(count, batch):
    order = epoch_order(count, batch, seed=3, epoch=2)
    flat = order.ravel()
    assert order.shape == (-(-count // batch), batch)
    assert sorted(flat[:count]) == list(range(count))
    np.testing.assert_array_equal(flat[count:], flat[: flat.size - count])


def test_pure_function_of_seed_and_epoch():
    np.testing.assert_array_equal(epoch_order(50, 4, 1, 7), epoch_order(50, 4, 1, 7))
    others = [epoch_order(50, 4, *key).tolist() for key in ((1, 7), (1, 8), (2, 7), (7, 1))]
    assert all(a != b for i, a in enumerate(others) for b in others[:i])


def test_the_order_is_the_same_on_every_machine():
    assert epoch_order(8, 4, 0, 0).tolist() == [[3, 2, 1, 6], [0, 7, 4, 5]]


def test_places_are_uniform():
    places = np.array([epoch_order(8, 8, 0, epoch)[0].tolist().index(0) for epoch in range(800)])
    assert np.bincount(places, minlength=8).min() > 60


def test_fewer_samples_than_a_batch():
    with pytest.raises(DataError, match=r"3 .* fewer than a batch of 4; set batch_size=3"):
        epoch_order(3, 4, 0, 0)
