"""Layers and blocks of networks, and how any network is called and its Tensors are found.

Plain classes on logical (B, C, H, W): weights have PyTorch's names and shapes, and are found by
walking the attributes, as tinygrad does. A layer knows neither losses nor optimizers.
"""

from tinyseg.nn.blocks import AttentionGate, DoubleConv, Up, normed
from tinyseg.nn.forward import forward, output_channels
from tinyseg.nn.layers import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Generator,
    GroupNorm,
    Identity,
    activate,
    resize,
    same_padding,
    stretch,
    update_running_stats,
    upsample,
)
from tinyseg.nn.module import layers, parameters, state_dict

__all__ = [
    "AttentionGate",
    "BatchNorm",
    "Conv2d",
    "ConvTranspose2d",
    "DoubleConv",
    "Dropout",
    "Generator",
    "GroupNorm",
    "Identity",
    "Up",
    "activate",
    "forward",
    "layers",
    "normed",
    "output_channels",
    "parameters",
    "resize",
    "same_padding",
    "state_dict",
    "stretch",
    "update_running_stats",
    "upsample",
]
