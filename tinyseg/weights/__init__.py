"""Weights from other programs: files of weights in, arrays under our names out.

`read_weights` reads safetensors and PyTorch's files without PyTorch and without running anything
that is in them; `layouts` knows how other programs name the tensors of their networks. It must not
know losses, data, or how anything is trained.
"""

from tinyseg.weights.describe import table, to_dict
from tinyseg.weights.export import to_torch
from tinyseg.weights.file import Weights, read_weights
from tinyseg.weights.transfer import check_weights, load_weights, transfer

__all__ = [
    "Weights",
    "check_weights",
    "load_weights",
    "read_weights",
    "table",
    "to_dict",
    "to_torch",
    "transfer",
]
