"""Predict: an array or a file in, an array out."""

import numpy as np

import tinyseg as ts

run = ts.train("sim:cells?n=12&size=32", "a-run", epochs=2, size=32, depth=2)
image = ts.Dataset("sim:cells?n=1&size=40&seed=7")[0]
mask = ts.load_run("a-run").predict(image.image)  # (H, W, C) -> class ids (H, W)
print(mask.shape, np.unique(mask), ts.dice(mask, image.label))
