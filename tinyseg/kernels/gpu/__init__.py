"""Kernels for tensor cores."""
