"""TinyJit's silent lock, as a user meets it, and that ours is immune: journal/2026-11-20."""

from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, TinyJit

from tinyseg.device.tensors import to_device
from tinyseg.training.step import GuardedJit

VALUES = np.arange(10, dtype=np.float32).reshape(5, 2)
RIGHT = [value * 2 for value in VALUES[:, 0]]


def twice(x: Tensor) -> Tensor:
    return (x * 2)[0, :1].contiguous().realize()


def by_index(data: Tensor) -> list[float]:
    step = TinyJit(lambda index: twice(data[index : index + 1]))
    return [step(index).item() for index in range(5)]


def by_slice(data: Tensor) -> list[float]:
    step = TinyJit(twice)
    return [step(data[index : index + 1].contiguous()).item() for index in range(5)]


@pytest.mark.parametrize("way", [by_index, by_slice])
def test_plain_tinygrad_repeats_the_second_image(way: Any) -> None:
    """Should this fail, tinygrad was mended, and the clone at our door may go."""
    assert way(to_device(VALUES)) == [RIGHT[0], *[RIGHT[1]] * 4]


def test_ours_takes_every_image() -> None:
    data = to_device(VALUES)
    step = GuardedJit(lambda x: (x * 2)[0, :1].contiguous(), {}, (lambda array: array + 1,))
    slices = [data[index : index + 1].contiguous() for index in range(5)]
    assert [step(x).item() for x in slices] == RIGHT
    assert [step(x.realize()).item() for x in reversed(slices)] == RIGHT[::-1]
    assert [step(data[index : index + 1]).item() for index in range(5)] == RIGHT
