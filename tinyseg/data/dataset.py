"""A dataset: names and samples, from a folder or simulated, checked when it is opened."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinyseg.common.threads import Progress
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.reading.cases import CaseFacts, check_values
from tinyseg.data.reading.decode import to_channels
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.reading.label_map import (
    LabelMap,
    check_label_map,
    find_label_map,
    label_text,
    parse_labels,
    scans_rest,
)
from tinyseg.data.reading.layouts import Case, Layout, find_cases
from tinyseg.data.reading.scan import (
    CaseReader,
    check_all_values,
    color_remark,
    duplicate_remark,
    duplicates_of,
    empty_remark,
    remarks,
)
from tinyseg.data.sample import Sample
from tinyseg.data.simulation.simulate import FACTS, Simulation, parse_simulation
from tinyseg.data.sources import Named, find_named
from tinyseg.data.storage.store import Store, digest
from tinyseg.errors import DataError

_COLORS = {"grey": 1, "rgb": 3}


class Dataset:
    """Samples by index, in natural order of their names; see `open_dataset`."""

    def __init__(
        self,
        source: str,
        names: Sequence[str],
        read: Callable[[int], Sample],
        fingerprint: Callable[[], str],
        label_map: Mapping[int, int],
        channels: int,
        *,
        class_names: Sequence[str] = (),
        predefined: Mapping[str, tuple[str, ...]] | None = None,
        warnings: Sequence[str] = (),
        duplicates: Sequence[Duplicate] = (),
        class_pixels: Sequence[Mapping[int, int]] | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
        store: Store | None = None,
        cache_bytes: int = 1 << 30,
    ) -> None:
        self.source = source
        self.names = tuple(names)
        self.label_map = dict(label_map)
        self.classes = LabelMap(self.label_map).classes
        self.class_names = tuple(class_names) or tuple(f"class {k}" for k in range(self.classes))
        self.channels = channels
        self.predefined = dict(predefined) if predefined else None
        self.store = store or Store()
        """Where decoded and fitted images are kept."""
        self.warnings = (*warnings, *self.store.remarks())
        self.duplicates = tuple(duplicates)
        """Images that show one picture, which a split keeps together."""
        self._class_pixels, self._sizes = class_pixels, sizes
        self._read, self._fingerprint = read, fingerprint
        self._index = {name: index for index, name in enumerate(self.names)}
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._cached, self._cache_bytes = 0, cache_bytes
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str) -> int:
        """The place of a name; DataError when the dataset does not have it."""
        if name not in self._index:
            raise DataError(f"{self.source}: no sample {name!r}; the first is {self.names[0]!r}")
        return self._index[name]

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image."""
        if self._sizes is not None:
            return self._sizes[index]
        rows, columns = self.load(index).image.shape[:2]
        return rows, columns

    def class_pixels(self, index: int) -> Mapping[int, int]:
        """Pixels of each class id in a label (255 = ignored); empty without a label."""
        if self._class_pixels is not None:
            return self._class_pixels[index]
        label = self.load(index).label
        if label is None:
            return {}
        counts = np.bincount(label.ravel())
        return {int(kind): int(counts[kind]) for kind in np.flatnonzero(counts)}

    def load(self, index: int) -> Sample:
        """Decodes or draws a sample; the latest ones stay in memory up to `cache_bytes`."""
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        sample = _frozen(self._read(index))
        with self._lock:
            self._keep(index, sample)
        return sample

    def _keep(self, index: int, sample: Sample) -> None:
        if index not in self._cache and sample.bytes <= self._cache_bytes:
            self._cache[index] = sample
            self._cached += sample.bytes
        while self._cached > self._cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].bytes

    def fingerprint(self) -> str:
        """16 hex digits over names and file contents, or over the arguments of a simulation."""
        return self._fingerprint()


def _frozen(sample: Sample) -> Sample:
    """Pixels that nobody can change by accident: the cache hands the same arrays out again."""
    for array in (sample.image, sample.label):
        if array is not None:
            array.flags.writeable = False
    return sample


def open_dataset(
    source: str | Path,
    config: DataConfig,
    *,
    label_map: Mapping[int, int] | None = None,
    channels: int | None = None,
    labelled: bool = True,
    progress: Progress | None = None,
    layout: Layout | None = None,
    store: Store | None = None,
) -> Dataset:
    """Opens a folder of images and masks, "pets:PATH" or "sim:cells?n=64&size=128&seed=0".

    A folder is scanned once: every file is decoded, so that a bad one is a DataError now, and what
    was decoded is kept in `store` (in the user's cache folder) by the files' content.
    `label_map` and `channels` of a run are enforced instead of found; with `labelled=False` masks
    are not looked for. Named and simulated datasets know their labels, so that there only the
    number of classes of a run is compared. `progress(done, total)` is called while scanning.
    `layout` stands in for the cases that would be found.
    """
    channels, store = channels or _COLORS.get(config.color), store or Store()
    if str(source).startswith("sim:"):
        made = parse_simulation(str(source))
        return _open_simulated(made, str(source), label_map, channels, store)
    named = find_named(str(source))
    if named:
        named = replace(named, layout=layout or named.layout)
        return _open_named(named, str(source), config.labels, label_map, channels, progress, store)
    layout = layout or find_cases(Path(source), labelled)
    given = dict(label_map) if label_map else parse_labels(config.labels)
    settled = label_map is not None or (given is not None and not scans_rest(config.labels))
    reader = CaseReader(layout.cases, store)
    facts = reader.scan(given if settled else None, progress)
    found = _label_map(facts, given or {}, settled, labelled)
    if labelled and label_map is None:
        remedy = "check data.labels and the masks"
        _refuse_all_empty(facts, found.table, str(source), remedy)
    return _open_folder(str(source), layout, reader, facts, found, settled, channels)


