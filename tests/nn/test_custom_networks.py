"""Networks that others wrote with tinygrad: all of it is found, trained and saved."""

from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tinygrad import Tensor, nn
from tinygrad.nn.state import get_state_dict

from tinyseg.device.tensors import ensure_buffer, to_device
from tinyseg.doctor.state import State
from tinyseg.errors import StepError
from tinyseg.inference.step import PredictStep
from tinyseg.models import UNet
from tinyseg.nn import BatchNorm, forward, layers, parameters, state_dict
from tinyseg.runs import checkpoint
from tinyseg.runs.checkpoint import assign
from tinyseg.training.step import TrainStep

SIZE = 4


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    """An image (2, 1, 4, 4) and a label that can be seen in it."""
    image = np.random.default_rng(seed).standard_normal((2, 1, SIZE, SIZE)).astype(np.float32)
    return to_device(image), to_device((image[:, 0] > 0).astype(np.uint8))


def values(step: TrainStep) -> dict[str, Any]:
    return {name: tensor.numpy().copy() for name, tensor in step.state.items()}


def train(model: Any, jit: bool = True, count: int = 3, **options: Any) -> tuple[Any, TrainStep]:
    """The losses of a few steps on as many batches, and the step."""
    step = TrainStep(model, "bce", "adam(lr=0.01)", jit=jit, **options)
    return [step(*batch(seed))["loss"].item() for seed in range(count)], step


# 1. Where parameters are found


class Attention:
    """The attention of tinygrad's own TransformerBlock, over the rows of an image."""

    out_channels = 1

    def __init__(self) -> None:
        def pair() -> tuple[Tensor, Tensor]:
            return Tensor.scaled_uniform(SIZE, SIZE), Tensor.zeros(SIZE)

        self.query, self.key, self.value = pair(), pair(), pair()
        self.norm = {"first": (Tensor.ones(SIZE), Tensor.zeros(SIZE))}

    def __call__(self, x_bchw: Tensor) -> Tensor:
        weight, bias = self.norm["first"]
        x = x_bchw.layernorm().mul(weight).add(bias)
        query, key, value = (x.linear(*pair) for pair in (self.query, self.key, self.value))
        return x_bchw + query.scaled_dot_product_attention(key, value)


def test_parameters_are_found_and_named_as_tinygrad_does() -> None:
    pair = namedtuple("pair", ["left", "right"])
    model = {
        "list": [Tensor([1.0]), (Tensor([2.0]), Attention())],
        "ordered": OrderedDict(key=Tensor([3.0])),
        "named": pair(Tensor([4.0]), {0: Tensor([5.0])}),
    }
    expected = get_state_dict(model)
    found = state_dict(model)
    assert list(found) == list(expected)
    assert all(found[name] is tensor for name, tensor in expected.items())
    assert parameters(found) == found


@pytest.mark.slow
def test_every_tensor_of_tinygrads_attention_is_trained_and_part_of_the_state() -> None:
    model = Attention()
    losses, step = train(model, count=0)
    before = values(step)
    losses, step = [step(*batch())["loss"].item() for _ in range(4)], step
    after = values(step)
    names = {f"model.{name}" for name in get_state_dict(model)}
    assert len(names) == 8
    assert names <= set(step.state)
    still = {name for name in names if np.array_equal(before[name], after[name])}
    assert still <= {"model.key.1"}  # softmax does not see a shift that all keys have in common
    assert losses[-1] < losses[0]


def test_what_tinygrad_marks_as_no_parameter_is_not_trained() -> None:
    state = state_dict(nn.BatchNorm(2))
    assert set(state) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert set(parameters(state)) == {"weight", "bias"}
    assert set(parameters({"table": Tensor([1, 2]), "key": Tensor([1.0])})) == {"key"}


def test_a_network_that_refers_to_itself_is_walked_once() -> None:
    model = Attention()
    model.parent = {"of": model}  # type: ignore[attr-defined]
    assert len(state_dict(model)) == 8
    assert [name for name, layer in layers(model, "net")] == ["net"]


def test_layers_are_found_in_tuples_and_dicts_and_a_shared_one_once() -> None:
    norm = BatchNorm(2)
    found = [layer for _, layer in layers({"a": (norm, Attention()), "b": norm})]
    assert found[0] is norm
    assert len(found) == 2


def test_the_statistics_of_a_batch_are_no_state() -> None:
    norm = BatchNorm(2)
    names = set(state_dict(norm))
    norm(Tensor.rand(2, 2, 3, 3), training=True)
    assert set(state_dict(norm)) == names


