import json
import math
from pathlib import Path

import pytest

from tinyseg.runs.metrics_log import MetricsLog, history, read_log


@pytest.fixture
def log(tmp_path: Path) -> MetricsLog:
    return MetricsLog(tmp_path / "metrics.jsonl")


def test_records_are_appended_and_read_by_kind(log: MetricsLog) -> None:
    log.write("step", 1, loss=0.5)
    log.write("epoch", 1, val={"dice": [0.1, 0.2]})
    MetricsLog(log.path).write("step", 2, loss=0.25)
    assert read_log(log.path) == [
        {"kind": "step", "step": 1, "loss": 0.5},
        {"kind": "epoch", "step": 1, "val": {"dice": [0.1, 0.2]}},
        {"kind": "step", "step": 2, "loss": 0.25},
    ]
    assert [record["loss"] for record in read_log(log.path, "step")] == [0.5, 0.25]
    assert read_log(log.path, "nothing") == []


def test_what_is_not_finite_becomes_null_at_any_depth(log: MetricsLog) -> None:
    log.write("epoch", 3, loss=math.nan, val={"dice": [1.0, math.inf, (-math.inf, 2)], "n": 7})
    line = log.path.read_text()
    assert line == (
        '{"kind": "epoch", "step": 3, "loss": null, '
        '"val": {"dice": [1.0, null, [null, 2]], "n": 7}}\n'
    )
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_texts_stay_on_one_line(log: MetricsLog) -> None:
    log.write("note", 1, text='two\nlines \u2028 and "é"\x85')
    assert len(log.path.read_text().splitlines()) == 1
    assert read_log(log.path)[0]["text"] == 'two\nlines \u2028 and "é"\x85'


def test_cut_after_keeps_what_the_checkpoint_knows(log: MetricsLog) -> None:
    for step in (1, 2, 2, 3, 4):
        log.write("step", step)
    log.cut_after(2)
    assert [record["step"] for record in read_log(log.path)] == [1, 2, 2]
    log.write("step", 3, again=True)
    assert read_log(log.path)[-1] == {"kind": "step", "step": 3, "again": True}
    log.cut_after(0)
    assert log.path.read_text() == ""


def test_cut_after_without_a_log_makes_none(log: MetricsLog) -> None:
    log.cut_after(5)
    assert not log.path.exists()


def test_a_cut_off_last_line_is_left_out_and_the_next_record_is_whole(log: MetricsLog) -> None:
    log.write("step", 1)
    log.write("step", 2)
    log.path.write_bytes(log.path.read_bytes()[:-5])
    assert [record["step"] for record in read_log(log.path)] == [1]
    log.cut_after(1)
    log.write("step", 2)
    assert [record["step"] for record in read_log(log.path)] == [1, 2]


@pytest.mark.parametrize("line", ["[1, 2]", "17", "null", '{"kind": "x"}', "\x00" * 40, ""])
def test_lines_that_are_no_records_are_left_out(log: MetricsLog, line: str) -> None:
    log.write("step", 1)
    with log.path.open("a") as file:
        file.write(line + "\n")
    log.write("step", 2)
    assert [record["step"] for record in read_log(log.path)] == [1, 2]
    log.cut_after(2)
    assert [record["step"] for record in read_log(log.path)] == [1, 2]


@pytest.mark.parametrize(
    "damage", [b"\xff\xfe\x80\n", b'{"kind": "step", "step": "2"}\n', b"[" * 100_000 + b"\n"]
)
def test_a_log_that_a_crash_or_a_hand_damaged_is_still_read(log: MetricsLog, damage: bytes) -> None:
    log.write("step", 1)
    with log.path.open("ab") as file:
        file.write(damage)
    log.cut_after(1)
    assert [record["step"] for record in read_log(log.path)] == [1]


def test_the_training_dice_of_old_logs_is_read_by_its_old_name(log: MetricsLog) -> None:
    for number, train in enumerate([{"hard_dice": 0.25}, {"train_dice": 0.5}, {}], start=1):
        log.write("epoch", number, epoch=number, train=train)
    assert [epoch["train_dice"] for epoch in history(log.path)] == [0.25, 0.5, None]
