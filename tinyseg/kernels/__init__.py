"""Layer 1: the operations that decide the speed of a step, each with its plain-Tensor oracle."""

from tinyseg.kernels import reference as plain
from tinyseg.kernels.convolution import conv2d, conv_transpose2d, plan
from tinyseg.kernels.normalization import batch_norm
from tinyseg.kernels.optimizer import adam, joint_norm, moving_averages
from tinyseg.kernels.pixels import join, max_pool
from tinyseg.kernels.plans import fallbacks, kernels_of
from tinyseg.kernels.resample import smooth, warp

__all__ = [
    "adam",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "fallbacks",
    "join",
    "joint_norm",
    "kernels_of",
    "max_pool",
    "moving_averages",
    "plain",
    "plan",
    "smooth",
    "warp",
]
