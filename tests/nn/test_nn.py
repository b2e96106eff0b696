"""Layers against float64 NumPy; training mode also against gradients written out by hand."""

import numpy as np
import pytest
from scipy import ndimage, signal
from tinygrad import Tensor
from tinygrad.nn import optim
from tinygrad.nn.state import get_parameters

from tinyseg import kernels
from tinyseg.device.capture import JitFunction
from tinyseg.device.tensors import to_device
from tinyseg.models import UNet
from tinyseg.nn import (
    AttentionGate,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    DoubleConv,
    Dropout,
    GroupNorm,
    Identity,
    Up,
    parameters,
    resize,
    state_dict,
    update_running_stats,
)
from tinyseg.nn.blocks import make_norm


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def column(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector, np.float64).reshape(1, -1, 1, 1)


def fill(tensor: Tensor, array: np.ndarray) -> None:
    tensor.assign(to_device(array.astype(np.float32))).realize()


# Batch normalisation: three channels take the plain path, four or more the kernels


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 2)])
def test_batch_norm_in_training(channels: int, shape: tuple[int, int, int]) -> None:
    batch, rows, columns = shape
    x = draw(batch, channels, rows, columns) * 3 + 100 * (np.arange(channels) % 2)[:, None, None]
    weight, bias = 1 + draw(channels, seed=1), draw(channels, seed=2)
    layer = BatchNorm(channels)
    fill(layer.weight, weight)
    fill(layer.bias, bias)
    found = layer(to_device(x.astype(np.float32)), training=True).numpy()
    x64 = x.astype(np.float32).astype(np.float64)
    mean, variance = x64.mean((0, 2, 3)), x64.var((0, 2, 3))
    normal = (x64 - column(mean)) / np.sqrt(column(variance) + 1e-5)
    expected = np.maximum(normal * column(weight) + column(bias), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # the running statistics as in PyTorch: momentum 0.1, variance unbiased
    count = batch * rows * columns
    update_running_stats(layer)
    Tensor.realize(layer.running_mean, layer.running_var)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.1 * mean, rtol=1e-4, atol=1e-6)
    unbiased = variance * count / (count - 1)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.9 + 0.1 * unbiased, rtol=1e-4)


def test_batch_norm_statistics_run_on() -> None:
    layer, mean, variance = BatchNorm(4), np.zeros(4), np.ones(4)
    for seed in range(3):
        x = draw(2, 4, 3, 3, seed=seed) * (seed + 1) + seed
        y = layer(to_device(x), training=True)
        update_running_stats(layer)
        y.realize(layer.running_mean, layer.running_var)
        mean = 0.9 * mean + 0.1 * x.mean((0, 2, 3), dtype=np.float64)
        variance = 0.9 * variance + 0.1 * x.var((0, 2, 3), dtype=np.float64, ddof=1)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-4)


@pytest.mark.parametrize("channels", [3, 8])
def test_batch_norm_in_evaluation_uses_the_running_statistics(channels: int) -> None:
    layer, x = BatchNorm(channels), draw(2, channels, 3, 4)
    values = {
        name: np.abs(draw(channels, seed=n)) + 0.1 for n, name in enumerate(state_dict(layer))
    }
    for name, array in values.items():
        fill(getattr(layer, name), array)
    found = layer(to_device(x), training=False).numpy()
    normal = (x - column(values["running_mean"])) / np.sqrt(column(values["running_var"]) + 1e-5)
    expected = np.maximum(normal * column(values["weight"]) + column(values["bias"]), 0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for name, array in values.items():
        np.testing.assert_array_equal(getattr(layer, name).numpy(), array)


@pytest.mark.parametrize("channels", [3, 8])
def test_batch_norm_gradients_by_the_formulas(channels: int) -> None:
    """Ioffe & Szegedy 2015, section 3, behind a ReLU, in float64."""
    x, weights_of_sum = draw(2, channels, 4, 3), draw(2, channels, 4, 3, seed=3)
    weight, bias = 1 + 0.3 * draw(channels, seed=1), 0.3 * draw(channels, seed=2)
    layer, image = BatchNorm(channels), to_device(x)
    fill(layer.weight, weight)
    fill(layer.bias, bias)
    loss = (layer(image, training=True) * to_device(weights_of_sum)).sum()
    found = [tensor.numpy() for tensor in loss.gradient(image, layer.weight, layer.bias)]

    x64, axes = x.astype(np.float64), (0, 2, 3)
    deviation = np.sqrt(x64.var(axes, keepdims=True) + 1e-5)
    normal = (x64 - x64.mean(axes, keepdims=True)) / deviation
    upstream = weights_of_sum * (normal * column(weight) + column(bias) > 0)
    to_normal = upstream * column(weight)
    centred = to_normal - to_normal.mean(axes, keepdims=True)
    to_x = (centred - normal * (to_normal * normal).mean(axes, keepdims=True)) / deviation
    expected = [to_x, (upstream * normal).sum(axes), upstream.sum(axes)]
    for array, oracle in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, oracle, rtol=1e-3, atol=1e-4)