def _open_named(
    named: Named,
    source: str,
    labels: str,
    label_map: Mapping[int, int] | None,
    channels: int | None,
    progress: Progress | None,
    store: Store,
) -> Dataset:
    found = LabelMap(named.label_map)
    if label_map is not None:
        _check_classes(label_map, found.classes, source)
    elif labels != "auto":
        raise DataError(f"{source}: knows its labels, leave data.labels={labels!r} away")
    reader = CaseReader(named.layout.cases, store)
    facts = reader.scan(found.table, progress)
    if label_map is None:
        _refuse_all_empty(facts, found.table, source, "choose other options, or check the masks")
    shape = (found, True, channels, named.class_names)
    return _open_folder(source, named.layout, reader, facts, *shape)


def _label_map(
    facts: Sequence[CaseFacts], given: dict[int, int], settled: bool, labelled: bool
) -> LabelMap:
    if settled:
        return LabelMap(given)
    if not labelled:
        return LabelMap({0: 0, 255: 1})
    found = find_label_map([mask for fact in facts for mask in fact.masks], given)
    check_all_values(facts, found.table)
    return found


def _refuse_all_empty(
    facts: Sequence[CaseFacts], table: Mapping[int, int], source: str, remedy: str
) -> None:
    if not any(fact.foreground(table) for fact in facts):
        raise DataError(
            f"{source}: all {len(facts)} masks are empty under the label map "
            f"{label_text(table)!r}; {remedy}"
        )


def _open_folder(
    source: str,
    layout: Layout,
    reader: CaseReader,
    facts: Sequence[CaseFacts],
    found: LabelMap,
    settled: bool,
    channels: int | None,
    class_names: Sequence[str] = (),
) -> Dataset:
    cases = layout.cases
    channels = channels or (1 if all(fact.grey for fact in facts) else 3)
    more = remarks(facts, found.table, not settled)
    more += color_remark(facts) if channels == 3 else []
    duplicates = duplicates_of(facts)
    fingerprint = _fingerprint(reader, found.table if class_names else {})
    return Dataset(
        source,
        [case.name for case in cases],
        lambda index: _read_case(reader, index, found.table, channels),
        lambda: fingerprint,
        found.table,
        channels,
        class_names=class_names,
        predefined=_predefined(cases),
        warnings=[*layout.warnings, *found.warnings, *more, *duplicate_remark(duplicates)],
        duplicates=duplicates,
        class_pixels=[fact.class_pixels(found.table) for fact in facts],
        sizes=[fact.size for fact in facts],
        store=reader.store,
    )


def _read_case(reader: CaseReader, index: int, table: Mapping[int, int], channels: int) -> Sample:
    arrays, facts = reader.read(index)
    check_values(facts, table)
    case, image = facts.case, to_channels(arrays["image"], channels)
    label = facts.classes(table)[arrays["sets"]] if case.masks else None
    return Sample(case.name, image, label, (case.image, *case.masks))


def _fingerprint(reader: CaseReader, table: Mapping[int, int]) -> str:
    """Of names and contents; of a named dataset also of the labels that its options chose."""
    whole = hashlib.sha256()
    for case, files in zip(reader.cases, reader.contents, strict=True):
        whole.update(case.name.encode(errors="surrogateescape") + b"\0")
        labels = case.labels or table
        whole.update(repr(sorted(labels.items())).encode() if labels else b"")
        whole.update(b"".join(files))
    return whole.hexdigest()[:16]


def _predefined(cases: Sequence[Case]) -> dict[str, tuple[str, ...]] | None:
    """Names by split when the folders give at least two splits and every image is in one."""
    splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for case in cases:
        if case.split is None:
            return None
        splits[case.split].append(case.name)
    filled = {split: tuple(names) for split, names in splits.items() if names}
    return filled if "train" in filled and len(filled) > 1 else None


def _open_simulated(
    made: Simulation,
    source: str,
    label_map: Mapping[int, int] | None,
    channels: int | None,
    store: Store,
) -> Dataset:
    facts = FACTS[made.kind]
    empty = made.empty_names
    if label_map is not None:
        _check_classes(label_map, facts.classes, source)
    elif len(empty) == made.n:
        raise DataError(f"{source}: all {made.n} images are empty; lower empty={made.empty:g}")
    channels = channels or facts.channels

    def read(index: int) -> Sample:
        image, label = _drawn(made, index, store)
        return Sample(made.names[index], to_channels(image, channels), label)

    return Dataset(
        source,
        made.names,
        read,
        made.fingerprint,
        label_map or made.label_map,
        channels,
        warnings=empty_remark(empty, made.n),
        store=store,
    )


def _drawn(made: Simulation, index: int, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Image and label from the store: to draw one takes longer (3 to 12 ms at 128 x 128)."""
    key = digest("simulated", made, index)
    if kept := store.load(key):
        return kept["image"], kept["label"]
    sample = made.sample(index)
    assert sample.label is not None
    store.keep(key, {"image": sample.image, "label": sample.label}, {})
    return sample.image, sample.label


def _check_classes(label_map: Mapping[int, int], classes: int, source: str) -> None:
    check_label_map(label_map, "the label map")
    wanted = len(set(label_map.values()) - {IGNORE})
    if wanted != classes:
        raise DataError(f"{source}: has {classes} classes, the run {wanted}; choose another source")
