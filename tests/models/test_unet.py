import itertools

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg.config import ModelConfig
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import ConfigError
from tinyseg.models import UNet, build
from tinyseg.nn import parameters

UPS = ("transpose", "bilinear", "nearest")
NORMS = ("batch", "group", "instance", "none")


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def logits(model: UNet, x: np.ndarray, training: bool = False) -> np.ndarray:
    return model(to_device(x), training).numpy()


@pytest.fixture(scope="module")
def small() -> UNet:
    return UNet(base_channels=2, depth=1)


@pytest.fixture(scope="module")
def settled() -> UNet:
    """A network whose running statistics are not those of the beginning."""
    model = UNet(base_channels=2, depth=1, seed=3)
    draw = np.random.default_rng(0)
    for name, tensor in model.state_dict().items():
        if "running" in name:
            copy_(tensor, draw.uniform(0.5, 1.5, tensor.shape).astype(np.float32))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("size", [(15, 10), (1, 1), (2, 7)])
def test_any_size_gives_logits_of_that_size(small: UNet, size: tuple[int, int]) -> None:
    found = logits(small, images(1, 1, *size))
    assert found.shape == (1, 1, *size)
    assert np.isfinite(found).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3, 3), (17, 10)])
def test_sizes_below_and_beside_the_multiple_of_a_deep_network(size: tuple[int, int]) -> None:
    model = UNet(in_channels=3, out_channels=4, base_channels=1, depth=3)
    assert logits(model, images(2, 3, *size)).shape == (2, 4, *size)


@pytest.mark.slow
def test_an_odd_size_is_the_padded_image_cut(small: UNet) -> None:
    x = images(1, 1, 5, 7)
    padded = np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)])
    np.testing.assert_allclose(
        logits(small, x), logits(small, padded)[:, :, :5, :7], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("up", "norm"),
    [
        ("transpose", "batch"),
        ("bilinear", "group"),
        ("nearest", "instance"),
        ("transpose", "none"),
    ],
)
def test_every_kind_of_layer_learns_with_every_weight(up: str, norm: str) -> None:
    """Each trained weight has a finite gradient, and none is cut off from the loss."""
    attention = norm in ("group", "none")
    model = UNet(
        2, 3, base_channels=2, depth=1, upsample=up, norm=norm, attention=attention, dropout=0.25
    )
    trained = parameters(model.state_dict())
    loss = (
        model(to_device(images(1, 2, 8, 8)), training=True) * to_device(images(1, 3, 8, 8))
    ).sum()
    found = loss.gradient(*trained.values())
    total = Tensor.stack(*(gradient.abs().sum() for gradient in found)).numpy()
    assert np.isfinite(total).all()
    dead = [name for name, size in zip(trained, total, strict=True) if size == 0]
    assert not dead


