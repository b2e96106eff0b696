"""What a source holds: a folder, a dataset known by name, a simulation, or arrays."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from tinyseg.common.threads import Progress
from tinyseg.config import IGNORE, DataConfig
from tinyseg.data.annotations import Annotations, find_annotations
from tinyseg.data.reading.arrays import Arrays
from tinyseg.data.reading.cases import CaseFacts, check_values
from tinyseg.data.reading.decode import to_channels
from tinyseg.data.reading.duplicates import Duplicate, find_duplicates
from tinyseg.data.reading.fit_mask import find_turned
from tinyseg.data.reading.frames import split_frames
from tinyseg.data.reading.label_map import (
    LabelMap,
    check_label_map,
    label_text,
    parse_labels,
    scans_rest,
)
from tinyseg.data.reading.label_scan import find_label_map
from tinyseg.data.reading.label_warnings import label_warnings
from tinyseg.data.reading.layouts import Case, Layout, find_cases
from tinyseg.data.reading.pixel_range import Ranges, find_ranges, range_warnings, to_unit
from tinyseg.data.reading.scan import CaseReader, check_all_values, empty_warning, warnings_of
from tinyseg.data.sample import Sample, name_some
from tinyseg.data.simulation.simulate import FACTS, Simulation, parse_simulation
from tinyseg.data.sources import Named, find_named
from tinyseg.data.storage.store import Store, digest
from tinyseg.errors import DataError

_COLORS = {"grey": 1, "rgb": 3}


@dataclass(frozen=True)
class Content:
    """The samples of a source, and what is known of them without reading them again."""

    source: str
    """The source in words, for messages."""
    names: tuple[str, ...]
    read: Callable[[int], Sample]
    fingerprint: str
    """16 hex digits over names and contents, or over the arguments of a simulation."""
    decided: LabelMap
    """The label map, with what was decided on the way: its warnings are also in `warnings`."""
    channels: int
    class_names: tuple[str, ...] = ()
    predefined: Mapping[str, tuple[str, ...]] | None = None
    """Names by split, when the folders give one."""
    ranges: Ranges = field(default_factory=dict)
    """The stored pixel values that become 0 and 1, see `find_ranges`."""
    layout: str = ""
    """What was taken for images and masks, in one line."""
    warnings: tuple[str, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    """Images that show one picture, which a split keeps together."""
    class_pixels: Sequence[Mapping[int, int]] | None = None
    """Pixels of each class id in each label."""
    sizes: Sequence[tuple[int, int]] | None = None
    """Rows and columns of each image."""


def read_content(
    source: str | Path | Arrays,
    config: DataConfig,
    store: Store,
    *,
    label_map: Mapping[int, int] | None = None,
    channels: int | None = None,
    ranges: Ranges | None = None,
    labeled: bool = True,
    progress: Progress | None = None,
    layout: Layout | None = None,
    class_names: Sequence[str] = (),
) -> Content:
    """Look at all files or arrays of a source once; see `Dataset` for the arguments."""
    text = "arrays" if isinstance(source, Arrays) else str(source)
    channels = channels or _COLORS.get(config.color)
    if text.startswith("sim:"):
        return _simulated(parse_simulation(text), text, label_map, channels, store)
    opened = _open(source, text, config, layout, class_names, labeled, store)
    reader, own_labels, own_names = opened.reader, opened.label_map, opened.class_names
    _check_named(own_labels, text, label_map, _unless_drawn(reader.cases, config.labels))
    labels = own_labels or label_map or parse_labels(config.labels)
    scanned = not (own_labels or label_map) and scans_rest(config.labels)
    facts, mapping = _scan(reader, labels or {}, scanned, config.exif, labeled, progress)
    if labeled and label_map is None:
        _refuse_all_empty(facts, mapping.table, text, named=bool(own_labels))
    _check_names(own_names, mapping.classes, text)
    if own_labels and label_map is None and config.labels == "auto":
        mapping, own_names = _without_unused(facts, mapping, own_names)
    channels = channels or _common_channels(facts, text)
    ranges, depths = _ranges(facts, config.range) if ranges is None else (ranges, [])
    names = tuple(case.name for case in reader.cases)
    duplicates = find_duplicates(names, [f.digest for f in facts], [f.thumbnail for f in facts])
    more = warnings_of(facts, duplicates, mapping.table, color=channels == 3)
    return Content(
        text,
        names,
        partial(_read_case, reader, mapping, channels, ranges),
        _fingerprint(reader, own_labels, config.pages, mapping.turned),
        mapping,
        channels,
        ranges=ranges,
        class_names=own_names or tuple(class_names),
        predefined=_predefined(reader.cases),
        layout=opened.layout.taken,
        warnings=(*opened.layout.all_warnings, *depths, *mapping.warnings, *more),
        duplicates=duplicates,
        class_pixels=[fact.class_pixels(mapping.table) for fact in facts],
        sizes=[fact.size for fact in facts],
    )


def _open(
    source: str | Path | Arrays,
    text: str,
    config: DataConfig,
    layout: Layout | None,
    class_names: Sequence[str],
    labeled: bool,
    store: Store,
) -> "_Opened":
    if isinstance(source, Arrays):
        return _Opened(source, Layout((), ()), {}, source.class_names)
    named: Named | Annotations | None = find_named(text)
    if not named and labeled and not config.masks:
        named = find_annotations(Path(source), config, class_names)
    if named:
        layout, labels, names = layout or named.layout, named.label_map, named.class_names
    else:
        layout = layout or find_cases(
            Path(source), labeled, config.strict, config.images, config.masks
        )
        names = layout.class_names
        labels = {class_id: class_id for class_id in range(len(names))}
    layout, stacked = split_frames(layout, config.pages), config.pages == "channels"
    return _Opened(CaseReader(layout.cases, store, stacked), layout, labels, names)


@dataclass(frozen=True)
class _Opened:
    """A source that can be read."""

    reader: CaseReader | Arrays
    layout: Layout
    label_map: Mapping[int, int]
    """Of what has its own; else empty."""
    class_names: tuple[str, ...]
    """If they are known."""


def _check_named(
    own: Mapping[int, int], source: str, label_map: Mapping[int, int] | None, labels: str
) -> None:
    if not own:
        return
    if label_map is not None:
        _check_classes(label_map, LabelMap(dict(own)).classes, source)
    elif labels != "auto":
        raise DataError(f"{source}: has its own label map; remove data.labels={labels!r}")


def _unless_drawn(cases: Sequence[Case], labels: str) -> str:
    """Return `data.labels`, which drawn annotations use themselves."""
    return "auto" if any(case.annotation for case in cases) else labels


def _check_names(names: Sequence[str], classes: int, source: str) -> None:
    if names and len(names) != classes:
        raise DataError(
            f"{source}: {len(names)} class names for {classes} classes; give one name for each, "
            "background first"
        )


def _without_unused(
    facts: Sequence[CaseFacts], mapping: LabelMap, names: tuple[str, ...]
) -> tuple[LabelMap, tuple[str, ...]]:
    """Leave out classes of annotations that have no pixel, such as those of other datasets."""
    used = {0, 1}.union(*(fact.class_pixels(mapping.table) for fact in facts)) - {IGNORE}
    unused = [name for class_id, name in enumerate(names) if class_id not in used]
    if not unused or not all(fact.case.annotation for fact in facts):
        return mapping, names
    ids = {class_id: number for number, class_id in enumerate(sorted(used))} | {IGNORE: IGNORE}
    table = {value: ids[to] for value, to in mapping.table.items() if to in ids}
    warning = f"classes without a pixel left out: {name_some(unused, most=8)}"
    named = tuple(name for name in names if name not in unused)
    return replace(mapping, table=table, warnings=(*mapping.warnings, warning)), named


def _scan(
    reader: CaseReader | Arrays,
    labels: Mapping[int, int],
    scanned: bool,
    exif: str,
    labeled: bool,
    progress: Progress | None,
) -> tuple[list[CaseFacts], LabelMap]:
    """Return the facts of all cases, and the label map: `labels`, or one made from a scan."""
    if not scanned:
        facts, mapping = reader.scan(labels, progress), LabelMap(dict(labels))
        return facts, _with_warnings(mapping, facts, scanned, exif)
    facts = reader.scan(None, progress)
    if not labeled:
        return facts, LabelMap({0: 0, 255: 1})
    mapping = find_label_map([mask for fact in facts for mask in fact.masks], labels)
    check_all_values(facts, mapping.table)
    return facts, _with_warnings(mapping, facts, scanned, exif)


def _with_warnings(
    mapping: LabelMap, facts: Sequence[CaseFacts], scanned: bool, exif: str
) -> LabelMap:
    turned, said, notes = find_turned({fact.case.name: fact.turned for fact in facts}, exif)
    warnings = (*mapping.warnings, *label_warnings(facts, mapping.table, scanned), *said)
    return replace(mapping, warnings=warnings, notes=(*mapping.notes, *notes), turned=turned)


def _refuse_all_empty(
    facts: Sequence[CaseFacts], table: Mapping[int, int], source: str, named: bool
) -> None:
    remedy = "choose other options, or check" if named else "check data.labels and"
    if not any(fact.foreground(table) for fact in facts):
        raise DataError(
            f"{source}: all {len(facts)} masks are empty under the label map "
            f"{label_text(table)!r}; {remedy} the masks"
        )


def _ranges(facts: Sequence[CaseFacts], text: str) -> tuple[Ranges, list[str]]:
    extents = [fact.extent for fact in facts]
    return find_ranges(extents, text), range_warnings(extents, text)


def _common_channels(facts: Sequence[CaseFacts], source: str) -> int:
    """Return the channels of all images, 3 where some are gray and some RGB; else DataError."""
    counts = Counter(fact.channels for fact in facts)
    if set(counts) <= {1, 3}:
        return max(counts, default=1)
    if len(counts) > 1:
        rare = min(counts, key=lambda count: counts[count])
        names = name_some(fact.case.name for fact in facts if fact.channels == rare)
        numbers = " and ".join(map(str, sorted(counts)))
        raise DataError(
            f"{source}: images with {numbers} channels in one dataset; of {rare} are {names}: "
            "remove them, or save all images with the same channels"
        )
    return next(iter(counts))


def _read_case(
    reader: CaseReader | Arrays,
    mapping: LabelMap,
    channels: int,
    ranges: Ranges,
    index: int,
) -> Sample:
    arrays, facts = reader.read(index)
    check_values(facts, mapping.table)
    case = facts.case
    try:
        image = to_channels(to_unit(arrays["image"], ranges), channels)
    except (DataError, ValueError) as error:
        raise DataError(f"{case.image}: {error}") from None
    label = facts.label(arrays["sets"], mapping) if case.masks else None
    files = () if isinstance(reader, Arrays) else (case.image, *case.masks)
    return Sample(case.name, image, label, files)


def _fingerprint(
    reader: CaseReader | Arrays, own: Mapping[int, int], pages: str, turned: frozenset[str]
) -> str:
    """Of names and contents; of a named dataset also of the labels that its options chose."""
    whole = hashlib.sha256(b"pages are channels" * (pages == "channels"))
    for case, files in zip(reader.cases, reader.contents, strict=True):
        whole.update(case.name.encode(errors="surrogateescape") + b"\0")
        labels = case.labels or ({} if case.annotation else own)  # its file says all
        whole.update(repr(sorted(labels.items())).encode() if labels else b"")
        whole.update(b"".join(files))
        whole.update(b"turned" * (case.name in turned))
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


def _simulated(
    simulation: Simulation,
    source: str,
    label_map: Mapping[int, int] | None,
    channels: int | None,
    store: Store,
) -> Content:
    facts, empty = FACTS[simulation.kind], simulation.empty_names
    if label_map is not None:
        _check_classes(label_map, facts.classes, source)
    elif len(empty) == simulation.n:
        lower = f"lower empty={simulation.empty:g}"
        raise DataError(f"{source}: all {simulation.n} images are empty; {lower}")
    channels = channels or facts.channels

    def read(index: int) -> Sample:
        image, label = _drawn(simulation, index, store)
        return Sample(simulation.names[index], to_channels(image, channels), label)

    return Content(
        source,
        simulation.names,
        read,
        simulation.fingerprint(),
        LabelMap(dict(label_map or simulation.label_map)),
        channels,
        warnings=tuple(empty_warning(empty, simulation.n)),
    )


def _drawn(simulation: Simulation, index: int, store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Image and label from the store: to draw one takes longer (3 to 12 ms at 128 x 128)."""
    key = digest("simulated", simulation, index)
    if kept := store.load(key):
        return kept["image"], kept["label"]
    sample = simulation.sample(index)
    assert sample.label is not None
    store.keep(key, {"image": sample.image, "label": sample.label})
    return sample.image, sample.label


def _check_classes(label_map: Mapping[int, int], classes: int, source: str) -> None:
    check_label_map(label_map, "the label map")
    wanted = len(set(label_map.values()) - {IGNORE})
    if wanted != classes:
        raise DataError(f"{source}: has {classes} classes, the run {wanted}; choose other data")
