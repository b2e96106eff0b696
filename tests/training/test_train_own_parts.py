"""Training with a user's own network, loss, optimizer and arrays; resumed bit for bit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, nn
from tinygrad.nn.state import get_parameters

from tinyseg.common.arrays import Array
from tinyseg.config import Config
from tinyseg.data import Dataset
from tinyseg.errors import ConfigError, RunError
from tinyseg.inference.run import Run, load_run
from tinyseg.losses import bce
from tinyseg.runs import checkpoint
from tinyseg.training.overfit import overfit
from tinyseg.training.train import train

RNG = np.random.default_rng(0)
MASKS = [np.kron(RNG.integers(0, 2, (4, 4)), np.ones((4, 4))).astype(np.uint8) for _ in range(6)]
IMAGES = [(100 * mask + RNG.integers(0, 80, mask.shape)).astype(np.uint8) for mask in MASKS]
ARRAYS = (IMAGES, MASKS)
SETTINGS: dict[str, Any] = {"size": 16, "batch_size": 2, "base_channels": 2, "depth": 1}


def silent(text: str) -> None:
    pass


class Net:
    """A network of tinygrad's layers that draws (dropout) and keeps statistics."""

    def __init__(self, out_channels: int = 1) -> None:
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm(4)
        self.head = nn.Conv2d(4, out_channels, 1)

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x_bchw)).relu().dropout(0.3))


def noise(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    return image + 0.1 * Tensor.rand(*image.shape), label


def own_loss(logits: Tensor, label: Tensor) -> Tensor:
    return bce(logits, label) + 0.01 * logits.square().mean()


def own_parts(seed: int = 0) -> dict[str, Any]:
    Tensor.manual_seed(seed)
    model = Net()
    optimizer = nn.optim.Adam(get_parameters(model), lr=0.01)
    return {"model": model, "loss": own_loss, "optimizer": optimizer, "augment": noise}


def tensors_of(run: Run) -> dict[str, Array]:
    return checkpoint.load(run.checkpoints / "last.safetensors")[0]


def stop_after(epoch: int) -> Any:
    return lambda record: record["epoch"] == epoch


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three epochs with all parts of the user's."""
    out = tmp_path_factory.mktemp("own") / "run"
    return train(ARRAYS, out, **own_parts(), **SETTINGS, epochs=3, say=silent)


@pytest.mark.slow
def test_a_run_of_a_users_own_parts_resumes_bit_for_bit_when_they_are_passed_again(
    run: Run, tmp_path: Path
) -> None:
    stopped: dict[str, Any] = {"callbacks": [stop_after(1)], "epochs": 3, "say": silent}
    train(ARRAYS, tmp_path / "run", **own_parts(), **SETTINGS, **stopped)
    assert load_run(tmp_path / "run", Net()).position()[0] == 1
    with pytest.raises(RunError, match="pass it again to resume, loss=own_loss, optimizer=Adam"):
        train(ARRAYS, tmp_path / "run", model=Net(), augment=noise, resume=True, say=silent)
    again = own_parts(seed=5)  # the weights that it is made with do not matter
    resumed = train(ARRAYS, tmp_path / "run", **again, resume=True, say=silent)
    wanted = tensors_of(run)
    assert {name.partition(".")[0] for name in wanted} == {"model", "optimizer", "loss", "random"}
    assert tensors_of(resumed).keys() == wanted.keys()
    for name, array in tensors_of(resumed).items():
        np.testing.assert_array_equal(array, wanted[name], err_msg=name)
    assert resumed.scores == run.scores


@pytest.mark.slow
def test_a_run_says_which_parts_are_not_in_its_folder(run: Run) -> None:
    table = json.loads((run.folder / "run.json").read_text())
    assert table["custom"] == {
        **{"model": "Net", "loss": "own_loss", "optimizer": "Adam", "augment": "noise"}
    }
    assert run.config.model.head == "sigmoid"
    with pytest.raises(RunError, match="the network Net, which is not in the folder"):
        load_run(run.folder)
    mask = load_run(run.folder, Net()).predict(IMAGES[0])
    assert (mask.shape, mask.dtype) == ((16, 16), np.uint8)
    np.testing.assert_array_equal(mask, run.predict(IMAGES[0]))


@pytest.mark.slow
def test_scores_are_those_of_the_best_epoch_and_callbacks_get_the_numbers(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    dataset = Dataset.from_arrays(*ARRAYS, size=16)
    run = train(
        dataset, tmp_path, batch_size=2, base_channels=2, depth=1, epochs=2, loss="dice",
        callbacks=[records.append], say=silent,
    )  # fmt: skip
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["step"] for record in records] == [3, 6]
    assert all("loss" in record["train"] for record in records)
    dice = [record["val"]["pooled"]["dice"]["mean"] for record in records]
    assert run.scores["dice"] == max(dice)
    assert (run.config.train.loss, run.config.data.size) == ("dice", 16)
    assert run.facts.custom == {}
    with pytest.raises(RunError, match="started without loss=own_loss: omit it"):
        train(dataset, tmp_path, loss=own_loss, resume=True, say=silent)


def test_a_setting_has_the_same_error_by_keyword_as_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="epoch"):
        train(ARRAYS, tmp_path / "run", epoch=3, say=silent)
    with pytest.raises(ConfigError, match=r"train\.epochs=0 cannot be used"):
        train(ARRAYS, tmp_path / "run", epochs=0, say=silent)
    with pytest.raises(ConfigError, match=r"train\.phases has others"):
        train(ARRAYS, tmp_path / "run", loss=own_loss, phases="bce: 2 epochs", say=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("channels", "head", "said"),
    [
        (3, "auto", r"Net gives 3 channels .* has 2 classes: give 2 \(softmax\) or 1 \(sigmoid\)"),
        (2, "sigmoid", r"model\.head='sigmoid' does not fit Net, which gives 2 channels"),
    ],
)
def test_a_network_with_the_wrong_number_of_channels_is_refused(
    channels: int, head: str, said: str, tmp_path: Path
) -> None:
    config = Config().with_settings(size=16, batch_size=2, head=head)
    with pytest.raises(ConfigError, match=said):
        train(ARRAYS, tmp_path / "run", config=config, model=Net(channels), say=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_pipeline_is_passed_again_to_resume(tmp_path: Path) -> None:
    def flip(image: Array, label: Array) -> tuple[Array, Array]:
        return image[::-1], label[::-1]

    train(ARRAYS, tmp_path, pipeline=flip, **SETTINGS, loss="dice", epochs=1, say=silent)
    with pytest.raises(RunError, match="pass it again to resume, pipeline=flip"):
        train(ARRAYS, tmp_path, resume=True, epochs=2, say=silent)
    train(ARRAYS, tmp_path, pipeline=flip, resume=True, epochs=2, say=silent)


def test_overfit_takes_an_own_network_and_an_own_loss() -> None:
    calls: list[tuple[int, ...]] = []

    class OneLayer:
        def __init__(self) -> None:
            self.layer = nn.Conv2d(3, 1, 1)

        def __call__(self, image: Tensor) -> Tensor:
            return self.layer(image)

    def error(logits: Tensor, label: Tensor) -> Tensor:
        calls.append(tuple(map(int, logits.shape)))
        return (logits.squeeze(1) - label).square().mean()

    model = OneLayer()
    before = model.layer.weight.numpy().copy()
    result = overfit("sim:cells?n=4&size=16", 2, steps=3, size=16, model=model, loss=error)
    assert (result.steps, calls[0]) == (3, (2, 1, 16, 16))
    assert not np.array_equal(model.layer.weight.numpy(), before)
