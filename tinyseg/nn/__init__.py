"""Layers and blocks: plain classes whose Tensors are found by walking their attributes."""

from tinyseg.nn.blocks import AttentionGate, DoubleConv, Up
from tinyseg.nn.forward import forward, output_channels
from tinyseg.nn.layers import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    GroupNorm,
    Identity,
    resize,
    update_running_stats,
)
from tinyseg.nn.module import layers, parameters, state_dict

__all__ = [
    "AttentionGate",
    "BatchNorm",
    "Conv2d",
    "ConvTranspose2d",
    "DoubleConv",
    "Dropout",
    "GroupNorm",
    "Identity",
    "Up",
    "forward",
    "layers",
    "output_channels",
    "parameters",
    "resize",
    "state_dict",
    "update_running_stats",
]
