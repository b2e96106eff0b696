"""What a finished run shows, from logs and scores that are made up for it."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fault import CONFIG, cells

from tinyseg.config import Config
from tinyseg.data import Dataset
from tinyseg.device.tensors import copy_
from tinyseg.doctor import Project, diagnose
from tinyseg.doctor.checks import run as stage
from tinyseg.doctor.checks.run import EvaluatedRun, same_output
from tinyseg.doctor.experiments.failure_correlates import (
    FEATURES,
    class_features,
    correlated,
    dice_of,
    failure_correlates,
    group_features,
)
from tinyseg.inference.predictor import Predictor
from tinyseg.metrics.summary import ImageScores, summarize
from tinyseg.metrics.threshold_curves import Histograms
from tinyseg.models import UNet
from tinyseg.runs.metrics_log import MetricsLog
from tinyseg.training.train import train


def write_log(folder: Path, loss: Any, train_dice: Any, val_dice: Any, first: int = 1) -> None:
    """A log of one step an epoch."""
    log = MetricsLog(folder / "metrics.jsonl")
    for n, (a, b, c) in enumerate(zip(loss, train_dice, val_dice, strict=True), start=first):
        log.write("step", n, loss=a)
        pooled = {"dice": {"mean": c}, "iou": {"mean": None}}
        log.write("epoch", n, epoch=n, train={"loss": a, "train_dice": b}, val={"pooled": pooled})


def scores(dice: float, count: int = 30, spread: float = 0.15) -> list[ImageScores]:
    """Images of 1000 pixels, 200 of them foreground, with about this Dice."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        hit = int(200 * np.clip(rng.normal(dice, spread), 0, 1)) if dice else 0
        false = 200 - hit if dice else 0
        found.append(ImageScores(np.array([[800 - false, false], [200 - hit, hit]]), {}))
    return found


class Run:
    """A run as far as the checks look at it; its network sees what it is given."""

    def __init__(self, folder: Path, config: Config):
        self.folder, self.config, self.log = folder, config, folder / "metrics.jsonl"
        self.facts = SimpleNamespace(fingerprint="f")
        self.split = SimpleNamespace(train=("a",) * 20)


DATASET = SimpleNamespace(fingerprint=lambda: "f", source="data")
BASELINES = [
    SimpleNamespace(
        rule="grey >= 9", summary=SimpleNamespace(pooled={"dice": np.array([0.9, 0.3])})
    )
]
RISE = np.linspace(0.2, 0.7, 20)
GOOD = (np.linspace(1, 0.2, 20), RISE + 0.05, RISE)
OVERFIT = (np.linspace(1, 0.01, 20), np.linspace(0.3, 0.99, 20), [0.3, *[0.6] * 19])


