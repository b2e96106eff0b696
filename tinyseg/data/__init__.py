"""Images and labels: from folders or simulated, checked, split and put in order. NumPy only."""

from tinyseg.data.batches import epoch_order
from tinyseg.data.dataset import Dataset, open_dataset
from tinyseg.data.decode import load_image
from tinyseg.data.fit import Box, box_of, fit_image, fit_label, unfit
from tinyseg.data.pairs import write_pairs
from tinyseg.data.sample import Sample
from tinyseg.data.simulate import KINDS, simulate
from tinyseg.data.split import Split, make_split

__all__ = [
    "KINDS",
    "Box",
    "Dataset",
    "Sample",
    "Split",
    "box_of",
    "epoch_order",
    "fit_image",
    "fit_label",
    "load_image",
    "make_split",
    "open_dataset",
    "simulate",
    "unfit",
    "write_pairs",
]
