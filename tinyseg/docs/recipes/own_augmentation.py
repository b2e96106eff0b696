"""Augment with any function of image and label, and test that it keeps them aligned."""

import numpy as np

import tinyseg as ts
from tinyseg.augment import alignment


def turn(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.rot90(image).copy(), np.rot90(label).copy()  # (H, W, C), (H, W)


print(alignment(turn))  # applies it to a checkerboard as image and label
ts.train("sim:cells?n=12&size=32", "own-aug", pipeline=turn, epochs=1, size=32, depth=2)
