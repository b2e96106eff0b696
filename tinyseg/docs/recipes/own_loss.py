"""Train with your own loss: any function of logits and label that returns a scalar."""

from tinygrad import Tensor

import tinyseg as ts


def squared_error(logits: Tensor, label: Tensor) -> Tensor:  # (B, 1, H, W), (B, H, W)
    valid = label != 255  # 255 means: ignore this pixel
    error = (logits.squeeze(1).sigmoid() - label).square()
    return (error * valid).sum() / valid.sum()


ts.train("sim:cells?n=12&size=32", "own-loss", loss=squared_error, epochs=2, size=32, depth=2)
