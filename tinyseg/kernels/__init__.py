"""Layer 1: the operations that decide the speed of a step, each with its plain-Tensor oracle."""

from tinyseg.kernels import plain
from tinyseg.kernels.convolution import conv2d, conv_transpose2d, plan

__all__ = ["conv2d", "conv_transpose2d", "plain", "plan"]
