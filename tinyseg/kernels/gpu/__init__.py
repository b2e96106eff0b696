"""Kernels for the tensor cores of GPUs, in half types, and the convolutions made of them."""
