"""Order the training images of an epoch."""

import numpy as np

from tinyseg.errors import DataError


def epoch_order(count: int, batch: int, seed: int, epoch: int) -> np.ndarray:
    """Return the indices (steps, batch) of one epoch, a pure function of the arguments.

    Every image appears at least once; the last batch is filled from the start of the same order.
    DataError when there are fewer images than one batch holds.
    """
    if count < batch:
        raise DataError(
            f"{count} training samples are fewer than a batch of {batch}; "
            f"set batch_size={max(count, 1)} or add images"
        )
    # Sorting uniform numbers instead of `permutation`: that stream may change between releases.
    keys = np.random.Generator(np.random.PCG64([seed, epoch])).random(count)
    order = np.argsort(keys, kind="stable")
    steps = -(-count // batch)
    return np.resize(order, (steps, batch))
