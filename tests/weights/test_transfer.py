"""From files of other programs into networks: the same logits, and nothing skipped silently."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from weights.formula import numbers

from tinyseg import train
from tinyseg.config import Config, ModelConfig
from tinyseg.data import Dataset, simulate
from tinyseg.device.tensors import to_device
from tinyseg.errors import WeightsError
from tinyseg.inference.run import Run
from tinyseg.models import build
from tinyseg.runs.checkpoint import save
from tinyseg.training.train import _prepare
from tinyseg.training.trainer import NONE, Trainer
from tinyseg.weights import Weights, load_weights, read_weights, table, to_dict, transfer
from tinyseg.weights.settings import settings_of

GOLDENS = Path(__file__).parent / "goldens"
TINY = {"base_channels": 2, "depth": 1, "head": "softmax"}


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight that keeps the size of what passes; a variance is positive."""
    if name.endswith("running_var"):
        return numbers(name, shape, 0.25) + np.float32(0.75)
    if len(shape) == 1:  # of a normalization, which keeps most of its inputs positive
        return numbers(name, shape, 0.3) + np.float32(name.endswith("weight"))
    return numbers(name, shape, (6 / np.prod(shape[1:])) ** 0.5)


def milesial(base: int, channels: int, classes: int, bias: bool = False) -> dict[str, np.ndarray]:
    """All tensors of milesial/Pytorch-UNet (bilinear=False), which has base=64."""
    shapes: dict[str, tuple[int, ...]] = {}

    def double(name: str, inputs: int, outputs: int) -> None:
        for number, width in ((0, inputs), (3, outputs)):
            shapes[f"{name}.double_conv.{number}.weight"] = (outputs, width, 3, 3)
            if bias:
                shapes[f"{name}.double_conv.{number}.bias"] = (outputs,)
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.double_conv.{number + 1}.{part}"] = (outputs,)
            shapes[f"{name}.double_conv.{number + 1}.num_batches_tracked"] = ()

    double("inc", channels, base)
    for n in range(1, 5):
        double(f"down{n}.maxpool_conv.1", base * 2 ** (n - 1), base * 2**n)
    for n in range(1, 5):
        inputs, outputs = base * 2 ** (5 - n), base * 2 ** (4 - n)
        shapes |= {f"up{n}.up.weight": (inputs, outputs, 2, 2), f"up{n}.up.bias": (outputs,)}
        double(f"up{n}.conv", inputs, outputs)
    shapes |= {"outc.conv.weight": (classes, base, 1, 1), "outc.conv.bias": (classes,)}
    return {
        name: value(name, shape) if shape else np.array(5, np.int64)
        for name, shape in shapes.items()
    }


def write(path: Path, tensors: dict[str, np.ndarray]) -> str:
    save(path, tensors, {})
    return str(path)


def load(config: ModelConfig, channels: int, classes: int, seed: int = 0) -> tuple:
    """A network with its weights loaded, and what was said."""
    said: list[str] = []
    model = build(config, channels, classes, seed=seed)
    load_weights(model, config, said.append)
    return model, said


def logits(model, channels: int, size: int) -> np.ndarray:
    return model(to_device(numbers("image", (2, channels, size, size)))).numpy()


@pytest.mark.parametrize("bias", [False, True])
def test_milesial_gives_the_logits_of_pytorch(tmp_path: Path, bias: bool) -> None:
    path = write(tmp_path / "unet_carvana.safetensors", milesial(2, 3, 2, bias))
    assert to_dict(read_weights(path))["layout"] == "milesial/Pytorch-UNet"
    model, said = load(ModelConfig(base_channels=2, head="softmax", weights=path), 3, 2)
    expected = np.load(GOLDENS / "logits.npz")[f"milesial-{bias}"]
    found = logits(model, 3, 16)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert said[0] == f"weights: 100 tensors from {path} (milesial/Pytorch-UNet)"
    assert said[-1] == "weights: not used: 18 counters num_batches_tracked"
    assert len(said) == (3 if bias else 2)
    sigmoid, said = load(ModelConfig(base_channels=2, weights=path), 3, 2)
    assert "as the sigmoid with the same probabilities" in said[1]
    pair, one = (m.state_dict()["head.weight"].numpy() for m in (model, sigmoid))
    np.testing.assert_array_equal(one[0], pair[1] - pair[0])


