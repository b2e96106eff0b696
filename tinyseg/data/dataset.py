"""The public dataset: images and labels by index, split into parts, in batches for a loop."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tinyseg.common.threads import Progress
from tinyseg.config import Config, DataConfig
from tinyseg.data.content import Content, read_content
from tinyseg.data.prepare.batches import epoch_order
from tinyseg.data.prepare.input_pipeline import InputPipeline
from tinyseg.data.prepare.prepared_images import cached_scale, prepare_images
from tinyseg.data.reading.arrays import Arrays
from tinyseg.data.reading.label_map import LabelMap
from tinyseg.data.reading.layouts import Layout
from tinyseg.data.reading.pixel_range import Ranges
from tinyseg.data.sample import Sample
from tinyseg.data.splits.split import PARTS, Split, make_split
from tinyseg.data.storage.store import Store
from tinyseg.errors import DataError

Batch = tuple[np.ndarray, np.ndarray]


class Dataset:
    """Images and labels of a folder, a dataset known by name, a simulation, or arrays.

    `dataset[i]` is a `Sample` with `.image` (H, W, C), `.label` (H, W) class ids and `.name`;
    `len(dataset)`, `.names`, `.classes`, `.class_names` and `.channels` describe all of them.
    `.split` names the images for training, validation and test, and `.batches("train")` yields
    what the network sees. All arrays are NumPy.

    Args:
        source: A folder of images and masks, "pets:PATH", "sim:cells?n=64", (images, masks), or
            another dataset, which is read again under the new settings.
        config: The settings; `settings` by keyword (`size=256`, `val_fraction=0.3`) change it.
        label_map: Mask value to class id of a run, used instead of a found one. Datasets that know
            their labels (named, simulated) must have the same number of classes.
        channels: Channels of a run: 1 (gray), 3 (RGB), or those of all images.
        ranges: Pixel values of a run that become 0 and 1, used instead of those that are found.
        labeled: Whether masks are needed; without, only images are read.
        progress: Called as `progress(done, total)` while files are read.
        layout: The pairs of files, in place of those that would be found.
        store: Where decoded images are kept: by default in the user's cache folder.
        class_names: Those of a run, background first: annotations get its class ids by name.

    Every file is decoded once, now, so that a bad one raises a DataError before training. A
    setting that is unknown or has a wrong value is a ConfigError.
    """

    cache_bytes = 1 << 30
    """Most memory that loaded images take."""

    def __init__(
        self,
        source: "str | Path | Arrays | tuple[Any, Any] | Content | Dataset",
        config: DataConfig | None = None,
        *,
        label_map: Mapping[int, int] | None = None,
        channels: int | None = None,
        ranges: Ranges | None = None,
        labeled: bool = True,
        progress: Progress | None = None,
        layout: Layout | None = None,
        store: Store | None = None,
        class_names: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        """Open the source and look at all of it; see the class for the arguments."""
        if isinstance(source, Dataset):
            config, source = config or source.config, source._origin
        if isinstance(source, tuple):
            source = Arrays(*source)
        self._origin: str | Path | Arrays | Content = source
        self.config: DataConfig = _configure(config or DataConfig(), settings)
        self.store = store or Store()
        """Where decoded and prepared images are kept."""
        if not isinstance(source, Content):
            source = read_content(
                source,
                self.config,
                self.store,
                label_map=label_map,
                channels=channels,
                ranges=ranges,
                labeled=labeled,
                progress=progress,
                layout=layout,
                class_names=class_names,
            )
        self._content = source
        self.source, self.names, self.channels = source.source, source.names, source.channels
        self.ranges: Ranges = source.ranges
        """The stored pixel values that become 0 and 1."""
        self.label_map = dict(source.decided.table)
        self.classes = LabelMap(self.label_map).classes
        self.class_names = source.class_names or tuple(f"class {k}" for k in range(self.classes))
        self.predefined, self.duplicates = source.predefined, source.duplicates
        self.warnings = (*source.warnings, *self.store.warnings())
        self._index = {name: index for index, name in enumerate(self.names)}
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._cached = 0
        self._lock = threading.Lock()

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[ArrayLike] | np.ndarray,
        masks: Sequence[ArrayLike] | np.ndarray,
        names: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        **settings: Any,
    ) -> "Dataset":
        """Return the dataset of images and masks in memory: one array of each, or lists of arrays.

        Args:
            images: Each (H, W) or (H, W, channels): uint8, uint16, or floats in [0, 1].
            masks: Each (H, W), of the image's size: bools, or integers from 0 to 65535, which mean
                what they would mean in mask files: 0 and 255 are background and object, 0, 1, 2 ...
                are class ids; `labels="0:0,7:1"` says it.
            names: Unique names of the images; "image_0", "image_1" ... without.
            class_names: Names of the classes, background first.
            settings: Settings of the data, such as `size=256`.

        Raises:
            DataError: Shapes, counts, types or values cannot be used.
        """
        return cls(Arrays(images, masks, names, class_names), **settings)

    @property
    def layout(self) -> str:
        """What was taken for images and masks, in one line; "" if that needs no words."""
        return self._content.layout

    def __repr__(self) -> str:
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        return f"Dataset({self.source!r}: {len(self)} images, {channels}, {self.classes} classes)"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: int | str) -> Sample:
        """Read or draw a sample, by index or name; the latest stay in memory (`cache_bytes`)."""
        index = self.index(key) if isinstance(key, str) else range(len(self))[key]
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        sample = _frozen(self._content.read(index))
        with self._lock:
            self._keep(index, sample)
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))

    @functools.cached_property
    def split(self) -> Split:
        """The names of each part: `.train`, `.val` and `.test`, as the settings divide them."""
        return make_split(self, self.config)

    def batches(
        self, part: str, batch_size: int = 8, seed: int = 0, epochs: int = 1
    ) -> Iterator[Batch]:
        """Yield batches as training prepares them: images (B, C, S, S) float32, labels (B, S, S).

        Images are preprocessed, brought to the side S = `size` and normalized by the training part;
        labels are uint8 class ids, 255 where ignored. "train" is shuffled anew in every epoch by
        the seed, and its last batch is filled up from the epoch's start; "val" and "test" come in
        order, each tile once, so that their last batch may be smaller.
        """
        if part not in PARTS:
            raise DataError(f"part={part!r} is unknown; give {', '.join(map(repr, PARTS))}")
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size}: give at least 1")
        names = getattr(self.split, part)
        if names and self[names[0]].label is None:
            raise DataError(f"{self.source}: opened without labels; open it with labeled=True")
        if not names:
            raise DataError(
                f"{self.source}: the part {part!r} is empty; raise data.{part}_fraction"
            )
        return self._batches(part, names, batch_size, seed, epochs)

    def _batches(
        self, part: str, names: Sequence[str], batch_size: int, seed: int, epochs: int
    ) -> Iterator[Batch]:
        scale = cached_scale(self, self.split.train, self.config)
        images = prepare_images(self, names, InputPipeline(self.config, scale))
        for epoch in range(epochs):
            batches: Sequence[np.ndarray]
            if part == "train":
                batches = list(epoch_order(len(images), batch_size, seed, epoch))
            else:
                every = np.arange(len(images))
                batches = [every[i : i + batch_size] for i in every[::batch_size]]
            for indices in batches:
                tiles = [images[index] for index in indices]
                yield InputPipeline.to_batch(tiles), np.array(images.labels[indices])

    def index(self, name: str) -> int:
        """Return the index of a name; DataError when the dataset does not have it."""
        if name not in self._index:
            raise DataError(f"{self.source}: no sample {name!r}; the first is {self.names[0]!r}")
        return self._index[name]

    def size(self, index: int) -> tuple[int, int]:
        """Return rows and columns of an image."""
        if self._content.sizes is not None:
            return self._content.sizes[index]
        rows, columns = self[index].image.shape[:2]
        return rows, columns

    def class_pixels(self, index: int) -> Mapping[int, int]:
        """Return the pixels of each class id in a label (255 = ignored); empty without a label."""
        if self._content.class_pixels is not None:
            return self._content.class_pixels[index]
        label = self[index].label
        if label is None:
            return {}
        counts = np.bincount(label.ravel())
        return {int(class_id): int(counts[class_id]) for class_id in np.flatnonzero(counts)}

    @property
    def label_warnings(self) -> tuple[str, ...]:
        """What was decided about the labels and could be wrong: part of `warnings`."""
        return self._content.decided.warnings

    @property
    def label_notes(self) -> tuple[str, ...]:
        """What was decided about the labels and is hardly ever wrong."""
        return self._content.decided.notes

    def _keep(self, index: int, sample: Sample) -> None:
        if index not in self._cache and sample.bytes <= self.cache_bytes:
            self._cache[index] = sample
            self._cached += sample.bytes
        while self._cached > self.cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].bytes

    def fingerprint(self) -> str:
        """Return 16 hex digits over names and contents, or over the arguments of a simulation."""
        return self._content.fingerprint


def _frozen(sample: Sample) -> Sample:
    """Pixels that nobody can change by accident: the cache hands the same arrays out again."""
    for array in (sample.image, sample.label):
        if array is not None:
            array.flags.writeable = False
    return sample


def _configure(config: DataConfig, settings: Mapping[str, Any]) -> DataConfig:
    keys = {f"data.{name}": value for name, value in settings.items()}
    return Config(data=config).with_settings(**keys).data
