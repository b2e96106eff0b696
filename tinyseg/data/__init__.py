"""Images and labels: read or simulated, checked, split, prepared for the network. NumPy only.

In come a folder, a text such as "sim:cells" or "pets:PATH", or arrays; out come a `Dataset`, whose
samples are whole images with class ids, and tiles and batches as `InputPipeline` prepares them.
This room must not know tinygrad, networks, losses or run folders.
"""

from tinyseg.data.dataset import Dataset
from tinyseg.data.prepare.batches import epoch_order
from tinyseg.data.prepare.input_pipeline import InputPipeline, Tile, Tiles, find_scale
from tinyseg.data.prepare.input_statistics import (
    DriftMonitor,
    InputStatistics,
    channel_names,
    image_moments,
)
from tinyseg.data.prepare.normalize import InputScale, Normalize
from tinyseg.data.prepare.prepared_images import PreparedImages, cached_scale, prepare_images
from tinyseg.data.prepare.resize import (
    Placement,
    image_part,
    place_image,
    place_tiles,
    prepare_label,
    resize_planes,
    restore_size,
    visible_part,
)
from tinyseg.data.prepare.selection import with_foreground
from tinyseg.data.reading.arrays import to_image
from tinyseg.data.reading.decode import load_image, to_channels
from tinyseg.data.reading.label_map import is_foreground
from tinyseg.data.reading.pixel_range import Ranges, ranges_from_json
from tinyseg.data.sample import Sample
from tinyseg.data.simulation.simulate import KINDS, simulate
from tinyseg.data.splits.split import Split, make_split
from tinyseg.data.storage.pairs import write_pairs
from tinyseg.data.storage.store import Store, image_files

__all__ = [
    "KINDS",
    "Dataset",
    "DriftMonitor",
    "InputPipeline",
    "InputScale",
    "InputStatistics",
    "Normalize",
    "Placement",
    "PreparedImages",
    "Ranges",
    "Sample",
    "Split",
    "Store",
    "Tile",
    "Tiles",
    "cached_scale",
    "channel_names",
    "epoch_order",
    "find_scale",
    "image_files",
    "image_moments",
    "image_part",
    "is_foreground",
    "load_image",
    "make_split",
    "place_image",
    "place_tiles",
    "prepare_images",
    "prepare_label",
    "ranges_from_json",
    "resize_planes",
    "restore_size",
    "simulate",
    "to_channels",
    "to_image",
    "visible_part",
    "with_foreground",
    "write_pairs",
]
