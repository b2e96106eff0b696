"""One pass over all files of a folder: every bad file is found before training, not in hour 3.

Each case is decoded once for its content: what was decoded before comes from the store.
"""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinyseg.common.threads import Progress, in_threads
from tinyseg.data.reading.cases import MOST_SETS, CaseFacts, check_values, decode_case
from tinyseg.data.reading.duplicates import Duplicate, find_duplicates
from tinyseg.data.reading.layouts import Case
from tinyseg.data.sample import name_some
from tinyseg.data.storage.store import Arrays, Store, digest
from tinyseg.errors import DataError


class CaseReader:
    """Cases by index, from the store when it has them, else decoded and kept there."""

    def __init__(self, cases: Sequence[Case], store: Store):
        self.cases, self.store = cases, store
        self.contents: list[tuple[bytes, ...]] = [()] * len(cases)
        """SHA-256 of the files of each case, as they were scanned."""
        self.found: dict[int, CaseFacts] = {}
        self._stamps: list[object] = [None] * len(cases)
        self._digests: dict[object, bytes] = {}

    def scan(self, table: Mapping[int, int] | None, progress: Progress | None) -> list[CaseFacts]:
        """The facts of all cases, checked; mask values too when `table` is given.

        DataError for the first case that cannot be used, with the number and names of the others.
        """

        def scan(index: int) -> CaseFacts | DataError:
            try:
                facts = self._facts(index)
                if table is not None:
                    check_values(facts, table)
                return facts
            except DataError as error:
                return error

        facts: list[CaseFacts] = []
        errors: list[tuple[Case, DataError]] = []
        indices = range(len(self.cases))
        for case, found in zip(self.cases, in_threads(scan, indices, progress), strict=True):
            if isinstance(found, DataError):
                errors.append((case, found))
            else:
                facts.append(found)
        _refuse(errors)
        return facts

    def read(self, index: int) -> tuple[Arrays, CaseFacts]:
        """The arrays of `decode_case`, as they were scanned unless the store has lost them."""
        arrays = self.store.load(self._key(index))
        return (arrays, self.found[index]) if arrays else self._decode(index)

    def _facts(self, index: int) -> CaseFacts:
        case = self.cases[index]
        self._stamps[index] = stamps = _stamps(case)
        self.contents[index] = tuple(self._content(*pair) for pair in stamps)
        # a file that cannot be read has no content that a key could tell
        kept = self.store.facts(self._key(index)) if all(self.contents[index]) else None
        facts = CaseFacts.from_json(kept, case) if kept else self._decode(index)[1]
        self.found[index] = facts
        return facts

    def _decode(self, index: int) -> tuple[Arrays, CaseFacts]:
        case = self.cases[index]
        arrays, facts = decode_case(case)
        # a file that was written to meanwhile is not the one that the key tells
        same = all(self.contents[index]) and _stamps(case) == self._stamps[index]
        if same and len(facts.sets) <= MOST_SETS:
            self.store.keep(self._key(index), arrays, facts.to_json())
        return arrays, facts

    def _key(self, index: int) -> str:
        return digest("case", self.cases[index].page, *self.contents[index])

    def _content(self, path: Path, stamp: object) -> bytes:
        """SHA-256 of a file, once for a stack of many; nothing where decoding will say why."""
        if (path, stamp) not in self._digests:
            found = b""
            with contextlib.suppress(OSError):
                if path.is_file():
                    with path.open("rb") as file:
                        found = hashlib.file_digest(file, "sha256").digest()
            self._digests[path, stamp] = found
        return self._digests[path, stamp]


def _stamps(case: Case) -> list[tuple[Path, object]]:
    """The files of a case, each with what changes when it is written."""
    return [(path, _stamp(path)) for path in (case.image, *case.masks)]


def _stamp(path: Path) -> object:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def check_all_values(facts: Sequence[CaseFacts], table: Mapping[int, int]) -> None:
    """`check_values` of all cases: a scan keeps only the first values of a mask that has many."""
    errors = []
    for fact in facts:
        try:
            check_values(fact, table)
        except DataError as error:
            errors.append((fact.case, error))
    _refuse(errors)


def _refuse(errors: Sequence[tuple[Case, DataError]]) -> None:
    """Raises the first error, with the number and names of the others."""
    if len(errors) == 1:
        raise errors[0][1]
    if errors:
        others = name_some(case.name for case, _ in errors[1:])
        raise DataError(f"{errors[0][1]}; also bad, {len(errors)} in all: {others}")


def remarks(facts: Sequence[CaseFacts], table: Mapping[int, int], scanned: bool) -> list[str]:
    """Warnings that do not stop a run: empty masks, frames left out, bright background."""
    empty = [fact.case.name for fact in facts if fact.masks and not fact.foreground(table)]
    lines = empty_remark(empty, len(facts))
    share = sum(f.foreground(table) for f in facts) / max(1, sum(f.pixels for f in facts))
    if scanned and share > 0.5 and sorted(table.values()) == [0, 1]:
        low, high = sorted(table)
        lines.append(
            f"{share:.0%} of all pixels are foreground; if the value {low} is the object set "
            f'data.labels="{low}:1,{high}:0"'
        )
    frames = [fact.case.name for fact in facts if fact.more_frames]
    if frames:
        lines.append(f"only the first frame is used of {len(frames)} files: {name_some(frames)}")
    return lines


def color_remark(facts: Sequence[CaseFacts]) -> list[str]:
    """The warning that a few colour images make all be read as RGB, if it is so."""
    colored = [fact.case.name for fact in facts if not fact.grey]
    if not 0 < len(colored) < len(facts) / 2:
        return []
    return [
        f"only {len(colored)} of {len(facts)} images have colour: {name_some(colored)}; "
        "set data.color=grey to read all as grey"
    ]


def empty_remark(names: Sequence[str], count: int) -> list[str]:
    """The warning that some of `count` labels hold no object, if any."""
    return [f"{len(names)} of {count} masks are empty: {name_some(names)}"] * bool(names)


def duplicates_of(facts: Sequence[CaseFacts]) -> tuple[Duplicate, ...]:
    """The images that show one picture."""
    return find_duplicates(
        [fact.case.name for fact in facts],
        [fact.digest for fact in facts],
        [fact.thumbnail for fact in facts],
    )


def duplicate_remark(duplicates: Sequence[Duplicate]) -> list[str]:
    """The warning that images show one picture, if some do."""
    if not duplicates:
        return []
    listed = name_some(duplicates, most=2)
    return [f"duplicate images: {listed}; `tinyseg data check` lists all"]
