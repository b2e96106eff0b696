"""Work on many images at once, in threads: Pillow releases Python's lock while it decodes."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]


def in_threads(
    work: Callable[[Item], Result], items: Sequence[Item], progress: Progress | None = None
) -> Iterator[Result]:
    """Yield the results in the order of the items; an error or Ctrl-C cancels the rest."""
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        for done, result in enumerate(pool.map(work, items), start=1):
            yield result
            if progress:
                progress(done, len(items))
    finally:
        pool.shutdown(cancel_futures=True)
