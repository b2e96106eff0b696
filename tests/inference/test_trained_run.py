"""A trained network with its folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tinygrad import Tensor

import tinyseg
from tinyseg.config import Config
from tinyseg.data import Dataset, InputScale
from tinyseg.device.tensors import to_device
from tinyseg.errors import DataError, RunError
from tinyseg.inference.run import Run, load_run, load_runs
from tinyseg.runs import checkpoint

PIXELS = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)


class MyNet:
    """A network of a user: foreground where an image is brighter than its bias."""

    out_channels = 1

    def __init__(self, bias: float = 0.0) -> None:
        self.bias = to_device(np.array([bias], np.float32))

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return (x_bchw[:, :1] - self.bias) * 100


def make_run(folder: Path, custom: dict[str, str] | None = None, bias: float = 0.45) -> Run:
    dataset = Dataset("sim:cells?n=4&size=16", Config().data)
    config = Config().override(["data.size=16", "train.batch_size=1"])
    scale = InputScale((0.0,) * 3, (1.0,) * 3)
    run = Run.create(folder, config, dataset, dataset.split, scale, custom)
    (folder / "checkpoints").mkdir()
    weights = {"model.bias": np.array([bias], np.float32)}
    checkpoint.save(folder / "checkpoints/last.safetensors", weights, {})
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", {"model": "MyNet"}).folder


def test_arrays_and_files_are_predicted_alike(folder: Path, tmp_path: Path) -> None:
    run = tinyseg.load_run(folder, model=MyNet())
    wanted = (PIXELS / 255 >= 0.45).astype(np.uint8)
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    deep = PIXELS.astype(np.uint16) * 257
    color = np.repeat(PIXELS[..., None], 3, axis=2)
    for image in (PIXELS, PIXELS[..., None], color, PIXELS / 255, deep, tmp_path / "image.png"):
        classes = run.predict(image)
        assert classes.dtype == np.uint8
        np.testing.assert_array_equal(classes, wanted)
    assert run.probabilities(str(tmp_path / "image.png")).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (PIXELS.astype(float), "floats must be from 0 to 1"),
        (PIXELS.astype(int), "the image is int64"),
        (PIXELS[0], r"the image has the shape \(3,\)"),
        ("nothing.png", "nothing.png"),
    ],
)
def test_what_is_no_image_is_refused(folder: Path, image: Any, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        load_run(folder, MyNet()).predict(image)


def test_a_network_of_the_user_must_be_passed_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"network MyNet, .* pass it again, as load_run\(.*MyNet"):
        load_run(folder)
    model = MyNet(0.3)
    np.testing.assert_array_equal(load_run(folder, model).predict(PIXELS), PIXELS / 255 >= 0.45)
    assert model.bias.item() == np.float32(0.3)  # predictions are made by a copy
    own = make_run(tmp_path / "own")
    with pytest.raises(RunError, match="trained with a network of tinyseg: omit model"):
        load_run(own.folder, MyNet())


def test_each_fold_has_its_own_weights_in_one_network_of_the_user(tmp_path: Path) -> None:
    for fold, bias in enumerate((0.25, 0.75)):
        run = make_run(tmp_path / "folds" / f"fold-{fold}", {"model": "MyNet"}, bias=bias)
        run.set_config(run.config.override(["data.folds=2"]))
    runs = load_runs(tmp_path / "folds", MyNet())
    for _ in range(2):
        assert [run.predict(np.full((2, 3), 0.5)).sum() for run in runs] == [6, 0]


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    class Other(MyNet):
        def __init__(self) -> None:
            self.weight = to_device(np.ones(1, np.float32))

    with pytest.raises(RunError, match=r"model\.weight is missing"):
        load_run(folder, Other()).predict(PIXELS)


def test_a_damaged_post_processing_is_told(folder: Path) -> None:
    run = load_run(folder, MyNet())
    run.update_facts(postprocess="smallest")
    with pytest.raises(RunError, match=r"run\.json: damaged \(.*smallest.*\); train again"):
        load_run(folder, MyNet())
