"""Images and labels: from folders or simulated, checked, split and put in order. NumPy only."""

from tinyseg.data.batches import epoch_order
from tinyseg.data.choose import with_foreground
from tinyseg.data.contract import Contract, Watch, moments_of
from tinyseg.data.dataset import Dataset, open_dataset
from tinyseg.data.decode import load_image
from tinyseg.data.door import Door, Fitted, Views, find_scale
from tinyseg.data.fit import (
    Box,
    box_of,
    boxes_of,
    fit_image,
    fit_label,
    inside,
    resize_planes,
    seen,
    unfit,
)
from tinyseg.data.labels import is_foreground
from tinyseg.data.normalize import InputScale, Normalize
from tinyseg.data.pairs import write_pairs
from tinyseg.data.sample import Sample
from tinyseg.data.simulate import KINDS, simulate
from tinyseg.data.split import Split, make_split
from tinyseg.data.squares import Squares, fit_squares, keep_scale
from tinyseg.data.store import Store, image_files

__all__ = [
    "KINDS",
    "Box",
    "Contract",
    "Dataset",
    "Door",
    "Fitted",
    "InputScale",
    "Normalize",
    "Sample",
    "Split",
    "Squares",
    "Store",
    "Views",
    "Watch",
    "box_of",
    "boxes_of",
    "epoch_order",
    "find_scale",
    "fit_image",
    "fit_label",
    "fit_squares",
    "image_files",
    "inside",
    "is_foreground",
    "keep_scale",
    "load_image",
    "make_split",
    "moments_of",
    "open_dataset",
    "resize_planes",
    "seen",
    "simulate",
    "unfit",
    "with_foreground",
    "write_pairs",
]
