"""Images of any size to probabilities: the one way of validation, evaluation and prediction."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.data import InputPipeline, Tile, Tiles
from tinyseg.device.tensors import to_device
from tinyseg.errors import NonFiniteError
from tinyseg.inference.step import PredictStep
from tinyseg.inference.stitching import Stitcher

Item = TypeVar("Item")


class Predictor:
    """Probabilities at the original size of each image, computed at one compiled shape."""

    def __init__(self, model: Any, input_pipeline: InputPipeline, batch: int = 4, jit: bool = True):
        self.input_pipeline, self.batch = input_pipeline, batch
        self.step = PredictStep(model, jit=jit)

    def __call__(
        self, images: Iterable[Array], monitor: Callable[[Array], None] | None = None
    ) -> Iterator[Array]:
        """Yield the probabilities (K, H, W) float32 of each image (H, W, C), read by the batch.

        `monitor` is called with the network input of one tile (1, C, S, S) of each image.
        """
        return self.predict_tiles(self._tiles(images, monitor))

    def _tiles(
        self, images: Iterable[Array], monitor: Callable[[Array], None] | None
    ) -> Iterator[Tiles]:
        for image in images:
            tiles = self.input_pipeline.tiles(image)
            if monitor:
                monitor(self.input_pipeline.to_batch([tiles.middle]))
            yield tiles

    def predict_tiles(self, images: Iterable[Tiles | Sequence[Tile]]) -> Iterator[Array]:
        """The same for prepared images, each as the tiles that show it.

        A batch holds tiles of several images where they are few.
        """
        begun: deque[Stitcher] = deque()
        waiting: list[tuple[Stitcher, Tile]] = []
        for image in images:
            begun.append(Stitcher(len(image)))
            for tile in image:
                waiting.append((begun[-1], tile))
                if len(waiting) == self.batch:
                    self._run(waiting)
                    waiting = []
                    while begun and not begun[0].left:
                        yield begun.popleft().image()
        if waiting:
            self._run(waiting)
        yield from (stitcher.image() for stitcher in begun)

    def from_tiles(
        self, prepared: Iterable[Tiles | Sequence[Tile]]
    ) -> Callable[[Iterable[Array]], Iterator[Array]]:
        """Return a function of images that uses tiles prepared before, an image's each."""

        def predict(images: Iterable[Array]) -> Iterator[Array]:
            return self.predict_tiles(tiles for _, tiles in zip(images, prepared, strict=True))

        return predict

    def _run(self, waiting: Sequence[tuple[Stitcher, Tile]]) -> None:
        tiles = [tile for _, tile in waiting]
        # the compiled shape is kept: a short batch is filled with its own first image
        full = tiles + tiles[:1] * (self.batch - len(tiles))
        x_bchw = self.input_pipeline.to_batch(full)
        p_bkhw = self.step(to_device(x_bchw)).numpy()
        if not np.isfinite(p_bkhw).all():
            raise NonFiniteError(
                "the network's output is not finite: its weights are too large, or an image "
                "contains NaN; train again with a lower learning rate, train.grad_clip=1 or, if "
                "float16, train.precision=bfloat16"
            )
        for p_khw, (stitcher, tile) in zip(p_bkhw, waiting, strict=False):
            stitcher.add(p_khw, tile.placement)


def predict_each(
    predict: Callable[[Iterable[Array]], Iterator[Array]], pairs: Iterable[tuple[Item, Array]]
) -> Iterator[tuple[Item, Array]]:
    """Yield each item with the probabilities of its image, reading as `predict` asks for images."""
    waiting: deque[Item] = deque()

    def images() -> Iterator[Array]:
        for item, image in pairs:
            waiting.append(item)
            yield image

    for p_khw in predict(images()):
        yield waiting.popleft(), p_khw


def to_classes(p_khw: Array, threshold: float = 0.5) -> Array:
    """Return class ids (H, W) uint8: probability >= threshold (K = 1), or the most probable."""
    if p_khw.shape[0] == 1:
        return np.asarray(p_khw[0] >= threshold).astype(np.uint8)
    return np.asarray(p_khw.argmax(axis=0)).astype(np.uint8)