def test_a_batch_with_nan_does_not_poison_the_running_statistics() -> None:
    layer, x = BatchNorm(4), draw(1, 4, 2, 2)
    x[0, 1, 0, 0] = np.nan
    y = layer(to_device(x), training=True)
    update_running_stats(layer)
    y.realize(layer.running_mean, layer.running_var)
    assert np.isfinite(layer.running_mean.numpy()).all()
    assert np.isfinite(layer.running_var.numpy()).all()
    assert layer.running_mean.numpy()[1] == 0


# Group and instance normalisation


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (6, 3), (6, 6), (8, 8)])
@pytest.mark.parametrize("training", [True, False])
def test_group_norm(channels: int, groups: int, training: bool) -> None:
    x = draw(3, channels, 4, 5) * 2 + 5
    weight, bias = draw(channels, seed=1), draw(channels, seed=2)
    layer = GroupNorm(channels, groups)
    fill(layer.weight, weight)
    fill(layer.bias, bias)
    grouped = x.astype(np.float64).reshape(3, groups, -1)
    spread = grouped.var(2, keepdims=True)
    normal = (grouped - grouped.mean(2, keepdims=True)) / np.sqrt(spread + 1e-5)
    expected = np.maximum(normal.reshape(x.shape) * column(weight) + column(bias), 0)
    found = layer(to_device(x), training).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_group_norm_gradient_by_finite_differences() -> None:
    x, weights_of_sum = draw(1, 4, 2, 3) + 1, draw(1, 4, 2, 3, seed=3)
    layer, image = GroupNorm(4, 2), to_device(x)
    fill(layer.bias, np.full(4, 5.0))  # all on the rising side of the ReLU
    loss = (layer(image, training=True) * to_device(weights_of_sum)).sum()
    found = loss.gradient(image)[0].numpy()

    def value(x64: np.ndarray) -> float:
        grouped = x64.reshape(1, 2, -1)
        normal = grouped - grouped.mean(2, keepdims=True)
        normal = normal / np.sqrt(grouped.var(2, keepdims=True) + 1e-5)
        return float(((normal.reshape(x.shape) + 5) * weights_of_sum).sum())

    for place in np.ndindex(x.shape):
        up, down = x.astype(np.float64), x.astype(np.float64)
        up[place] += 1e-5
        down[place] -= 1e-5
        assert found[place] == pytest.approx((value(up) - value(down)) / 2e-5, abs=2e-4)


@pytest.mark.parametrize(
    ("name", "channels", "kind", "groups"),
    [
        ("batch", 8, BatchNorm, None),
        ("group", 16, GroupNorm, 8),
        ("group", 12, GroupNorm, 4),
        ("group", 6, GroupNorm, 2),
        ("group", 3, GroupNorm, 1),
        ("instance", 6, GroupNorm, 6),
        ("none", 6, Identity, None),
    ],
)
def test_norms_by_name(name: str, channels: int, kind: type, groups: int | None) -> None:
    norm = make_norm(name, channels)
    assert type(norm) is kind
    assert getattr(norm, "groups", None) == groups


