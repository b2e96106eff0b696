"""The network that the settings of a run describe."""

from dataclasses import asdict

from tinyseg.config import ModelConfig
from tinyseg.errors import ConfigError
from tinyseg.models.deeplabv3plus import DeepLabV3PlusDecoder
from tinyseg.models.encoder_decoder import Decoder, EncoderDecoder
from tinyseg.models.fpn import FPNDecoder
from tinyseg.models.resunet import ResUNet
from tinyseg.models.transunet import TransUNetDecoder
from tinyseg.models.unet import UNet
from tinyseg.models.unet_decoder import UNetDecoder
from tinyseg.models.unetplusplus import UNetPlusPlusDecoder

DECODERS: dict[str, type[Decoder]] = {
    "unet": UNetDecoder,
    "unet++": UNetPlusPlusDecoder,
    "fpn": FPNDecoder,
    "deeplabv3+": DeepLabV3PlusDecoder,
    "transunet": TransUNetDecoder,
}
"""Networks of an encoder, which can be chosen, and a decoder."""

Network = UNet | ResUNet | EncoderDecoder


def build(
    config: ModelConfig,
    in_channels: int,
    classes: int,
    seed: int | None = 0,
    precision: str = "float32",
) -> Network:
    """Return the network that `config` describes, for images of so many channels and classes.

    Without a `seed` its weights hold nothing yet: they are to be loaded.
    """
    shape = in_channels, head_channels(config, classes)
    options = {name: value for name, value in asdict(config).items() if name in config.used}
    if config.plain:
        return UNet(*shape, seed=seed, precision=precision, **options)
    if config.name == "resunet":
        return ResUNet(*shape, seed=seed, precision=precision, **options)
    return EncoderDecoder(
        DECODERS[config.name],
        *shape,
        encoder="resnet34" if config.encoder == "auto" else config.encoder,
        output_stride=_output_stride(config),
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        freeze=config.freeze,
        seed=seed,
        precision=precision,
    )


def _output_stride(config: ModelConfig) -> int:
    """Return how many times smaller the encoder's last features are."""
    return {"deeplabv3+": config.output_stride, "transunet": 16}.get(config.name, 32)


def head_channels(config: ModelConfig, classes: int) -> int:
    """Return the channels of the head: 1 is a sigmoid, else a softmax over the classes."""
    head = config.head if config.head != "auto" else "sigmoid" if classes == 2 else "softmax"
    if head == "sigmoid" and classes != 2:
        raise ConfigError(
            f"model.head='sigmoid' has one channel but the data has {classes} classes; use softmax"
        )
    return 1 if head == "sigmoid" else classes
