"""Kernels for the CPU in tinygrad's UOps, past its lowering, and the convolutions made of them.

A `*_kernel` takes sizes and a tile and returns what `Tensor.custom_kernel` calls; which tile that
is, `plans` decides.
"""
