"""The operations that decide how fast a step is, each with the same mathematics in plain Tensors.

Tensors come in and go out, logical NCHW; a public function checks its arguments and runs a kernel
of `cpu` or `gpu`, or, where there is none for these types and sizes, the function of `reference`
that has its name. Kernels know nothing of networks: what is trained, saved or jitted.
"""

from tinyseg.kernels import reference as plain
from tinyseg.kernels.convolution import conv2d, conv_transpose2d, plan
from tinyseg.kernels.memory import wide
from tinyseg.kernels.normalization import batch_norm
from tinyseg.kernels.optimizer import adam, joint_norm, moving_averages
from tinyseg.kernels.pixels import join, max_pool
from tinyseg.kernels.plans import count, fallbacks, kernels_of, operations
from tinyseg.kernels.reference import relu
from tinyseg.kernels.resample import smooth, warp
from tinyseg.kernels.shapes import AdamSettings

__all__ = [
    "AdamSettings",
    "adam",
    "batch_norm",
    "conv2d",
    "conv_transpose2d",
    "count",
    "fallbacks",
    "join",
    "joint_norm",
    "kernels_of",
    "max_pool",
    "moving_averages",
    "operations",
    "plain",
    "plan",
    "relu",
    "smooth",
    "warp",
    "wide",
]
