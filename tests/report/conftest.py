"""Two runs on images with hostile names, whose networks are known functions."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import Page, find
from PIL import Image
from scipy.ndimage import gaussian_filter

from tinyseg.config import Config
from tinyseg.data import Dataset, InputScale, Split
from tinyseg.inference.run import Run
from tinyseg.runs.metrics_log import MetricsLog

NAMES = (
    "<script>window.hacked=1<",
    "<img src=x onerror=window.hacked=1>",
    '"&amp; \u2028 [[SCRIPT]] é',
    *(f"plain {index}" for index in range(7)),
)


class KnownNetwork:
    """Probabilities that are the image's first channel, blurred and shifted by `bias`."""

    def __init__(self, channels: int, bias: float):
        self.channels, self.bias = channels, bias

    def __call__(self, images: Iterable[np.ndarray], watch: object = None) -> Iterator[np.ndarray]:
        for image in images:
            grey = gaussian_filter(image[..., 0] / 255.0, 2) + self.bias
            own = grey.clip(0, 1).astype(np.float32)
            if self.channels == 1:
                yield own[None]
            else:
                rest = (1 - own) / 2
                yield np.stack([rest, own * 0.7, own * 0.3 + rest])


def write_images(folder: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, name in enumerate(NAMES):
        shape = (300, 200) if index == 4 else (48, 64)
        field = gaussian_filter(rng.normal(size=shape), 4)
        label = np.digitize(field, [0.05, 0.12][: classes - 1])
        if index == 5:
            label[:] = 0
        image = 90 + 90 * (label > 0) + rng.normal(scale=25, size=shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        values = np.array([0, 255] if classes == 2 else [0, 100, 200], np.uint8)
        Image.fromarray(values[label]).save(folder / "masks" / f"{name}.png")


def make_run(folder: Path, data: Path, classes: int, bias: float, *settings: str) -> Run:
    """A run that has trained for four epochs; "plain 6" is its training image."""
    config = Config().override(list(settings))
    dataset = Dataset(data, config.data)
    val = tuple(name for name in dataset.names if name != "plain 6")
    split = Split(("plain 6",), val)
    run = Run.create(folder, config, dataset, split, InputScale((0.0,), (1.0,)))
    log = MetricsLog(run.log)
    for epoch in range(1, 5):
        dice = {"mean": 0.1 * epoch + (bias if epoch > 2 else 0), "classes": [0.9, 0.1 * epoch]}
        train = {"loss": 1 / epoch, "train_dice": 0.2 * epoch, "seconds": 1 + bias}
        pooled = {"dice": dice, "iou": {"mean": 0.1, "classes": [0.1, 0.1]}}
        log.write("epoch", epoch, epoch=epoch, train=train, val={"pooled": pooled})
    run._stored_threshold = 0.5
    run.predictor = KnownNetwork(1 if classes == 2 else classes, bias)
    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("two")
    write_images(root / "data", 2)
    return [
        make_run(root / "one <b>", root / "data", 2, 0.0, "train.threshold=0.4"),
        make_run(
            root / "other",
            root / "data",
            2,
            0.05,
            "train.threshold=0.5",
            "model.base_channels=8",
            "data.groups=<i>",
        ),
    ]


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("three")
    write_images(root / "data", 3)
    return make_run(root / "run", root / "data", 3, 0.0)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser's page; without a browser the tests skip."""
    program = find()
    if program is None:
        pytest.skip("no Chromium is installed")
    page = Page(program, tmp_path_factory.mktemp("browser"))
    yield page
    page.close()
