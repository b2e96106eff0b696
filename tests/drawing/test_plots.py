"""Charts of datasets and runs: each is there, with the numbers of all sets and runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import DataConfig
from tinyseg.data.checks.compare import compare
from tinyseg.data.checks.stats import open_stats
from tinyseg.drawing import plots
from tinyseg.drawing.charts import LINE_COLORS
from tinyseg.drawing.plots import _share_between, draw_curves, draw_stats, training_charts


def colored(path: Path, color: tuple[int, int, int]) -> int:
    """Pixels of a color, give or take the smoothing."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB")).astype(int)
    return int((np.abs(pixels - color).max(axis=2) < 30).sum())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """The (rows of charts, legend, note) of each picture."""
    calls: list = []
    draw = plots.draw_charts

    def spy(rows, legend, note=""):
        calls.append((rows, legend, note))
        return draw(rows, legend, note)

    monkeypatch.setattr(plots, "draw_charts", spy)
    return calls


def test_one_dataset_and_two(tmp_path: Path, drawn) -> None:
    one = open_stats("sim:cells?n=3&size=32", DataConfig())
    draw_stats(tmp_path / "one.png", [one], None)
    assert colored(tmp_path / "one.png", LINE_COLORS[0]) > 500
    assert colored(tmp_path / "one.png", LINE_COLORS[1]) == 0
    other = open_stats("sim:ultrasound?n=3&size=32", DataConfig(), like=one)
    draw_stats(tmp_path / "two.png", [one, other], compare(one, other))
    assert min(colored(tmp_path / "two.png", color) for color in LINE_COLORS[:2]) > 500
    (rows, legend, _), _ = drawn
    titles = [chart.title for row in rows for chart in row]
    assert titles[:4] == ["red", "green", "blue", "foreground"]
    assert titles[4:] == ["objects in an image", "size of the objects"]
    assert list(legend) == ["sim:cells?n=3&size=32 (3 images)"]


def test_curves_of_runs(tmp_path: Path) -> None:
    epoch = {"epoch": 1, "loss": 0.5, "train_dice": None, "val_dice": 0.3}
    curve = {name: [None, *np.linspace(1, 0.2, 254)] for name in ("recall", "precision", "dice")}
    curve["reliability"] = [[0.1, 0.2, 5], [0.9, 0.7, 5]]
    one = {"title": "one", "curves": [curve], "history": [epoch, {**epoch, "epoch": 2}]}
    draw_curves(tmp_path / "one.png", [one], ["a", "b"])
    assert colored(tmp_path / "one.png", LINE_COLORS[0]) > 500
    assert colored(tmp_path / "one.png", LINE_COLORS[1]) == 0
    other = {**one, "history": []}
    runs = [{**other, "title": f"run {k}"} for k in range(6)]
    draw_curves(tmp_path / "seven.png", [one, *runs], ["a", "b"])
    assert all(colored(tmp_path / "seven.png", color) > 30 for color in LINE_COLORS)


def test_every_class_of_a_softmax_head_has_its_curves(tmp_path: Path, drawn) -> None:
    names = ["sky", *(f"class {index}" for index in range(10))]
    curves = []
    for index in range(10):
        line = [None, *np.linspace(1, index / 10, 254)]
        points = [[0.1, 0.2, 5], [0.9, 0.7, 0 if index in (2, 6) else 9]]
        curves.append(
            {**dict.fromkeys(("recall", "precision", "dice"), line), "reliability": points}
        )
    run = {"title": "one", "history": [], "curves": curves}
    draw_curves(tmp_path / "three.png", [{**run, "curves": curves[:2]}] * 2, names[:3])
    draw_curves(tmp_path / "ten.png", [run], names)
    (few, _, no_note), (many, _, note) = drawn
    assert [row[2].title for row in few[1:]] == ["class 0: calibration", "class 1: calibration"]
    assert [line.y[-1] for line in few[2][1].lines] == [0.1, 0.1]
    chosen = [int(row[2].title.split(":")[0].split()[1]) for row in many[1:]]
    assert chosen == [0, 1, 3, 4, 5, 7, 8, 9]  # without those that have the fewest pixels
    assert (no_note, note) == ("", "of 10 classes the 8 with the most pixels")


def test_training_has_a_line_for_each_run_and_dashes_for_its_training_dice() -> None:
    epochs = [{"epoch": e, "loss": 2 / e, "train_dice": 0.1 * e, "val_dice": None} for e in (1, 2)]
    loss, dice = training_charts([epochs, []])
    assert [list(line.y) for line in loss.lines] == [[2, 1], []]
    assert (loss.x_range, loss.y_range, dice.y_range) == ((1, 2), (0, 2), (0, 1))
    assert [line.dashed for line in dice.lines] == [False, False, True, True]


def test_shares_between_edges_add_up_and_levels_make_no_comb() -> None:
    levels, weights = np.tile(np.linspace(0, 1, 256), 3), np.ones(768)
    heights = _share_between(levels, weights, np.linspace(-0.025, 1, 42))
    assert heights.sum() == pytest.approx(1)
    inner = heights[1:]
    assert inner.max() < 1.01 * inner[1:].min()