@pytest.mark.slow
def test_smp_gives_the_logits_of_pytorch(tmp_path: Path) -> None:
    config = ModelConfig(name="unet", encoder="resnet18", head="softmax")
    shapes = {name: t.shape for name, t in build(config, 3, 2, seed=None).state_dict().items()}
    tensors = {f"model.{name}": value(name, shape) for name, shape in shapes.items()}
    path = write(tmp_path / "smp.safetensors", tensors)
    assert "layout   segmentation-models-pytorch, behind model." in table(read_weights(path))
    model, said = load(ModelConfig(encoder="resnet18", head="softmax", weights=path), 3, 2)
    assert said == [f"weights: 152 tensors from {path} (segmentation-models-pytorch)"]
    expected = np.load(GOLDENS / "logits.npz")["smp-unet-resnet18"]
    found = logits(model, 3, 32)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_an_encoder_of_torchvision_leaves_the_decoder_as_it_is(tmp_path: Path) -> None:
    model = build(ModelConfig(encoder="resnet18"), 3, 2, seed=None)
    names = {name: t.shape for name, t in model.state_dict().items()}
    encoder = {n.removeprefix("encoder."): s for n, s in names.items() if n.startswith("encoder.")}
    tensors = {name: value(name, shape) for name, shape in encoder.items()}
    tensors |= {"fc.weight": np.zeros((10, 512), np.float32), "fc.bias": np.zeros(10, np.float32)}
    weights = read_weights(write(tmp_path / "resnet18.safetensors", tensors))
    found = transfer(model, weights)
    assert set(found.arrays) == {name for name in names if name.startswith("encoder.")}
    assert found.unused == ["fc.weight", "fc.bias"]
    assert found.notes == [
        "decoder and head keep their initial values: the file has none",
        "not used: fc.weight, fc.bias",
    ]
    del tensors["layer2.0.downsample.0.weight"]
    weights = read_weights(write(tmp_path / "resnet18.safetensors", tensors))
    with pytest.raises(WeightsError, match=r"missing: encoder\.layer2\.0\.downsample\.0\.weight;"):
        transfer(model, weights)


NETWORKS = (
    ModelConfig(name="unet", encoder="resnet34"),
    ModelConfig(name="unet++", encoder="efficientnet-lite1"),
    ModelConfig(name="fpn", encoder="efficientnet-b2"),
    ModelConfig(name="deeplabv3+", encoder="mobilenet_v2"),
    ModelConfig(name="resunet", base_channels=8, depth=3),
    ModelConfig(base_channels=2, depth=3, upsample="bilinear", norm="none", attention=True),
)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda c: f"{c.name}-{c.encoder}")
def test_the_settings_of_a_file_are_found(config: ModelConfig) -> None:
    state = build(config, 3, 2, seed=None).state_dict()
    tensors = {
        f"model.{name}": np.broadcast_to(np.float32(1), t.shape) for name, t in state.items()
    }
    named = {f.name for f in fields(config) if getattr(config, f.name) != f.default} | {"name"}
    found = dict(text.removeprefix("model.").split("=") for text in settings_of(tensors).split())
    expected = {name: str(getattr(config, name)).lower() for name in named}
    assert found == (
        {k: v for k, v in expected.items() if k != "name"} if config.plain else expected
    )
    back = transfer(build(config, 3, 2, seed=None), Weights(Path("x"), "test", tensors, ()))
    assert len(back.arrays) == len([t for t in state.values() if t.is_floating_point()])
    assert not back.unused