@pytest.fixture(autouse=True)
def _sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is behind the runs that are made up."""
    monkeypatch.setattr(stage, "same_output", lambda case: False)


def case(
    folder: Path,
    dice: float = 0.7,
    settings: tuple[str, ...] = (),
    log: tuple[Any, Any, Any] = GOOD,
    count: int = 30,
    split: str = "val",
    **more: Any,
) -> EvaluatedRun:
    (folder / "metrics.jsonl").unlink(missing_ok=True)
    write_log(folder, *log)
    images = tuple(scores(dice, count))
    found = {"images": images, "summary": summarize(images), "baselines": BASELINES, "names": ()}
    found |= {"threshold_gain": None, "split": split, "drift": ""} | more
    run = Run(folder, Config().override(settings))
    return EvaluatedRun(run, DATASET, SimpleNamespace(**found))  # type: ignore[arg-type]


def levels(checks: Any, one: EvaluatedRun) -> list[tuple[str, str]]:
    return [(f.level, f.check) for check in checks for f in check(one)]


QUICK = (
    stage.learned,
    stage.data_is_unchanged,
    stage.threshold_is_good,
    stage.beats_baselines,
    stage.images_look_alike,
)


def test_a_healthy_run_is_well(tmp_path: Path) -> None:
    assert levels(QUICK, case(tmp_path)) == [("ok", "curves"), ("ok", "baseline")]


@pytest.mark.parametrize(
    ("log", "dice", "level", "check"),
    [
        (([0.7] * 9, [0.1] * 9, [0.1] * 9), 0.3, "error", "plateau"),
        (([0.7, 0.6, 2.0, 9.0], [0.1] * 4, [0.1] * 4), 0.3, "error", "exploded"),
        (OVERFIT, 0.6, "warning", "overfitting"),
        (
            (np.linspace(1, 0.8, 20), np.linspace(0.1, 0.4, 20), np.linspace(0.1, 0.4, 20)),
            0.7,
            "warning",
            "underfitting",
        ),
        # good from its first epoch, and rightly still
        (([0.102] * 9, [0.95] * 9, [0.94] * 9), 0.94, "ok", "curves"),
        # two epochs tell of no direction
        (([0.7] * 2, [0.1] * 2, [0.1, 0.11]), 0.2, "warning", "underfitting"),
    ],
)
def test_curves_tell_one_thing(
    log: tuple[Any, Any, Any], dice: float, level: str, check: str, tmp_path: Path
) -> None:
    (found,) = stage.learned(case(tmp_path, dice, log=log))
    assert (found.level, found.check) == (level, check)
    assert found.picture is not None
    assert found.picture.shape == (300, 800, 3)


def test_what_ended_a_run_too_early_is_named(tmp_path: Path) -> None:
    low = (np.linspace(1, 0.8, 20), np.linspace(0.1, 0.4, 20), np.linspace(0.1, 0.4, 20))
    (found,) = stage.learned(case(tmp_path, log=low, settings=("train.early_stopping=2",)))
    assert (found.level, found.check) == ("warning", "stopped early")
    one = case(tmp_path, log=low, settings=("train.epochs=20",))
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for number in range(20):
        log.write("step", number, learning_rate=0.1 if number < 5 else 1e-4)
    assert levels([stage.learned], one) == [("warning", "schedule")]


def test_losses_of_two_phases_are_not_compared(tmp_path: Path) -> None:
    log = ([0.1, 0.08, 0.07, 0.5, 0.4, 0.35], [0.5, 0.6, 0.7, 0.7, 0.7, 0.75], [0.6] * 6)
    assert levels([stage.learned], case(tmp_path, log=log)) == [("error", "exploded")]
    phases = ("train.phases=bce: 3 epochs; dice: 3 epochs",)
    assert levels([stage.learned], case(tmp_path, settings=phases, log=log)) == [("ok", "curves")]
    grows = ([0.1, 0.08, 0.07, 0.5, 1.4, 1.35], *log[1:])
    found = case(tmp_path, settings=phases, log=grows)
    assert levels([stage.learned], found) == [("error", "exploded")]


def test_only_validation_says_how_sure_the_curves_are(tmp_path: Path) -> None:
    """The score of the training images is no bound for that of others."""
    for split in ("train", "val"):
        (found,) = stage.learned(case(tmp_path, 2.0, log=OVERFIT, split=split))
        assert found.check == ("overfitting" if split == "train" else "curves"), split


def test_a_log_with_holes_is_read(tmp_path: Path) -> None:
    nothing = ([None, None, 0.5], [None, 0.5, 0.7], [None, None, 0.65])
    (found,) = stage.learned(case(tmp_path, log=nothing))
    assert found.seen == "training Dice 0.70, validation Dice 0.65 (best 0.65 in epoch 3 of 3)"
    assert levels(QUICK, case(tmp_path, log=([None],) * 3)) == [("ok", "baseline")]


def test_what_is_predicted_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("error", "all background") in levels([stage.beats_baselines], case(tmp_path, 0.0))
    assert ("warning", "baseline") in levels([stage.beats_baselines], case(tmp_path, 0.2))
    everything = [ImageScores(np.array([[0, 800], [0, 200]]), {})] * 5
    found = case(tmp_path, images=everything)
    assert levels([stage.beats_baselines], found) == [("error", "all foreground")]
    monkeypatch.setattr(stage, "same_output", lambda case: True)
    assert levels([stage.beats_baselines], case(tmp_path)) == [("error", "same output")]


def test_only_a_nan_that_ended_the_run_is_reported(tmp_path: Path) -> None:
    (tmp_path / "nonfinite-step-7.npz").touch()  # from before a resume
    assert levels([stage.learned], case(tmp_path)) == [("ok", "curves")]
    (tmp_path / "nonfinite-step-21.npz").touch()
    (found,) = stage.learned(case(tmp_path))
    assert (found.level, found.check) == ("error", "not finite")
    assert "in step 21, after 20 epochs" in found.seen


def test_a_run_without_any_epoch_is_examined(tmp_path: Path) -> None:
    run = Run(tmp_path, Config())
    (found,) = stage.without_checkpoint(run)  # type: ignore[arg-type]
    assert (found.level, found.check) == ("note", "no checkpoint")
    MetricsLog(run.log).write("step", 1, loss=0.7)
    (tmp_path / "nonfinite-step-2.npz").touch()
    (found,) = stage.without_checkpoint(run)  # type: ignore[arg-type]
    assert (found.level, found.check) == ("error", "not finite")
    assert "in step 2, after 0 epochs" in found.seen


def test_changed_data_are_reported_but_other_data_are_not(tmp_path: Path) -> None:
    for split, expected in (("val", [("warning", "data changed")]), ("all", [])):
        one = case(tmp_path, split=split)
        one.run.facts = SimpleNamespace(fingerprint="other")
        assert levels([stage.data_is_unchanged], one) == expected


def test_drift_from_the_training_set_is_reported(tmp_path: Path) -> None:
    (found,) = stage.images_look_alike(case(tmp_path, drift="the images differ"))
    assert (found.level, found.check, found.seen) == (
        "warning",
        "drift",
        "the images differ",
    )


@pytest.mark.parametrize(
    ("split", "named"),
    [("val", "30 validation images"), ("test", "30 test images"), ("all", "30 images")],
)
def test_the_score_is_called_by_its_split(split: str, named: str, tmp_path: Path) -> None:
    (found,) = stage.score_is_certain(case(tmp_path, split=split))
    assert f"on {named}, 95 % interval" in found.seen


@pytest.mark.parametrize(("used", "level"), [(0.99, "error"), (0.55, None), (0.0, None)])
def test_a_threshold_is_judged_by_what_it_costs(
    used: float, level: str | None, tmp_path: Path
) -> None:
    histograms, rng = Histograms(), np.random.default_rng(0)
    for _ in range(12):
        label = (rng.random((32, 32)) < 0.3).astype(np.uint8)
        p = np.clip(0.25 + 0.5 * label + rng.normal(scale=0.15, size=label.shape), 0, 1)
        histograms.add(p[None].astype(np.float32), label)
    settings = (f"train.threshold={used}",)
    one = case(tmp_path, settings=settings, threshold_gain=True, histograms=histograms)
    judged = levels([stage.threshold_is_good], one)
    assert judged == ([(level, "threshold")] if level else [])


def test_the_interval_is_of_images_drawn_anew(tmp_path: Path) -> None:
    one, few = case(tmp_path, count=30), case(tmp_path, count=8)
    assert one.interval.mean == pytest.approx(one.dice)
    assert one.interval.low < one.interval.mean < one.interval.high
    # all images have one size here, so the pooled Dice is the mean and its error that of a mean
    each = dice_of(one.evaluation)
    error = each.std() / np.sqrt(len(each))
    assert (one.interval.high - one.interval.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert few.interval.high - few.interval.low > one.interval.high - one.interval.low


def test_five_thousandths_are_no_gain_at_thirty_images(tmp_path: Path) -> None:
    (found,) = stage.score_is_certain(case(tmp_path))
    room = float(found.why.split("about ")[1].split(" ")[0])
    assert room > 0.005


def test_features_are_reported_only_when_they_go_with_the_dice() -> None:
    rng = np.random.default_rng(0)
    features = {words: rng.normal(size=40) for words in FEATURES}
    area = features["images with little foreground", "images with much foreground"]
    dice = area + rng.normal(scale=0.3, size=40)
    (line,) = correlated(features, dice)
    assert line.startswith("images with little foreground have a low Dice")
    (line,) = correlated({words: -column for words, column in features.items()}, dice)
    assert line.startswith("images with much foreground have a low Dice")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (
            [f"benign ({n})" for n in range(20)] + [f"malignant ({n})" for n in range(20)],
            "images in 'benign",
        ),
        ([f"one/{n}" for n in range(20)] + [f"two/{n}" for n in range(20)], "images in 'one'"),
    ],
)
def test_groups_are_folders_or_beginnings_of_names(names: list[str], line: str) -> None:
    rng = np.random.default_rng(0)
    dice = np.repeat([0.4, 0.7], 20) + rng.normal(scale=0.1, size=40)
    (found,) = correlated(group_features(names), dice)
    assert found.startswith(line)
    assert not group_features([f"{n}" for n in range(40)])


def test_classes_are_features_where_there_are_several() -> None:
    labels = [np.array([[0, kind]]) for kind in (1, 2)]
    assert not class_features(labels, ("background", "cell"))
    found = class_features(labels, ("background", "cat", "dog"))
    assert found["images with little dog", "images with much dog"] == [0.0, 0.5]


def test_false_objects_are_counted_apart_from_low_scores(tmp_path: Path) -> None:
    """As on BUSI: what is predicted where there is nothing has a Dice of 0, at no size."""
    data = cells(tmp_path / "data", n=30, empty=0.4)
    dataset, images = Dataset(str(data), CONFIG.data), []
    rng = np.random.default_rng(0)
    for index in range(len(dataset)):
        held = int((dataset[index].label > 0).sum())  # type: ignore[operator]
        missed = int(held * rng.uniform(0.1, 0.9))
        false = 0 if held else 9
        images.append(ImageScores(np.array([[4000, false], [missed, held - missed]]), {}))
    found = SimpleNamespace(images=images, names=dataset.names)
    empty = sum(not one.present[1] for one in images)
    assert empty > 5
    assert failure_correlates(dataset, found) == [  # type: ignore[arg-type]
        f"the run predicts foreground in {empty} of {empty} images without foreground"
    ]


@pytest.mark.slow
def test_nothing_is_reported_by_chance_more_often_than_promised() -> None:
    rng = np.random.default_rng(1)
    hits = sum(
        bool(
            correlated(
                dict(zip(FEATURES, rng.normal(size=(6, 25)), strict=True)), rng.normal(size=25)
            )
        )
        for _ in range(100)
    )
    assert hits <= 12  # 5 are expected; more than 12 have a chance of 0.1 %


def test_the_next_steps_follow_from_what_was_seen(tmp_path: Path) -> None:
    (found,) = stage.next_steps(case(tmp_path, 0.6, log=OVERFIT))
    assert found.evidence[0].startswith("train.augment=medium")
    assert "data.max_train_images=10" in found.evidence[1]
    rising = (np.linspace(1, 0.5, 20), np.linspace(0.1, 0.7, 20), np.linspace(0.1, 0.7, 20))
    settings = ("train.epochs=20",)
    (found,) = stage.next_steps(case(tmp_path, log=rising, settings=settings))
    assert found.evidence[0].startswith("train.epochs=40")
    one = case(tmp_path, log=([0.5], [0.4], [0.4]), settings=("train.epochs=1",))
    assert any("train.epochs=30" in line for line in stage.next_steps(one)[0].evidence)
    phases = ("train.phases=bce: 20 epochs",)
    (found,) = stage.next_steps(case(tmp_path, log=rising, settings=phases))
    assert found.evidence[0].startswith("more epochs in train.phases")


def test_a_network_that_says_the_same_of_all_images_is_found(tmp_path: Path) -> None:
    project = Project(cells(tmp_path, n=24), CONFIG)
    model = UNet(3, 1, base_channels=4, depth=1, seed=0)
    run = SimpleNamespace(
        input_pipeline=project.input_pipeline, predictor=Predictor(model, project.input_pipeline)
    )
    found = SimpleNamespace(names=project.dataset.names)
    one = EvaluatedRun(run, project.dataset, found)  # type: ignore[arg-type]
    assert not same_output(one)
    copy_(model.head.weight, np.zeros(model.head.weight.shape, np.float32))
    assert same_output(one)
    same = SimpleNamespace(names=project.dataset.names[:1])
    assert not same_output(EvaluatedRun(run, project.dataset, same))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_trained_run_is_examined_and_left_as_it_was(tmp_path: Path) -> None:
    data = cells(tmp_path / "data", n=40)
    config = CONFIG.override(["train.epochs=8"])
    run = train(data, tmp_path / "run", config=config, say=lambda text: None)
    before = {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
    found = diagnose(Project(data, run=run), ("run",))
    assert found.level in ("ok", "note"), found.table()
    assert {f.check for f in found.findings} >= {"curves", "baseline", "certainty", "what to try"}
    assert any(f.picture is not None for f in found.findings)
    assert {p: p.read_bytes() for p in run.folder.rglob("*") if p.is_file()} == before
    shutil.rmtree(run.folder)