def test_no_normalisation_is_still_a_relu() -> None:
    x = to_device(np.array([[[[-1.0, 2.0]]]], np.float32))
    assert Identity()(x, training=True).numpy().tolist() == [[[[0.0, 2.0]]]]


# Dropout


def test_dropout_drops_whole_channels_at_its_rate_and_keeps_the_mean() -> None:
    layer, x = Dropout(generator(), 0.3), np.ones((40, 100, 2, 3), np.float32)
    y = layer(to_device(x), training=True).numpy()
    assert (y == y[:, :, :1, :1]).all()
    kept = y[:, :, 0, 0] != 0
    # 4000 draws: four standard deviations are 0.029
    assert abs(kept.mean() - 0.7) < 0.029
    np.testing.assert_allclose(y[:, :, 0, 0][kept], 1 / 0.7, rtol=1e-6)
    # neither images nor channels go together
    assert kept.mean(axis=0).min() > 0.4
    assert kept.mean(axis=1).max() < 0.95


def test_dropout_draws_anew_each_time_and_again_from_the_same_key() -> None:
    x = to_device(np.ones((2, 64, 1, 1), np.float32))
    first = Dropout(generator(), 0.5)
    start = first.key.numpy().copy()
    draws = [first(x, training=True).numpy() for _ in range(4)]
    assert len({drawn.tobytes() for drawn in draws}) == 4
    fill_key(first, start)
    assert first(x, training=True).numpy().tobytes() == draws[0].tobytes()
    same_seed, other_seed = Dropout(generator(), 0.5), Dropout(np.random.default_rng(1), 0.5)
    assert same_seed(x, training=True).numpy().tobytes() == draws[0].tobytes()
    assert other_seed(x, training=True).numpy().tobytes() != draws[0].tobytes()


def fill_key(layer: Dropout, array: np.ndarray) -> None:
    layer.key.assign(to_device(array)).realize()


@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_dropout_in_evaluation_changes_nothing(probability: float) -> None:
    layer, x = Dropout(generator(), probability), draw(1, 4, 2, 2)
    before = layer.key.numpy().copy() if layer.key is not None else None
    np.testing.assert_array_equal(layer(to_device(x), training=False).numpy(), x)
    if before is None:
        np.testing.assert_array_equal(layer(to_device(x), training=True).numpy(), x)
    else:
        np.testing.assert_array_equal(layer.key.numpy(), before)


def test_dropout_in_a_jitted_step_draws_on_as_without() -> None:
    images = [to_device(np.ones((2, 64, 1, 1), np.float32)) for _ in range(5)]
    plain, layer = Dropout(generator(), 0.5), Dropout(generator(), 0.5)
    expected = [plain(image, training=True).numpy().copy() for image in images]
    step = JitFunction(lambda key, image: layer(image, training=True).realize(key))
    found = [step(layer.key, image).numpy().copy() for image in images]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(layer.key.numpy(), plain.key.numpy())


def test_the_gradient_of_dropout_is_its_mask() -> None:
    layer, image = Dropout(generator(), 0.5), to_device(draw(1, 16, 2, 2) + 9)
    y = layer(image, training=True)
    slope = y.sum().gradient(image)[0].numpy()
    np.testing.assert_allclose(slope, y.numpy() / image.numpy(), rtol=1e-6)


# Resolution


def test_nearest_repeats() -> None:
    x = draw(2, 3, 4, 5)
    found = resize(to_device(x), "nearest").numpy()
    np.testing.assert_array_equal(found, x.repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (5, 3), (1, 4), (4, 1), (1, 1)])
def test_bilinear_has_half_pixel_centres_and_clamped_edges(rows: int, columns: int) -> None:
    x = draw(2, 2, rows, columns)
    places = np.meshgrid(
        *((np.arange(2 * n) + 0.5) / 2 - 0.5 for n in (rows, columns)), indexing="ij"
    )
    planes = x.astype(np.float64).reshape(-1, rows, columns)
    expected = [ndimage.map_coordinates(p, places, order=1, mode="nearest") for p in planes]
    found = resize(to_device(x), "bilinear").numpy()
    assert found.shape == (2, 2, 2 * rows, 2 * columns)
    np.testing.assert_allclose(
        found.reshape(4, 2 * rows, 2 * columns), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (5, 7), (2, 3)])
