"""A jitted function that captures at its first call."""

import numpy as np
from tinygrad import Tensor

from tinyseg.device.capture import JitFunction
from tinyseg.device.tensors import to_device


def test_jitted_captures_at_its_first_call() -> None:
    calls: list[int] = []

    def double(tensor: Tensor) -> Tensor:
        calls.append(1)
        return (tensor * 2).realize()

    step = JitFunction(double)
    found = [step(to_device(np.array([value], np.float32))).numpy().tolist() for value in range(4)]
    assert found == [[0], [2], [4], [6]]
    assert len(calls) == 1