def test_nnunets_copies_of_tensors_are_named_as_such() -> None:
    config = ModelConfig(name="resunet", base_channels=4, depth=2)
    state = build(config, 1, 2, seed=None).state_dict()
    tensors = {name: np.ones(t.shape, np.float32) for name, t in state.items()}
    encoder = {f"decoder.{n}": a for n, a in tensors.items() if n.startswith("encoder.")}
    tensors["encoder.stem.convs.0.all_modules.0.weight"] = tensors[
        "encoder.stem.convs.0.conv.weight"
    ]
    tensors |= {**encoder, "decoder.seg_layers.0.weight": np.ones((2, 8, 1, 1), np.float32)}
    found = transfer(build(config, 1, 2, seed=None), Weights(Path("x"), "test", tensors, ()))
    assert found.notes == [
        "not used: decoder.seg_layers.0.weight",
        f"not used: {len(encoder) + 1} further names of the same tensors",
    ]


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Weights of our own small network for 3 channels and 3 classes."""
    model = build(ModelConfig(**TINY), 3, 3, seed=1)
    tensors = {f"model.{name}": t.numpy() for name, t in model.state_dict().items()}
    tensors["optimizer.lr"] = np.ones(1, np.float32)
    return write(tmp_path / "best.safetensors", tensors), tensors


def test_our_own_checkpoint_other_channels_and_another_head(own: tuple) -> None:
    path, tensors = own
    first = tensors["model.down.0.conv1.weight"]
    model, said = load(ModelConfig(**TINY, weights=path), 1, 3)
    assert said == [
        f"weights: 34 tensors from {path} (tinyseg)",
        "weights: first convolution: weights of 3 channels are summed into 1",
        "weights: not used: optimizer.lr",
    ]
    state = model.state_dict()
    np.testing.assert_array_equal(state["down.0.conv1.weight"].numpy(), first.sum(1, keepdims=True))
    model, said = load(ModelConfig(**TINY, weights=path), 5, 4)
    assert "repeated over 5, times 3/5" in said[1]
    assert said[2] == ("weights: head: 3 channels in the file, 4 here: it keeps its initial values")
    state, fresh = model.state_dict(), build(ModelConfig(**TINY), 5, 4).state_dict()
    np.testing.assert_allclose(
        state["down.0.conv1.weight"].numpy(), first[:, [0, 1, 2, 0, 1]] * 0.6, rtol=1e-6
    )
    np.testing.assert_array_equal(state["head.weight"].numpy(), fresh["head.weight"].numpy())


def test_a_file_that_does_not_fit_is_an_error_that_lists_names(own: tuple) -> None:
    path, _ = own
    deep = {**TINY, "depth": 2}
    with pytest.raises(WeightsError, match=r"missing: down\.2\.conv1\.weight, .* and \d+ more; of"):
        load(ModelConfig(**deep, weights=path), 3, 3)
    with pytest.raises(
        WeightsError, match=r"model\.down\.0\.conv1\.weight is 2x3x3x3, not 4x3x3x3"
    ):
        load(ModelConfig(**{**TINY, "base_channels": 4}, weights=path), 3, 3)
    with pytest.raises(WeightsError, match=r"; it is of a network with model\.base_channels=2 mod"):
        load(ModelConfig(encoder="resnet18", weights=path), 3, 3)


def test_a_run_starts_from_the_weights_and_a_wrong_file_leaves_no_folder(
    own: tuple, tmp_path: Path
) -> None:
    path, tensors = own
    samples = simulate("cells", 8, 32, 0)
    data = [s.image for s in samples], [s.label for s in samples]
    settings = {"size": 32, "base_channels": 2, "depth": 1, "weights": path}
    config = Config().with_settings(**settings)
    start = _prepare(data, config, NONE)
    said: list[str] = []
    trainer = Trainer(Run.create(tmp_path / "run", *start), start[1], said.append)
    assert f"weights: 32 tensors from {path} (tinyseg)" in said
    np.testing.assert_array_equal(
        trainer.state["model.down.1.conv2.weight"].numpy(), tensors["model.down.1.conv2.weight"]
    )
    with pytest.raises(WeightsError, match="no such file"):
        train(data, tmp_path / "other", **{**settings, "weights": "none.pth"})
    assert not (tmp_path / "other").exists()
    assert isinstance(start[1], Dataset)
