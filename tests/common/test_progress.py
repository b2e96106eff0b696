import io
import time

import pytest

from tinyseg.common.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return [line for line in self.getvalue().replace("\x1b[K", "").split("\r") if line]


def test_a_terminal_that_cannot_redraw_a_line_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress("reading", 2, stream=stream) as progress:
        progress.update(2)
    assert stream.getvalue() == ""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that Progress sees; a test sets it."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setenv("COLUMNS", "200")
    return now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (8.2, "8 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (125, "2:05"),
        (3599.6, "1:00:00"),
        (3603, "1:00:03"),
        (100 * 3600, "100:00:00"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_sees_a_bar_and_the_time_that_is_left(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress("epoch 1", 8, stream=terminal) as progress:
        clock[0] += 10
        progress.update(2, note="loss 0.5")
    first = terminal.lines()[0]
    assert first == "epoch 1 " + "█" * 6 + "·" * 18 + " 2/8 ETA 30 s loss 0.5"
    assert terminal.getvalue().endswith("\r\x1b[K"), "the line is wiped at the end"


def test_it_draws_at_most_ten_times_a_second_but_always_the_end(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress("work", 1000, stream=terminal) as progress:
        for done in range(1, 1001):
            clock[0] += 0.001
            progress.update(done)
    lines = terminal.lines()
    assert 9 <= len(lines) <= 11
    assert "1000/1000 ETA 0 s" in lines[-1]


def test_restart_leaves_the_compiling_out_of_the_estimate(clock: list[float]) -> None:
    terminal = Terminal()
    progress = Progress("train", 4, stream=terminal)
    clock[0] += 100
    progress.restart()
    clock[0] += 2
    progress.update(1)
    assert "ETA 6 s" in terminal.lines()[-1]


def test_a_total_that_becomes_known_later(clock: list[float]) -> None:
    terminal = Terminal()
    progress = Progress("read", 0, stream=terminal)
    clock[0] += 1
    progress.update(1, 2)
    assert "1/2 ETA 1 s" in terminal.lines()[-1]
    clock[0] += 1
    progress.update(2)
    assert "2/2" in terminal.lines()[-1]


@pytest.mark.parametrize(("columns", "width"), [(200, 118), (80, 79), (40, 39)])
def test_long_notes_do_not_wrap(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, columns: int, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    progress = Progress("x", 2, stream=terminal)
    progress.update(2, note="n" * 500)
    assert [len(line) for line in terminal.lines()] == [width]


def test_more_done_than_announced_is_a_full_bar(clock: list[float]) -> None:
    terminal = Terminal()
    progress = Progress("x", 4, stream=terminal)
    clock[0] += 8
    progress.update(6)
    assert terminal.lines()[-1].startswith("x " + "█" * 24 + " 6/4 ETA 0 s")


def test_without_a_total_the_time_ticks_by_itself_and_the_thread_ends() -> None:
    terminal = Terminal()
    with Progress("compiling", stream=terminal) as progress:
        deadline = time.monotonic() + 10
        while not terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert terminal.lines()[-1] == "compiling 0 s"
        thread = progress._ticker
        assert thread is not None
    assert not thread.is_alive()


def test_nothing_is_written_where_there_is_no_terminal(clock: list[float]) -> None:
    stream = io.StringIO()
    for total in (0, 3):
        with Progress("work", total, stream=stream) as progress:
            for done in (1, 2, 3):
                clock[0] += 10
                progress.update(done, 3)
    assert stream.getvalue() == ""
    assert progress.seconds == 30


def test_an_error_inside_passes_through_and_the_line_is_wiped() -> None:
    terminal = Terminal()
    with pytest.raises(ZeroDivisionError), Progress("x", 2, stream=terminal) as progress:
        progress.update(1 // 0)
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_the_eta_goes_by_what_was_done_here(clock: list[float]) -> None:
    """The second of two epochs of ten: eleven of twenty after one second is nine seconds left."""
    terminal = Terminal()
    progress = Progress("epoch 2/2", 20, 10, stream=terminal)
    clock[0] += 1.0
    progress.update(11)
    assert "11/20 ETA 9 s" in terminal.getvalue()
    progress.restart()
    clock[0] += 2.0
    progress.update(12)
    assert "12/20 ETA 16 s" in terminal.getvalue()