def test_max_pool_leaves_an_odd_edge_out(channels: int, rows: int, columns: int) -> None:
    x = draw(2, channels, rows, columns)
    even = x[:, :, : rows // 2 * 2, : columns // 2 * 2]
    expected = even.reshape(2, channels, rows // 2, 2, columns // 2, 2).max(axis=(3, 5))
    np.testing.assert_array_equal(kernels.max_pool(to_device(x)).numpy(), expected)


# Convolutions: the layer's own part is padding, stride and the layout of weights


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Cross-correlation, zero-padded to the same size, in float64."""
    return np.array(
        [
            [
                sum(
                    signal.correlate2d(plane, kernel, "same")
                    for plane, kernel in zip(image, w, strict=True)
                )
                + b
                for w, b in zip(weight.astype(np.float64), bias, strict=True)
            ]
            for image in x.astype(np.float64)
        ]
    )


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (1, 1), (3, 2), (5, 1)])
@pytest.mark.parametrize("channels", [(2, 3), (4, 8)])
def test_convolution(kernel: int, stride: int, channels: tuple[int, int]) -> None:
    layer, x = Conv2d(generator(), *channels, kernel, stride), draw(2, channels[0], 6, 8)
    bias = draw(channels[1], seed=5)
    fill(layer.bias, bias)
    expected = convolve(x, layer.weight.numpy(), bias)[:, :, ::stride, ::stride]
    found = layer(to_device(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert layer.weight.shape == (channels[1], channels[0], kernel, kernel)


@pytest.mark.parametrize("channels", [(3, 2), (8, 4)])
def test_transposed_convolution(channels: tuple[int, int]) -> None:
    layer, x = ConvTranspose2d(generator(), *channels), draw(2, channels[0], 3, 5)
    bias = draw(channels[1], seed=5)
    fill(layer.bias, bias)
    weight = layer.weight.numpy().astype(np.float64)
    assert weight.shape == (*channels, 2, 2)
    expected = np.zeros((2, channels[1], 6, 10)) + column(bias)
    for row, col in np.ndindex(2, 2):
        expected[:, :, row::2, col::2] += np.einsum("bihw,io->bohw", x, weight[:, :, row, col])
    np.testing.assert_allclose(layer(to_device(x)).numpy(), expected, rtol=1e-4, atol=1e-4)


# Attention


def test_the_attention_gate_weighs_every_pixel_by_the_formula() -> None:
    """Oktay et al. 2018, equations 1 and 2, gate and skip at one resolution."""
    gate, skip, signal_ = AttentionGate(generator(), 4), draw(2, 4, 3, 5), draw(2, 4, 3, 5, seed=1)
    found = gate(to_device(skip), to_device(signal_)).numpy()
    w_gate, w_skip, w_weigh = (
        getattr(gate, name).weight.numpy()[:, :, 0, 0].astype(np.float64)
        for name in ("gate", "skip", "weigh")
    )
    joint = np.einsum("oi,bihw->bohw", w_gate, signal_) + np.einsum("oi,bihw->bohw", w_skip, skip)
    alpha = 1 / (1 + np.exp(-np.einsum("oi,bihw->bohw", w_weigh, np.maximum(joint, 0))))
    assert alpha.shape == (2, 1, 3, 5)
    np.testing.assert_allclose(found, skip * alpha, rtol=1e-4, atol=1e-5)
    assert (np.abs(found) <= np.abs(skip)).all()
    assert (np.sign(found) == np.sign(skip)).all()


def test_an_attention_gate_of_one_channel_has_one_inside() -> None:
    gate = AttentionGate(generator(), 1)
    assert gate.gate.weight.shape == (1, 1, 1, 1)


# Names, parameters, initial weights


def test_names_are_dotted_paths_in_the_order_of_definition() -> None:
    block = DoubleConv(generator(), 2, 4, "batch")
    norm = [("weight", 4), ("bias", 4), ("running_mean", 4), ("running_var", 4)]
    assert {name: tensor.shape for name, tensor in state_dict(block).items()} == {
        "conv1.weight": (4, 2, 3, 3),
        **{f"norm1.{name}": (size,) for name, size in norm},
        "conv2.weight": (4, 4, 3, 3),
        **{f"norm2.{name}": (size,) for name, size in norm},
    }
    assert next(iter(state_dict([block, block], "x."))) == "x.0.conv1.weight"
    assert state_dict({"no": "module"}) == {}


def test_parameters_are_what_is_trained() -> None:
    state = {
        **state_dict(DoubleConv(generator(), 2, 4, "batch"), "block."),
        **state_dict(Dropout(generator(), 0.5), "dropout."),
    }
    left = set(state) - set(parameters(state))
    statistics = {f"block.norm{n}.running_{what}" for n in (1, 2) for what in ("mean", "var")}
    assert left == {"dropout.key", *statistics}
    assert all(parameters(state)[name] is state[name] for name in parameters(state))


def test_tinygrads_optimizers_train_the_same() -> None:
    net = UNet(1, 1, base_channels=2, depth=1, dropout=0.5)
    trained = parameters(net.state_dict()).values()
    found = optim.SGD(get_parameters(net), lr=0.1)
    assert {id(t) for t in found.params} == {id(t) for t in trained}
    assert len(found.buffers) == len(net.state_dict()) - len(found.params) > 0


def test_a_bias_stands_where_no_normalisation_brings_one() -> None:
    for norm, biased in (("none", True), ("batch", False), ("group", False), ("instance", False)):
        block = DoubleConv(generator(), 2, 4, norm)
        assert (block.conv1.bias is not None) is biased
        assert (block.conv2.bias is not None) is biased


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (Conv2d(generator(), 32, 64), 32 * 9),
        (Conv2d(generator(), 128, 64, kernel=1), 128),
        (ConvTranspose2d(generator(), 64, 32), 64),
    ],
)
def test_weights_start_as_he_et_al_say(layer: Conv2d | ConvTranspose2d, fan_in: int) -> None:
    weight = layer.weight.numpy().astype(np.float64)
    sigma = np.sqrt(2 / fan_in)
    assert weight.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * weight.size))
    assert abs(weight.mean()) < 4 * sigma / np.sqrt(weight.size)
    # a normal distribution: 4.6 % beyond two standard deviations
    assert (np.abs(weight) > 2 * sigma).mean() == pytest.approx(0.0455, abs=0.01)
    assert not layer.bias.numpy().any()


def test_the_seed_decides_the_weights_and_each_layer_has_its_own() -> None:
    def weights(seed: int) -> list[np.ndarray]:
        block = Up(np.random.default_rng(seed), 8, 4, "transpose", "batch", attention=True)
        return [tensor.numpy().copy() for tensor in state_dict(block).values()]

    first, again, other = weights(0), weights(0), weights(1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    drawn = [(a, b) for a, b in zip(first, other, strict=True) if a.std() > 0]
    assert len(drawn) == 6
    assert all((a != b).mean() > 0.99 for a, b in drawn)
    assert len({a.ravel()[0] for a, _ in drawn}) == 6


@pytest.mark.parametrize("up", ["transpose", "bilinear", "nearest"])
@pytest.mark.parametrize("gate", [False, True])
def test_up_doubles_and_joins(up: str, gate: bool) -> None:
    block = Up(generator(), 8, 4, up, "none", gate)
    found = block(to_device(draw(2, 8, 3, 2)), to_device(draw(2, 4, 6, 4)), training=False)
    assert found.shape == (2, 4, 6, 4)
    assert block.conv.conv1.weight.shape == (4, 8, 3, 3)
    assert ("attention.weigh.weight" in state_dict(block)) is gate
