"""Random numbers inside a step, from a key and a counter that are saved as weights are.

A number is a pure function of key, counter and its index (threefry, Salmon et al. 2011): a resumed
run continues with the next numbers, and a jitted step draws the same ones as an eager one.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from tinygrad import Tensor, dtypes

from tinyseg.device.choose import backend
from tinyseg.device.tensors import to_device


def make_key(seed: int) -> Tensor:
    """Return the state (2,) uint32: a seed of 32 bits and a counter."""
    return to_device(np.array([seed, 0], np.uint32)).is_param_(False)


def advance(key: Tensor) -> None:
    """Increment the counter (unrealized); call it once a step, before anything is drawn."""
    # incremented first and read afterwards, so that the order is a data dependency
    key.assign(key + Tensor.arange(2, dtype=dtypes.uint32))


def bits(key: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return `count` numbers of 64 random bits (uint64); each stream has numbers of its own."""
    seed = key[0:1].cast(dtypes.uint64) * 2**32 + key[1:2].cast(dtypes.uint64)
    place = Tensor.arange(count, dtype=dtypes.uint32).cast(dtypes.uint64) + stream * 2**32
    return place.threefry(seed.expand(count))


def normal(key: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return `count` nearly normal numbers of mean 0 and std 1, within 4.9 (unrealized).

    Each is the sum of eight random bytes: 2041 values, excess kurtosis -0.15. That takes one
    threefry and five operations, where logarithm and sine would take a hundred.
    """
    whole = bits(key, count, stream)
    pairs = (whole & 0x00FF00FF00FF00FF) + ((whole >> 8) & 0x00FF00FF00FF00FF)
    total = (pairs * 0x0001000100010001) >> 48
    return (total.cast(dtypes.float32) - 8 * 127.5) * (1 / math.sqrt(8 * (256**2 - 1) / 12))


def uniform(key: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return `count` numbers (in memory), uniform over the multiples of 2^-24 in [0, 1)."""
    whole = bits(key, count, stream) & 0xFFFFFF
    return (whole.cast(dtypes.float32) / 2**24).contiguous().detach()


class TinygradRandom:
    """The seed and counter of tinygrad's own `.dropout()` and `Tensor.rand`, for one step alone.

    tinygrad keeps a seed and a counter per device in a global table, which any other draw changes.
    """

    def __init__(self, seed: int | None = None) -> None:
        """Start at a seed; None: at that of tinygrad."""
        # the first word keeps the step apart from the weights, which tinygrad drew by this seed
        words = [0x57E9, (Tensor._seed if seed is None else seed) % 2**32]
        self.state = {
            "random.seed": to_device(np.array(words, np.uint32)).is_param_(False),
            "random.counter": to_device(np.zeros(2, np.uint32)).is_param_(False),
        }

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let tinygrad draw from this seed and increment this counter (unrealized) meanwhile."""
        usual = Tensor._device_seeds, Tensor._device_rng_counters
        seed, counter = self.state.values()
        Tensor._device_seeds = {seed.device: seed}
        Tensor._device_rng_counters = {seed.device: counter}
        try:
            yield
        finally:
            Tensor._device_seeds, Tensor._device_rng_counters = usual


def tinygrad_random() -> list[Tensor]:
    """Return the seed and the counter that tinygrad uses outside of our steps."""
    device = backend().device
    Tensor._next_counter(device, 0)  # makes them before the first draw
    return [Tensor._device_seeds[device], Tensor._device_rng_counters[device]]
