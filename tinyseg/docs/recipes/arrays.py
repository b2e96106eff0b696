"""Train on NumPy arrays."""

import numpy as np

import tinyseg as ts

rng = np.random.default_rng(0)
masks = [np.kron(rng.integers(0, 2, (4, 4)), np.ones((8, 8), int)) for _ in range(12)]  # (H, W)
images = [(100 * mask + rng.integers(0, 80, mask.shape)).astype(np.uint8) for mask in masks]
run = ts.train((images, masks), "from-arrays", epochs=4, size=32, depth=2)
print(run.scores["dice"])