# 2. How they are called


class Stock:
    """Convolution, normalisation and dropout of tinygrad, which go by `Tensor.training`."""

    out_channels = 1

    def __init__(self) -> None:
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm(4)
        self.head = nn.Conv2d(4, 1, 1)

    def __call__(self, x_bchw: Tensor) -> Tensor:
        x = self.norm(self.conv(x_bchw)).relu().dropout(0.5)
        return self.head(x.dropout(0.5))


def stock() -> Stock:
    Tensor.manual_seed(0)
    return Stock()


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda x: (x, Tensor.training), True),
        (lambda x, training: (x, Tensor.training, training), True),
        (lambda x, training=None: (x, Tensor.training, training), True),
        (lambda x, train: (x, Tensor.training, train), True),
        (lambda *images, **options: (*images, Tensor.training, options["training"]), True),
        (lambda x, mask=None: (x, Tensor.training, mask is None), True),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_every_signature_is_told_the_mode(model: Any, expected: bool, training: bool) -> None:
    x, *modes = forward(model, Tensor([1.0]), training)
    assert x.shape == (1,)
    assert modes[0] is training
    assert modes[1:] in ([], [training], [True])
    assert Tensor.training is False


@pytest.mark.slow
def test_tinygrads_batch_norm_moves_in_training_and_is_used_in_evaluation() -> None:
    model = stock()
    _, step = train(model, canary=False, count=1)
    (image, _), weight = batch(), np.float32(0.1)
    step.learning_rate = 0.0
    x = model.conv(image).numpy()
    before = model.norm.running_mean.numpy().copy()
    step(*batch())
    moved = (1 - weight) * before + weight * x.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(model.norm.running_mean.numpy(), moved, atol=1e-6)
    assert model.norm.num_batches_tracked.item() == 2
    predict = PredictStep(model)
    norm = {n: t.numpy().reshape(-1, 1, 1) for n, t in state_dict(model.norm).items()}
    scale = norm["weight"] / np.sqrt(norm["running_var"] + 1e-5)
    y = np.maximum((x - norm["running_mean"]) * scale + norm["bias"], 0)
    head, bias = model.head.weight.numpy()[0, :, 0, 0], model.head.bias.numpy()
    logits = np.einsum("bchw,c->bhw", y, head) + bias
    np.testing.assert_allclose(predict(image).numpy()[:, 0], 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_array_equal(predict(image).numpy(), predict(image).numpy())


@pytest.mark.parametrize("jit", [True, False])
def test_tinygrads_batch_norm_takes_up_no_nan(jit: bool) -> None:
    model = stock()
    _, step = train(model, jit=jit, count=2)
    names = ("running_mean", "running_var")
    before = [getattr(model.norm, name).numpy().copy() for name in names]
    image, label = batch(2)
    broken = image.numpy().copy()
    broken[0, 0, 0, 0] = np.nan
    step(to_device(broken), label)
    for name, array in zip(names, before, strict=True):
        np.testing.assert_array_equal(getattr(model.norm, name).numpy(), array, err_msg=name)
    assert model.norm.num_batches_tracked.item() == 3


def test_tinygrads_dropout_draws_anew_in_every_jitted_step() -> None:
    _, step = train(stock(), count=1)
    step.learning_rate = 0.0
    losses = [step(*batch())["loss"].item() for _ in range(4)]
    assert len(set(losses)) == 4


@pytest.mark.slow
def test_a_network_of_tinygrads_layers_is_the_same_jitted_and_plain_bit_for_bit() -> None:
    runs = []
    for jit in (True, False):
        losses, step = train(stock(), jit=jit, count=5)
        runs.append((losses, values(step)))
        Tensor.rand(3).realize()  # what others draw does not matter
    (losses, state), (plain_losses, plain_state) = runs
    assert losses == plain_losses
    assert state.keys() == plain_state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(array, plain_state[name], err_msg=name)
    assert state["random.counter"][0] > 0


def test_our_own_networks_have_keys_of_their_own_and_no_other_random_state() -> None:
    assert not [
        n for n in TrainStep(UNet(1, 1, base_channels=2, depth=1)).state if n.startswith("random")
    ]


# 3. A fresh network


class Alike:
    """Four lazily drawn weights of one shape, which one by one would be drawn alike."""

    out_channels = 1

    def __init__(self) -> None:
        self.layers = [Tensor.scaled_uniform(SIZE, SIZE) for _ in range(4)]

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return x_bchw.sequential([lambda x, w=w: x + x @ w for w in self.layers])


def test_plain_tinygrad_draws_weights_alike_that_are_realized_one_by_one() -> None:
    """Should this fail, tinygrad was mended, and `ensure_buffer` need not realize them together."""
    Tensor.manual_seed(0)
    weights = Alike().layers
    assert len({weight.realize().numpy().tobytes() for weight in reversed(weights)}) == 1


@pytest.mark.parametrize(
    "use",
    [
        TrainStep,
        PredictStep,
        lambda model: State(None, model),
        lambda model: State(lambda: list(reversed(model.layers)), model),
    ],
)
def test_the_weights_of_a_fresh_network_stay_distinct(use: Any) -> None:
    Tensor.manual_seed(0)
    model, expected = Alike(), []
    Tensor.realize(*model.layers)
    expected = [weight.numpy().copy() for weight in model.layers]
    Tensor.manual_seed(0)
    model = Alike()
    use(model)
    assert len({weight.numpy().tobytes() for weight in model.layers}) == 4
    for weight, array in zip(model.layers, expected, strict=True):
        np.testing.assert_array_equal(weight.numpy(), array)


@pytest.mark.parametrize("kind", [TrainStep, PredictStep])
def test_two_weights_in_one_buffer_are_refused_by_name(kind: Any) -> None:
    model = Alike()
    for weight in reversed(model.layers):
        weight.realize()  # in tinygrad 0.13 they are one buffer now
    model.layers[3] = Tensor(model.layers[1].uop)
    with pytest.raises(StepError, match=r"layers\.\d and layers\.\d are two Tensors in one buffer"):
        kind(model)


# 4. Tied weights


class Tied:
    """An encoder whose weight is used again, transposed, as that of the decoder."""

    out_channels = 1

    def __init__(self) -> None:
        self.encoder = nn.Linear(SIZE, SIZE, bias=False)
        self.decoder = {"weight": self.encoder.weight}

    def __call__(self, x_bchw: Tensor) -> Tensor:
        return self.encoder(x_bchw).tanh() @ self.decoder["weight"]


def tied() -> Tied:
    Tensor.manual_seed(0)
    return Tied()


@pytest.mark.slow
def test_tied_weights_are_one_parameter_with_one_gradient(tmp_path: Path) -> None:
    model = tied()
    losses, step = train(model, count=4)
    assert list(step.parameters) == ["encoder.weight"]
    assert model.decoder["weight"] is model.encoder.weight
    untied = tied()  # the sum of both gradients, as if the two were apart
    ensure_buffer(untied.encoder.weight)
    untied.decoder["weight"] = to_device(untied.encoder.weight.numpy())
    plain = TrainStep(untied, "bce", "sgd(lr=1)", jit=False)
    loss = plain.loss(plain.forward(batch()[0]), batch()[1])["loss"]
    gradients = [gradient.numpy() for gradient in plain.gradients(loss).values()]
    assert len(gradients) == 2
    again = tied()
    before = TrainStep(again, "bce", "sgd(lr=1)").parameters["encoder.weight"].numpy().copy()
    TrainStep(again, "bce", "sgd(lr=1)")(*batch())
    moved = before - again.encoder.weight.numpy()
    np.testing.assert_allclose(moved, gradients[0] + gradients[1], atol=1e-6)
    assert losses == train(tied(), jit=False, count=4)[0]
    checkpoint.save(tmp_path / "tied.safetensors", values(step), {})
    saved, _ = checkpoint.load(tmp_path / "tied.safetensors")
    assert [name for name in saved if name.startswith("model.")] == ["model.encoder.weight"]
    loaded = TrainStep(tied(), "bce", "adam(lr=0.01)")
    assign(loaded.state, saved, "", "tied.safetensors")
    assert loaded(*batch())["loss"].item() == step(*batch())["loss"].item()


@pytest.mark.slow
def test_a_network_that_was_made_on_another_device_is_moved() -> None:
    class OneLayer:
        def __init__(self) -> None:
            self.weight = Tensor.full((1, 1, 1, 1), 0.5, device="PYTHON").contiguous()
            self.out_channels = 1

        def __call__(self, image: Tensor) -> Tensor:
            return image.conv2d(self.weight)

    model, (image, label) = OneLayer(), batch()
    weight, device = model.weight, image.device
    assert str(weight.device) == "PYTHON"
    TrainStep(model, "bce", "sgd(lr=0.1)")(image, label)
    assert model.weight is weight
    assert weight.device == device
    assert weight.item() != 0.5
