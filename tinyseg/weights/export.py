"""Weights of ours under the names of PyTorch's networks, for use there."""

import re
from typing import Any

from tinyseg.common.arrays import Array
from tinyseg.config import ModelConfig
from tinyseg.errors import WeightsError

NETWORKS = {
    "unet": "Unet",
    "unet++": "UnetPlusPlus",
    "fpn": "FPN",
    "deeplabv3+": "DeepLabV3Plus",
}
"""The classes of segmentation-models-pytorch."""
LAYERS = {"conv1": 0, "norm1": 1, "conv2": 3, "norm2": 4}
"""Places in milesial's double_conv."""


def to_torch(
    config: ModelConfig, channels: int, out_channels: int, tensors: dict[str, Array]
) -> tuple[dict[str, Array], str]:
    """Return weights under the names that PyTorch's network has, and the call that makes it.

    Args:
        config: The settings of the network.
        channels: Those of its images.
        out_channels: Those of its logits.
        tensors: Its weights by our names.

    Raises:
        WeightsError: No network there is the same.
    """
    named = {name: array for name, array in tensors.items() if array.dtype.kind == "f"}
    if config.plain:
        _check_plain(config)
        made = f"unet.UNet(n_channels={channels}, n_classes={out_channels}, bilinear=False)"
        if (config.base_channels, config.depth) != (64, 4):
            made += f"  # with a width of {config.base_channels}, not 64, and depth {config.depth}"
        return {_milesial(name): array for name, array in named.items()}, made
    if config.name not in NETWORKS:
        raise WeightsError(
            f"model.name={config.name}: segmentation-models-pytorch has no such network; the run's "
            "checkpoint is safetensors as well"
        )
    encoder = "resnet34" if config.encoder == "auto" else config.encoder
    if encoder.startswith("efficientnet-lite"):
        raise WeightsError(
            f"model.encoder={encoder}: no encoder of segmentation-models-pytorch pads as this one; "
            "use another encoder, or read the run's checkpoint, which is safetensors as well"
        )
    options: dict[str, Any] = {"in_channels": channels, "classes": out_channels}
    if config.name == "deeplabv3+":
        options["encoder_output_stride"] = config.output_stride
    texts = ", ".join(f"{key}={value}" for key, value in options.items())
    made = f'smp.{NETWORKS[config.name]}("{encoder}", encoder_weights=None, {texts})'
    underscored = encoder.startswith("efficientnet")
    return {_smp(name) if underscored else name: array for name, array in named.items()}, made


def _check_plain(config: ModelConfig) -> None:
    """Refuse a U-Net that milesial's is not; width and depth are easily changed there."""
    wanted = {"upsample": "transpose", "norm": "batch", "attention": False}
    other = {name: v for name, v in wanted.items() if getattr(config, name) != v}
    if other:
        raise WeightsError(
            "no common network of PyTorch is this U-Net: export takes a U-Net with "
            + ", ".join(f"model.{name}={value}" for name, value in other.items())
            + ", or any network with model.encoder; the run's checkpoint is safetensors as well"
        )


def _milesial(name: str) -> str:
    if match := re.fullmatch(r"(down|up)\.(\d)\.(?:conv\.)?(conv[12]|norm[12])\.(\w+)", name):
        side, number, layer, rest = match.groups()
        block = f"up{int(number) + 1}.conv" if side == "up" else f"down{number}.maxpool_conv.1"
        block = "inc" if (side, number) == ("down", "0") else block
        return f"{block}.double_conv.{LAYERS[layer]}.{rest}"
    if match := re.fullmatch(r"up\.(\d)\.up\.(\w+)", name):
        return f"up{int(match[1]) + 1}.up.{match[2]}"
    return name.replace("head.", "outc.conv.")


def _smp(name: str) -> str:
    """Put an underscore before every name of an EfficientNet's parts, as SMP does."""
    if not name.startswith("encoder."):
        return name
    *parts, last = name.split(".")
    return ".".join([parts[0], *(p if p.isdigit() else f"_{p}" for p in parts[1:]), last])
