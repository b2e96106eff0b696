"""What a finished run shows, from logs and scores that are made up for it."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fault import CONFIG, cells

from tinyseg.config import Config
from tinyseg.doctor import Project, diagnose
from tinyseg.doctor import finished as stage
from tinyseg.doctor.finished import Finished, interval, pooled_dice
from tinyseg.doctor.worst import MEASURES, told
from tinyseg.metrics import ImageScores
from tinyseg.thresholds import Histograms
from tinyseg.train import train


def epochs(loss: Any, train_dice: Any, val_dice: Any) -> list[dict[str, Any]]:
    rows = zip(loss, train_dice, val_dice, strict=True)
    return [
        {"epoch": n, "loss": a, "train_dice": b, "val_dice": c, "val_iou": c / (2 - c)}
        for n, (a, b, c) in enumerate(rows, start=1)
    ]


def scores(dice: float, count: int = 30, spread: float = 0.15) -> list[ImageScores]:
    """Images of 1000 pixels, 200 of them foreground, with about this Dice."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        hit = int(200 * np.clip(rng.normal(dice, spread), 0, 1)) if dice else 0
        false = 200 - hit if dice else 0
        found.append(ImageScores(np.array([[800 - false, false], [200 - hit, hit]]), {}))
    return found


class Run:
    """A run as far as the checks look at it."""

    def __init__(self, folder: Path, config: Config):
        self.folder, self.config = folder, config
        self.facts = SimpleNamespace(fingerprint="f")


DATASET = SimpleNamespace(fingerprint=lambda: "f", source="data")
BASELINES = [
    SimpleNamespace(
        rule="grey >= 9", summary=SimpleNamespace(pooled={"dice": np.array([0.9, 0.3])})
    )
]


def case(
    folder: Path,
    dice: float = 0.7,
    settings: tuple[str, ...] = (),
    log: list[dict[str, Any]] | None = None,
    count: int = 30,
) -> Finished:
    rise = np.linspace(0.2, dice, 20)
    log = log or epochs(np.linspace(1, 0.2, 20), rise + 0.05, rise)
    images = tuple(scores(dice, count))
    found = SimpleNamespace(images=images, baselines=BASELINES, worth=None, names=())
    return Finished(Run(folder, Config().override(settings)), DATASET, log, found)  # type: ignore[arg-type]


def levels(checks: Any, one: Finished) -> list[tuple[str, str]]:
    return [(f.level, f.check) for check in checks for f in check(one)]


QUICK = (stage.ended, stage.same_data, stage.plateau, stage.threshold, stage.worth, stage.fit)


def test_a_healthy_run_is_well(tmp_path: Path) -> None:
    assert levels(QUICK, case(tmp_path)) == [("ok", "baseline"), ("ok", "curves")]


@pytest.mark.parametrize(
    ("log", "level", "check"),
    [
        (epochs([0.7] * 9, [0.1] * 9, [0.1] * 9), "error", "plateau"),
        (epochs([0.7, 0.6, 2.0, 9.0], [0.1] * 4, [0.1] * 4), "error", "exploded"),
        (
            epochs(np.linspace(1, 0.01, 20), np.linspace(0.3, 0.99, 20), [0.3, *[0.6] * 19]),
            "warning",
            "overfitting",
        ),
        (
            epochs(np.linspace(1, 0.8, 20), np.linspace(0.1, 0.4, 20), np.linspace(0.1, 0.4, 20)),
            "warning",
            "underfitting",
        ),
    ],
)
def test_curves_tell(log: list[dict[str, Any]], level: str, check: str, tmp_path: Path) -> None:
    dice = 0.6 if check == "overfitting" else 0.7
    assert (level, check) in levels(QUICK, case(tmp_path, dice, log=log))


def test_a_log_with_holes_is_read(tmp_path: Path) -> None:
    nothing = [{"epoch": 1, "loss": None, "train_dice": None, "val_dice": None, "val_iou": None}]
    assert levels(QUICK, case(tmp_path, log=nothing)) == [("ok", "baseline")]


def test_what_is_predicted_is_judged(tmp_path: Path) -> None:
    assert ("error", "all background") in levels([stage.worth], case(tmp_path, 0.0))
    assert ("warning", "baseline") in levels([stage.worth], case(tmp_path, 0.2))
    everything = [ImageScores(np.array([[0, 800], [0, 200]]), {})] * 5
    one = case(tmp_path)
    one = replace(one, found=SimpleNamespace(images=everything, baselines=BASELINES))  # type: ignore[arg-type]
    assert levels([stage.worth], one) == [("error", "all foreground")]


