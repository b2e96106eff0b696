"""Divide a dataset into training, validation and test, or into folds.

A dataset and its settings come in; names of images go out. Pixels are known only by how many of
each class a label has.
"""

from tinyseg.data.splits.split import (
    PARTS,
    Folds,
    Split,
    draw_split,
    load_split,
    make_folds,
    make_split,
)

__all__ = ["PARTS", "Folds", "Split", "draw_split", "load_split", "make_folds", "make_split"]
