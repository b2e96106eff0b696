"""Train your own network, built from tinygrad layers."""

from tinygrad import Tensor, nn

import tinyseg as ts


class TwoLayers:
    def __init__(self) -> None:
        self.layers = [nn.Conv2d(3, 8, 3, padding=1), Tensor.relu, nn.Conv2d(8, 1, 3, padding=1)]

    def __call__(self, image: Tensor) -> Tensor:  # (B, C, H, W) -> logits (B, K, H, W)
        return image.sequential(self.layers)


ts.train("sim:cells?n=12&size=32", "own-network", model=TwoLayers(), epochs=2, size=32)