def test_a_nan_end_and_changed_data_are_told(tmp_path: Path) -> None:
    (tmp_path / "nonfinite-step-7.npz").touch()
    assert levels([stage.ended], case(tmp_path)) == [("error", "not finite")]
    one = case(tmp_path)
    one.run.facts = SimpleNamespace(fingerprint="other")
    assert levels([stage.same_data], one) == [("warning", "data changed")]


@pytest.mark.parametrize(("used", "level"), [(0.99, "error"), (0.55, None), (0.0, None)])
def test_a_threshold_is_judged_by_what_it_costs(
    used: float, level: str | None, tmp_path: Path
) -> None:
    histograms, rng = Histograms(), np.random.default_rng(0)
    for _ in range(12):
        label = (rng.random((32, 32)) < 0.3).astype(np.uint8)
        p = np.clip(0.25 + 0.5 * label + rng.normal(scale=0.15, size=label.shape), 0, 1)
        histograms.add(p[None].astype(np.float32), label)
    one = case(tmp_path, settings=(f"train.threshold={used}",))
    found = SimpleNamespace(worth=True, histograms=histograms)
    judged = levels([stage.threshold], replace(one, found=found))  # type: ignore[arg-type]
    assert judged == ([(level, "threshold")] if level else [])


def test_the_interval_is_of_images_drawn_anew(tmp_path: Path) -> None:
    matrices = case(tmp_path, count=30).matrices
    found, wide = interval(matrices), interval(matrices[:8])
    assert found.mean == pytest.approx(pooled_dice(matrices.sum(0)))
    assert found.low < found.mean < found.high
    # all images have one size here, so the pooled Dice is the mean and its error that of a mean
    each = pooled_dice(matrices)
    error = each.std() / np.sqrt(len(each))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert wide.high - wide.low > found.high - found.low


def test_five_thousandths_are_no_gain_at_thirty_images(tmp_path: Path) -> None:
    (found,) = stage.certainty(case(tmp_path))
    room = float(found.why.split("about ")[1].split(" ")[0])
    assert room > 0.005


def test_dice_of_classes_is_that_of_the_definition() -> None:
    matrix = np.array([[5, 1, 0], [2, 7, 0], [0, 0, 0]])
    assert pooled_dice(matrix) == pytest.approx(14 / (9 + 8))
    assert pooled_dice(np.zeros((4, 2, 2))).tolist() == [0] * 4


def test_features_are_told_only_when_they_go_with_the_dice() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, len(MEASURES)))
    dice = features[:, 0] + rng.normal(scale=0.3, size=40)
    (line,) = told(features, dice)
    assert line.startswith("images with small objects score low")
    (line,) = told(-features, dice)
    assert line.startswith("images with large objects score low")


def test_nothing_is_told_by_chance_more_often_than_promised() -> None:
    rng = np.random.default_rng(1)
    hits = sum(bool(told(rng.normal(size=(25, 6)), rng.normal(size=25))) for _ in range(100))
    assert hits <= 12  # 5 are expected; more than 12 have a chance of 0.1 %


def test_the_next_steps_follow_from_what_was_seen(tmp_path: Path) -> None:
    log = epochs(np.linspace(1, 0.01, 20), np.linspace(0.3, 0.99, 20), [0.3, *[0.6] * 19])
    (found,) = stage.next_steps(case(tmp_path, 0.6, log=log))
    assert found.evidence[0].startswith("train.augment=medium")
    rising = epochs(np.linspace(1, 0.5, 20), np.linspace(0.1, 0.7, 20), np.linspace(0.1, 0.7, 20))
    (found,) = stage.next_steps(case(tmp_path, log=rising))
    assert found.evidence[0].startswith("train.epochs=40")


@pytest.mark.slow
def test_a_trained_run_is_examined_and_left_as_it_was(tmp_path: Path) -> None:
    data = cells(tmp_path / "data", n=40)
    config = CONFIG.override(["train.epochs=8"])
    run = train(data, tmp_path / "run", config, say=lambda text: None)
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    found = diagnose(Project(data, run=run), ("run",))
    assert found.level in ("ok", "note"), found.table()
    assert {f.check for f in found.findings} >= {"curves", "baseline", "certainty", "what to try"}
    assert any(f.picture is not None for f in found.findings)
    assert {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()} == before
    shutil.rmtree(run.folder)
