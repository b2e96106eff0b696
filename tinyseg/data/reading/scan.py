"""One pass over all files of a folder: every bad file is reported before training starts.

Each case is decoded once for its content: what was decoded before comes from the store.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tinyseg.common.files import portable
from tinyseg.common.threads import Progress, in_threads
from tinyseg.data.reading.cases import MOST_SETS, CaseFacts, check_values, decode_case
from tinyseg.data.reading.duplicates import Duplicate
from tinyseg.data.reading.layouts import Case
from tinyseg.data.sample import name_some
from tinyseg.data.storage.store import NamedArrays, Store, digest
from tinyseg.errors import DataError

Item = TypeVar("Item")


class CaseReader:
    """Read cases by index, from the store when it has them; else decode and store them."""

    def __init__(self, cases: Sequence[Case], store: Store, stacked: bool = False):
        """With `stacked` the pages of a TIFF are channels of one image."""
        self.cases = [replace(case, name=portable(case.name)) for case in cases]
        self.store, self.stacked = store, stacked
        self.contents: list[tuple[bytes, ...]] = [()] * len(cases)
        """SHA-256 of the files of each case, as they were scanned."""
        self._facts: dict[int, CaseFacts] = {}
        self._stamps: list[object] = [None] * len(cases)
        self._digests: dict[object, bytes] = {}

    def scan(self, table: Mapping[int, int] | None, progress: Progress | None) -> list[CaseFacts]:
        """Return the facts of all cases, checked; mask values too when `table` is given.

        DataError for the first case that cannot be used, with the number and names of the others.
        """

        def scan(index: int) -> CaseFacts:
            facts = self._scan(index)
            if table is not None:
                check_values(facts, table)
            return facts

        indices = range(len(self.cases))
        results = in_threads(lambda index: _or_error(scan, index), indices, progress)
        return _refuse_bad(self.cases, results)

    def read(self, index: int) -> tuple[NamedArrays, CaseFacts]:
        """Return the arrays of `describe`, as they were scanned unless the store has lost them."""
        arrays = self.store.load(self._key(index))
        return (arrays, self._facts[index]) if arrays else self._decode(index)

    def _scan(self, index: int) -> CaseFacts:
        case = self.cases[index]
        self._stamps[index] = stamps = _stamps(case)
        self.contents[index] = tuple(self._content(*pair) for pair in stamps)
        # a file that cannot be read has no content to make a key of
        stored = self.store.facts(self._key(index)) if all(self.contents[index]) else None
        facts = CaseFacts.from_json(stored, case) if stored else self._decode(index)[1]
        self._facts[index] = facts
        return facts

    def _decode(self, index: int) -> tuple[NamedArrays, CaseFacts]:
        case = self.cases[index]
        arrays, facts = decode_case(case, self.stacked)
        # a file that was written to meanwhile is not the one that the key stands for
        same = all(self.contents[index]) and _stamps(case) == self._stamps[index]
        if same and len(facts.sets) <= MOST_SETS:
            self.store.keep(self._key(index), arrays, facts.to_json())
        return arrays, facts

    def _key(self, index: int) -> str:
        case = self.cases[index]
        drawn = (case.class_ids, case.annotation.key if case.annotation else "")
        return digest("case", case.page, self.stacked, *drawn, *self.contents[index])

    def _content(self, path: Path, stamp: object) -> bytes:
        """SHA-256 of a file, once per file of many pages; empty where decoding will say why."""
        if (path, stamp) not in self._digests:
            content = b""
            with contextlib.suppress(OSError):
                if path.is_file():
                    with path.open("rb") as file:
                        content = hashlib.file_digest(file, "sha256").digest()
            self._digests[path, stamp] = content
        return self._digests[path, stamp]


def _stamps(case: Case) -> list[tuple[Path, object]]:
    """The files of a case, each with what changes when it is written."""
    return [(path, _stamp(path)) for path in (case.image, *case.masks)]


def _stamp(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_all_values(facts: Sequence[CaseFacts], table: Mapping[int, int]) -> None:
    """`check_values` of all cases: a scan keeps only the first values of a mask with many."""

    def checked(fact: CaseFacts) -> CaseFacts:
        check_values(fact, table)
        return fact

    _refuse_bad([fact.case for fact in facts], (_or_error(checked, fact) for fact in facts))


def _or_error(work: Callable[[Item], CaseFacts], item: Item) -> CaseFacts | DataError:
    try:
        return work(item)
    except DataError as error:
        return error


def _refuse_bad(cases: Sequence[Case], results: Iterable[CaseFacts | DataError]) -> list[CaseFacts]:
    """Return the facts; raise the first error, with the number and names of the others."""
    facts, errors = list[CaseFacts](), list[tuple[str, DataError]]()
    for case, result in zip(cases, results, strict=True):
        if isinstance(result, DataError):
            errors.append((case.name, result))
        else:
            facts.append(result)
    if len(errors) > 1:
        others = name_some(name for name, _ in errors[1:])
        raise DataError(f"{errors[0][1]}; also bad, {len(errors)} in all: {others}")
    if errors:
        raise errors[0][1]
    return facts


def warnings_of(
    facts: Sequence[CaseFacts],
    duplicates: Sequence[Duplicate],
    table: Mapping[int, int],
    *,
    color: bool,
) -> list[str]:
    """Return the warnings that do not stop a run, a line each."""
    empty = [fact.case.name for fact in facts if fact.masks and not fact.foreground(table)]
    lines = empty_warning(empty, len(facts))
    frames = [fact.case.name for fact in facts if fact.more_frames]
    if frames:
        lines.append(
            f"only the first frame is used of {len(frames)} files: {name_some(frames)}; set "
            "data.pages=channels if the pages are channels, data.pages=frames to use all"
        )
    colored = [fact.case.name for fact in facts if fact.channels == 3]
    if color and 0 < len(colored) < len(facts) / 2:
        lines.append(
            f"only {len(colored)} of {len(facts)} images have color: {name_some(colored)}; "
            "set data.color=grey to read all as grey"
        )
    if duplicates:
        listed = name_some(duplicates, most=2)
        lines.append(f"duplicate images: {listed}; `tinyseg data check` lists all")
    return lines


def empty_warning(names: Sequence[str], count: int) -> list[str]:
    """Return the warning that some of `count` labels hold no object, if any."""
    return [f"{len(names)} of {count} masks are empty: {name_some(names)}"] * bool(names)
