"""Networks by name, and the one that the settings of a run describe.

A network is a class made of `nn`'s layers: images (B, C, H, W) in, logits (B, K, H, W) out. It
knows neither losses, nor data, nor runs. A new one is a file here and an entry in MODELS.
"""

from dataclasses import asdict

from tinyseg.config import ModelConfig
from tinyseg.errors import ConfigError
from tinyseg.models.unet import UNet

MODELS = {"unet": UNet}


def build(
    config: ModelConfig,
    in_channels: int,
    classes: int,
    seed: int = 0,
    precision: str = "float32",
    name: str = "unet",
) -> UNet:
    """Return the network that `config` describes, for images of so many channels and classes."""
    options = {key: value for key, value in asdict(config).items() if key != "head"}
    out_channels = head_channels(config, classes)
    return MODELS[name](in_channels, out_channels, seed=seed, precision=precision, **options)


def head_channels(config: ModelConfig, classes: int) -> int:
    """Return the channels of the head: 1 is a sigmoid, else a softmax over the classes."""
    head = config.head if config.head != "auto" else "sigmoid" if classes == 2 else "softmax"
    if head == "sigmoid" and classes != 2:
        raise ConfigError(
            f"model.head='sigmoid' has one channel but the data has {classes} classes; use softmax"
        )
    return 1 if head == "sigmoid" else classes


__all__ = ["MODELS", "UNet", "build", "head_channels"]
