"""Kernels for the CPU, written in tinygrad's UOps."""
