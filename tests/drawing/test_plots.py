"""Drawings: they are pictures with both datasets in them, and a missing matplotlib is one line."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import DataConfig
from tinyseg.data.checks.compare import compare
from tinyseg.data.checks.stats import open_stats
from tinyseg.drawing import plots
from tinyseg.drawing.plots import COLORS, RUN_COLORS, _share_between, draw_curves, draw_stats
from tinyseg.errors import TinysegError


def colored(path: Path, color: str) -> int:
    """Pixels of a colour, give or take the anti-aliasing."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB")).astype(int)
    wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=2) < 30).sum())


def test_one_dataset_and_two(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = open_stats("sim:cells?n=3&size=32", DataConfig())
    draw_stats(tmp_path / "one.png", [one], None)
    assert colored(tmp_path / "one.png", COLORS[0]) > 500
    assert colored(tmp_path / "one.png", COLORS[1]) == 0
    other = open_stats("sim:ultrasound?n=3&size=32", DataConfig(), like=one)
    draw_stats(tmp_path / "two.png", [one, other], compare(one, other))
    assert min(colored(tmp_path / "two.png", color) for color in COLORS) > 500


def test_without_matplotlib_it_is_one_line(tmp_path: Path, monkeypatch) -> None:
    one = open_stats("sim:cells?n=2&size=32", DataConfig())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TinysegError, match=r'pip install "tinyseg\[plot\]"'):
        draw_stats(tmp_path / "one.png", [one], None)
    assert not (tmp_path / "one.png").exists()


def test_curves_of_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    epoch = {"epoch": 1, "loss": 0.5, "train_dice": None, "val_dice": 0.3}
    curve = {name: [None, *np.linspace(1, 0.2, 254)] for name in ("recall", "precision", "dice")}
    curve["reliability"] = [[0.1, 0.2, 5], [0.9, 0.7, 5]]
    one = {"title": "$one", "curves": [curve], "history": [epoch, {**epoch, "epoch": 2}]}
    draw_curves(tmp_path / "one.png", [one], ["a", "b"])
    assert colored(tmp_path / "one.png", RUN_COLORS[0]) > 500
    assert colored(tmp_path / "one.png", RUN_COLORS[1]) == 0
    other = {**one, "title": "a_$x^{", "history": []}
    draw_curves(tmp_path / "seven.png", [one, *[other] * 6], ["a", "b"])
    assert all(colored(tmp_path / "seven.png", color) for color in RUN_COLORS[-1:])


def texts(figure: object) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_every_class_of_a_softmax_head_has_its_curves(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    figures = []
    write = plots._write
    monkeypatch.setattr(plots, "_write", lambda *given: (figures.append(given[1]), write(*given)))
    names = ["sky", *(f"${index}" for index in range(10))]
    curves = []
    for kind in range(10):
        line = [None, *np.linspace(1, kind / 10, 254)]
        points = [[0.1, 0.2, 5], [0.9, 0.7, 0 if kind in (2, 6) else 9]]
        curves.append(
            {**dict.fromkeys(("recall", "precision", "dice"), line), "reliability": points}
        )
    run = {"title": "one", "history": [], "curves": curves}
    draw_curves(tmp_path / "three.png", [{**run, "curves": curves[:2]}] * 2, names[:3])
    draw_curves(tmp_path / "ten.png", [run], names)
    few, many = figures
    assert [title for title in texts(few) if "calibration" in title] == [
        r"\$0: calibration",
        r"\$1: calibration",
    ]
    (axes,) = (axes for axes in few.axes if axes.get_title() == r"\$1: Dice by threshold")
    assert [line.get_ydata()[-1] for line in axes.get_lines()] == [0.1, 0.1]
    drawn = [int(title[2]) for title in texts(many) if "calibration" in title]
    assert drawn == [0, 1, 3, 4, 5, 7, 8, 9]  # without those that have the fewest pixels
    assert few.legends[0].get_title().get_text() == ""
    assert many.legends[0].get_title().get_text() == "of 10 classes the 8 with the most pixels"
    assert colored(tmp_path / "ten.png", RUN_COLORS[0]) > 500


def test_shares_between_edges_add_up_and_levels_make_no_comb() -> None:
    levels, weights = np.tile(np.linspace(0, 1, 256), 3), np.ones(768)
    heights = _share_between(levels, weights, np.linspace(-0.025, 1, 42))
    assert heights.sum() == pytest.approx(1)
    inner = heights[1:]
    assert inner.max() < 1.01 * inner[1:].min()
