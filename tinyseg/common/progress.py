"""A progress bar with the time that is left."""

import os
import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TextIO


class Progress:
    """A progress bar on a terminal that can redraw a line, nothing elsewhere; a context manager.

    `total=0` shows only the time, which goes on by itself (for work of unknown length).
    """

    def __init__(self, title: str, total: int = 0, first: int = 0, stream: TextIO | None = None):
        """Start with `first` of `total` done already; they do not count for the ETA."""
        self.title, self.total, self.note = title, total, ""
        self.first = self.done = first
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self.start = self._drawn = time.monotonic()
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> "Progress":
        if self.live and not self.total:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._ticker:
            self._ticker.join()
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.start

    def restart(self) -> None:
        """Count the time from now on; the ETA leaves out what was done before."""
        self.start, self.first = time.monotonic(), self.done

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show `done` of `total`; redraw at most ten times a second."""
        self.done, self.total, self.note = done, total or self.total, note or self.note
        now = time.monotonic()
        if self.live and (now - self._drawn > 0.1 or done == self.total):
            self._drawn = now
            self._draw()

    def _draw(self) -> None:
        line = f"{self.title} {duration(self.seconds)}"
        if self.total:
            filled = min(24, 24 * self.done // self.total)
            done = max(self.done - self.first, 1)
            left = self.seconds * max(self.total - self.done, 0) / done
            bar = "█" * filled + "·" * (24 - filled)
            line = f"{self.title} {bar} {self.done}/{self.total} ETA {duration(left)} {self.note}"
        # a line that wraps would be drawn again and again, one below the other
        width = min(118, shutil.get_terminal_size().columns - 1)
        self.stream.write(f"\r\x1b[K{line[:width]}")
        self.stream.flush()

    def _tick(self) -> None:
        while not self._stop.wait(0.25):
            self._draw()


def duration(seconds: float) -> str:
    """Return seconds as 8 s, 2:05 or 1:00:03."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
