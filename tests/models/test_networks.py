"""What every network of an encoder and a decoder keeps to."""

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg import kernels
from tinyseg.config import ModelConfig, sections
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import ConfigError
from tinyseg.inference.step import PredictStep
from tinyseg.models import DECODERS, ENCODERS, build
from tinyseg.models.catalog import NETWORKS, entry
from tinyseg.models.encoders.efficientnet import Geometry, MBConv
from tinyseg.models.encoders.mobilenet import InvertedResidual
from tinyseg.models.encoders.resnet import BasicBlock
from tinyseg.models.resunet import ResidualBlock
from tinyseg.models.unet_decoder import DecoderBlock
from tinyseg.nn import BatchNorm, Conv2d, normed, parameters, state_dict, upsample
from tinyseg.nn.transformer import TransformerBlock

REFERENCE = {
    # parameters of segmentation-models-pytorch 0.6 with one class and three channels, without the
    # classification layers that its encoders keep unused; tensors of the state dict
    ("unet", "resnet18"): (14328209, 152),
    ("unet", "resnet34"): (24436369, 232),
    ("unet", "resnet50"): (32521105, 317),
    ("unet", "mobilenet_v2"): (6628945, 312),
    ("unet", "efficientnet-b0"): (5839309, 361 - 5),
    ("unet", "efficientnet-b1"): (8344945, 489 - 5),
    ("unet", "efficientnet-b2"): (9547859, 489 - 5),
    ("unet", "efficientnet-b3"): (12566137, 546 - 5),
    ("unet", "efficientnet-lite0"): (5202769, 297 - 5),
    ("unet", "efficientnet-lite1"): (5967441, 372 - 5),
    ("unet", "efficientnet-lite2"): (6703249, 372 - 5),
    ("unet++", "efficientnet-b0"): (6157421, 421 - 5),
    ("deeplabv3+", "efficientnet-b0"): (4495309, 361 - 5),
    ("unet++", "resnet34"): (26078609, 292),
    ("fpn", "resnet34"): (23155393, 211),
    ("deeplabv3+", "resnet34"): (22437457, 232),
}


def test_the_settings_know_every_network_and_encoder() -> None:
    assert set(sections.NETWORKS) == set(NETWORKS) == {*DECODERS, "resunet"}
    assert set(sections.ENCODERS) == set(ENCODERS)


@pytest.mark.parametrize(("name", "encoder"), REFERENCE)
def test_parameters_are_as_many_as_the_references(name: str, encoder: str) -> None:
    state = build(ModelConfig(name=name, encoder=encoder), 3, 2, seed=None).state_dict()
    count = sum(int(np.prod(tensor.shape)) for tensor in parameters(state).values())
    assert (count, len(state)) == REFERENCE[name, encoder]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vnet"}, "model.name='vnet'"),
        ({"encoder": "vgg"}, "model.encoder='vgg'"),
        ({"name": "fpn", "base_channels": 8}, "model.base_channels=8 has no effect on .*name=fpn"),
        ({"encoder": "resnet18", "norm": "group"}, "model.norm='group' has no effect"),
        ({"freeze": True}, "model.freeze=True has no effect"),
        ({"name": "fpn", "output_stride": 8}, "model.output_stride=8 has no effect"),
        ({"name": "deeplabv3+", "output_stride": 4}, "model.output_stride=4"),
    ],
)
def test_settings_that_a_network_would_ignore_are_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**options)


def test_the_residual_unet_is_nnunets_preset() -> None:
    """dynamic_network_architectures' ResidualEncoderUNet, without heads of lower resolutions."""
    config = ModelConfig(name="resunet", base_channels=32, depth=5)
    state = build(config, 1, 2, seed=None).state_dict()
    assert sum(int(np.prod(tensor.shape)) for tensor in state.values()) == 71814625
    assert {"encoder.stages.1.blocks.0.skip.1.conv.weight", "decoder.seg_layers.4.bias"} <= set(
        state
    )


def test_operations_are_those_of_the_reference() -> None:
    """ResNet-18 has 1.81 G multiply-adds for 224 x 224, its last layer's 0.5 M left out."""
    encoder = ENCODERS["resnet18"](None, 3, 32, 0.0)
    found = entry("resnet18", encoder, 224, 3, "")
    assert found.operations / 2 == pytest.approx(1.8136e9, rel=1e-3)
    assert found.parameters == 11176512


def test_a_frozen_encoder_has_no_parameters() -> None:
    config = ModelConfig(encoder="resnet18", freeze=True)
    trained = parameters(build(config, 1, 2, seed=None).state_dict())
    assert {name.split(".")[0] for name in trained} == {"decoder", "segmentation_head"}


@pytest.mark.parametrize(
    ("name", "encoder", "channels"),
    [
        ("unet++", "resnet18", 1),
        ("fpn", "efficientnet-b0", 5),
        ("deeplabv3+", "mobilenet_v2", 3),
        ("transunet", "resnet18", 1),
        ("resunet", "auto", 5),
    ],
)
def test_any_size_and_channels_and_a_gradient_for_every_parameter(
    name: str, encoder: str, channels: int
) -> None:
    """Of shapes and graphs only: nothing is computed. A weight cut off from the loss raises."""
    model = build(ModelConfig(name=name, encoder=encoder), channels, 4, seed=None)
    with kernels.operations() as operations:
        assert model(Tensor.empty(1, channels, 33, 50)).shape == (1, 4, 33, 50)
        loss = model(Tensor.empty(2, channels, 32, 64), training=True).sum()
        loss.gradient(*parameters(model.state_dict()).values())
    assert sum(operations) > 1e6


class OneOfEach:
    """Every kind of block once, a few channels each: one compilation shows what holds for all."""

    out_channels = 1

    def __init__(self, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.stem = Conv2d(rng, 3, 4, 7, 2, bias=False)
        self.bn = BatchNorm(4)
        self.basic = BasicBlock(rng, 4, 4, 1, 2, 0.5)
        self.inverted = InvertedResidual(rng, 4, 4, 2, 2, 1, 0.0)
        self.mbconv = MBConv(rng, 4, 8, 2, Geometry(5, 2, 1, "same"), False, 0.0)
        self.residual = ResidualBlock(rng, 8, 4, 1)
        self.transformer = TransformerBlock(rng, 4, 2)
        self.up = DecoderBlock(rng, 4, 0, 4)
        self.head = Conv2d(rng, 4, 1, 1)

    def __call__(self, x_bchw: Tensor, training: bool) -> Tensor:
        x = kernels.max_pool(normed(self.stem, self.bn, x_bchw, training), 3)
        for block in (self.basic, self.inverted, self.mbconv, self.residual):
            x = block(x, training)
        tokens = self.transformer(x.flatten(2).permute(0, 2, 1))
        x = self.up(tokens.permute(0, 2, 1).reshape(x.shape), None, training)
        return upsample(self.head(x), x_bchw.shape[2] // x.shape[2])


def test_a_jitted_prediction_equals_plain_ones_bit_for_bit_whatever_the_weights() -> None:
    """Evaluation is deterministic, and a state dict copied into another network is all of it."""
    image = to_device(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    model, other = OneOfEach(seed=0), OneOfEach(seed=1)
    step = PredictStep(model, canary=False)
    found = [step(image).numpy().copy() for _ in range(3)]
    for name, tensor in state_dict(other).items():
        copy_(tensor, state_dict(model)[name].numpy())
    plain = PredictStep(other, jit=False)(image).numpy()
    assert plain.std() > 0
    for each in found:
        np.testing.assert_array_equal(each, plain)