@pytest.mark.parametrize(
    ("up", "norm", "attention"), [*itertools.product(UPS, NORMS, (False, True))]
)
def test_every_combination_builds(up: str, norm: str, attention: bool) -> None:
    names = UNet(
        3, 2, base_channels=2, depth=2, upsample=up, norm=norm, attention=attention
    ).state_dict()
    assert ("up.1.attention.gate.weight" in names) is attention
    assert ("down.2.norm2.running_var" in names) is (norm == "batch")
    assert ("down.2.norm2.weight" in names) is (norm != "none")
    assert names["up.0.up.weight"].shape == ((8, 4, 2, 2) if up == "transpose" else (4, 8, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("up", "norm"), [*itertools.product(UPS, NORMS)])
def test_every_combination_predicts(up: str, norm: str) -> None:
    attention = (UPS.index(up) + NORMS.index(norm)) % 2 == 0  # with and without for each
    model = UNet(
        3, 2, base_channels=2, depth=1, upsample=up, norm=norm, attention=attention, dropout=0.5
    )
    found = logits(model, images(1, 3, 4, 6))
    assert found.shape == (1, 2, 4, 6)
    assert np.isfinite(found).all()
    assert found.std() > 0


def test_names_and_shapes_are_pytorchs() -> None:
    shapes = {
        name: tensor.shape
        for name, tensor in UNet(3, 2, base_channels=4, depth=2).state_dict().items()
    }
    kept = {name: shape for name, shape in shapes.items() if "norm" not in name}
    assert kept == {
        "down.0.conv1.weight": (4, 3, 3, 3),
        "down.0.conv2.weight": (4, 4, 3, 3),
        "down.1.conv1.weight": (8, 4, 3, 3),
        "down.1.conv2.weight": (8, 8, 3, 3),
        "down.2.conv1.weight": (16, 8, 3, 3),
        "down.2.conv2.weight": (16, 16, 3, 3),
        # transposed: in, out, rows, columns
        "up.0.up.weight": (16, 8, 2, 2),
        "up.0.up.bias": (8,),
        "up.0.conv.conv1.weight": (8, 16, 3, 3),
        "up.0.conv.conv2.weight": (8, 8, 3, 3),
        "up.1.up.weight": (8, 4, 2, 2),
        "up.1.up.bias": (4,),
        "up.1.conv.conv1.weight": (4, 8, 3, 3),
        "up.1.conv.conv2.weight": (4, 4, 3, 3),
        "head.weight": (2, 4, 1, 1),
        "head.bias": (2,),
    }
    norms = {name.rsplit(".", 1)[-1] for name in shapes if "norm" in name}
    assert norms == {"weight", "bias", "running_mean", "running_var"}


def test_the_weights_alone_decide_the_output(small: UNet) -> None:
    """A state dict copied into another network makes it the same function."""
    other, x = UNet(base_channels=2, depth=1, seed=9), images(1, 1, 8, 8)
    assert np.abs(logits(other, x) - logits(small, x)).max() > 1e-3
    for name, tensor in other.state_dict().items():
        copy_(tensor, small.state_dict()[name].numpy())
    np.testing.assert_array_equal(logits(other, x), logits(small, x))


def test_evaluation_is_independent_of_the_batch(settled: UNet) -> None:
    x = images(3, 1, 8, 8) * np.array([1, 5, 0.1], np.float32).reshape(3, 1, 1, 1)
    together = logits(settled, x)
    turned = logits(settled, np.ascontiguousarray(x[::-1]))[::-1]
    np.testing.assert_array_equal(together, turned)
    for index in range(3):
        alone = logits(settled, x[index : index + 1])
        np.testing.assert_allclose(alone[0], together[index], rtol=1e-4, atol=1e-5)


def test_training_does_depend_on_the_batch(settled: UNet) -> None:
    x = images(2, 1, 8, 8) * np.array([1, 5], np.float32).reshape(2, 1, 1, 1)
    before = {name: tensor.numpy().copy() for name, tensor in settled.state_dict().items()}
    both = logits(settled, x, training=True)
    alone = logits(settled, x[:1], training=True)
    assert np.abs(both[0] - alone[0]).max() > 1e-3
    for name, array in before.items():
        copy_(settled.state_dict()[name], array)


def test_sigmoid_of_one_is_softmax_of_two_with_matched_weights() -> None:
    """softmax(a, b)[1] = sigmoid(b - a): the same network, its head w1 = w2[1] - w2[0]."""
    two, one = (
        UNet(1, 2, base_channels=2, depth=1, seed=4),
        UNet(1, 1, base_channels=2, depth=1, seed=9),
    )
    weights = {name: tensor.numpy() for name, tensor in two.state_dict().items()}
    weights["head.bias"] = np.array([0.25, -0.5], np.float32)
    copy_(two.head.bias, weights["head.bias"])
    for name, tensor in one.state_dict().items():
        array = weights[name]
        copy_(tensor, array[1:] - array[:1] if name.startswith("head.") else array)
    x = to_device(images(2, 1, 12, 8) * 3)
    for training in (False, True):
        p_one = one(x, training).sigmoid().numpy()[:, 0]
        p_two = two(x, training).softmax(axis=1).numpy()[:, 1]
        np.testing.assert_allclose(p_one, p_two, atol=1e-5, rtol=0)
        assert p_one.std() > 0.01


@pytest.mark.parametrize(
    ("head", "classes", "channels"),
    [("auto", 2, 1), ("auto", 3, 3), ("sigmoid", 2, 1), ("softmax", 2, 2), ("softmax", 5, 5)],
)
def test_the_head_follows_the_classes(head: str, classes: int, channels: int) -> None:
    model = build(ModelConfig(base_channels=1, depth=1, head=head), 3, classes)
    assert (model.in_channels, model.out_channels) == (3, channels)
    assert model.head.weight.shape == (channels, 1, 1, 1)


def test_build_passes_every_setting_on() -> None:
    shape = {"base_channels": 3, "depth": 2, "upsample": "nearest", "norm": "none"}
    shape |= {"attention": True, "dropout": 0.25}
    config = ModelConfig(**shape)
    model = build(config, 1, 2, seed=5)
    assert len(model.up) == 2
    assert model.down[0].conv1.weight.shape == (3, 1, 3, 3)
    assert model.up[0].upsample == "nearest"
    assert model.up[0].attention is not None
    assert not any("norm" in name for name in model.state_dict())
    assert model.dropout.probability == 0.25
    same = UNet(1, 1, seed=5, **shape)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), same.state_dict()[name].numpy())


def test_a_sigmoid_cannot_tell_three_classes() -> None:
    with pytest.raises(ConfigError, match=r"model\.head='sigmoid' .* 3 classes; use softmax"):
        build(ModelConfig(head="sigmoid"), 1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_channels": 0}, r"model\.base_channels=0"),
        ({"depth": 7}, r"model\.depth=7"),
        ({"upsample": "cubic"}, r"model\.upsample='cubic'"),
        ({"norm": "layer"}, r"model\.norm='layer'"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
        ({"in_channels": 0}, "in_channels=0"),
        ({"out_channels": 0}, "out_channels=0"),
    ],
)
def test_wrong_options_are_config_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNet(**options)
