"""The loop: a killed run goes on bit for bit, phases switch, validation is prediction."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import SMALL, TwoLayers
from tinygrad import Tensor

from tinyseg.common.files import locked
from tinyseg.config import Config
from tinyseg.data import (
    Dataset,
    InputPipeline,
    InputScale,
    Split,
    Tile,
    make_split,
    simulate,
    write_pairs,
)
from tinyseg.data.prepare.normalize import unit_range
from tinyseg.device.choose import backend
from tinyseg.device.environment import cpu_model
from tinyseg.device.tensors import copy_, to_device
from tinyseg.errors import ConfigError, DataError, NonFiniteError, RunError
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.predict_files import predict
from tinyseg.inference.predictor import to_classes
from tinyseg.inference.run import Run, load_run
from tinyseg.kernels import plans
from tinyseg.losses import Loss, bce
from tinyseg.metrics.summary import evaluate_image, foreground_mean, summarize
from tinyseg.runs import checkpoint
from tinyseg.runs.metrics_log import read_log
from tinyseg.training.overfit import overfit
from tinyseg.training.phases import Phase, parse_phases
from tinyseg.training.schedule import Schedule
from tinyseg.training.step import EpochMeans, TrainStep
from tinyseg.training.train import train
from tinyseg.training.trainer import Trainer

DATA = "sim:cells?n=10&size=32&seed=1"


def silent(text: str) -> None:
    pass


def small(*more: str) -> Config:
    return Config().override([*SMALL, *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of three epochs that other tests read."""
    out = tmp_path_factory.mktemp("train") / "run"
    return train(DATA, out, config=small("train.epochs=3"), say=silent)


def test_a_run_folder_holds_what_repeats_it(run: Run) -> None:
    again = load_run(run.folder)
    assert (again.config, again.facts, again.split) == (run.config, run.facts, run.split)
    assert run.split == make_split(Dataset(DATA, run.config.data), run.config.data)
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        *("config.toml", "split.json", "run.json", "metrics.jsonl", "checkpoints", "samples")
    }
    with Image.open(run.samples / "best.png") as picture:
        assert picture.width > picture.height


@pytest.mark.slow
def test_a_disk_that_is_full_when_images_are_fitted_is_told_and_the_run_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "pwrite", full)
    told: list[str] = []
    again = train(DATA, tmp_path / "run", config=run.config, say=told.append)
    assert sum("not kept on disk" in text for text in told) == 1
    assert_same_state(again.folder, run.folder)


GOLDEN_LOSSES = [
    *(0.820249080657959, 0.7943552732467651, 0.7988498210906982),
    *(0.8132635354995728, 0.8179209232330322, 0.7898261547088623),
]
GOLDEN_DICE = [0.206577119036591, 0.1972101972101972, 0.19718309859154928]
GOLDEN_NORM = 8.98718120385978
GOLDEN_DIGEST = "5e4e7fae0f9e0b0a3eeb5dd93045b1f626e7e2166355ca1853c9daad50935ff7"
GOLDEN_MACHINE = ("25 17 AMD EPYC", "22.1.8", plans.Machine(lanes=16, registers=32, threads=2))


def test_the_run_is_the_golden_one(run: Run) -> None:
    """Bit for bit on the machine of the stored numbers, and within 1e-3 on any other.

    A change of these numbers is a change of results: say so in the commit that stores new ones.
    """
    losses = [step["loss"] for step in read_log(run.log, "step")]
    dice = [epoch["val"]["pooled"]["dice"]["mean"] for epoch in read_log(run.log, "epoch")]
    saved, _ = checkpoint.load(run.checkpoints / "last.safetensors")
    weights = [array for _, array in sorted(saved.items()) if array.dtype == np.float32]
    norm = np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in weights))
    digest = hashlib.sha256(b"".join(array.tobytes() for array in weights)).hexdigest()
    assert losses == pytest.approx(GOLDEN_LOSSES, rel=1e-3)
    assert dice == pytest.approx(GOLDEN_DICE, abs=1e-2)
    assert norm == pytest.approx(GOLDEN_NORM, rel=1e-3)
    compiler = backend().compiler
    if compiler and (cpu_model(), compiler.version, plans.machine()) == GOLDEN_MACHINE:
        assert (losses, dice, digest) == (GOLDEN_LOSSES, GOLDEN_DICE, GOLDEN_DIGEST)


def test_every_step_and_epoch_is_logged(run: Run) -> None:
    steps, epochs = read_log(run.log, "step"), read_log(run.log, "epoch")
    assert [record["step"] for record in steps] == list(range(1, 7))
    assert [record["epoch"] for record in epochs] == [1, 2, 3]
    for epoch, record in enumerate(epochs):
        losses = [step["loss"] for step in steps[2 * epoch : 2 * epoch + 2]]
        assert record["train"]["loss"] == pytest.approx(np.mean(losses))
        assert 0 <= record["val"]["pooled"]["dice"]["mean"] <= 1
    dice = [record["val"]["pooled"]["dice"]["mean"] for record in epochs]
    told = [record["val"]["thresholds"][0] for record in epochs]
    assert [one["dice_at_half"] for one in told] == pytest.approx(dice, abs=1e-12)
    improved = [value > max([-1.0, *dice[:count]]) for count, value in enumerate(dice)]
    assert [one["gain"] is not None for one in told] == improved
    rates = [step["learning_rate"] for step in steps]
    assert len(set(rates)) == 6
    assert rates == sorted(rates, reverse=True)
    compiled = read_log(run.log, "compile")
    assert {record["what"] for record in compiled} == {"training", "validation"}
    assert all("cache" in record["origin"] for record in compiled)
    # the head has one channel: the log says that no kernel of ours computes it, and why
    assert all("1 output channels are not" in record["plain"][-1] for record in compiled)


def test_the_same_seed_gives_the_same_run(run: Run, tmp_path: Path) -> None:
    again = train(DATA, tmp_path / "run", config=run.config, say=silent)
    assert_same_state(again.folder, run.folder)
    other = train(
        DATA, tmp_path / "other", config=run.config.override(["train.seed=1"]), say=silent
    )
    assert not same_state(other.folder, run.folder)


def state_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return checkpoint.load(folder / "checkpoints" / "last.safetensors")


def same_state(one: Path, other: Path) -> bool:
    (tensors, facts), (wanted, wanted_facts) = state_of(one), state_of(other)
    equal = all(np.array_equal(tensors[name], wanted[name]) for name in wanted)
    return facts == wanted_facts and tensors.keys() == wanted.keys() and equal


def assert_same_state(one: Path, other: Path) -> None:
    assert same_state(one, other)


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The log without times and compilations, which a resumed run has of its own."""
    records = [r for r in read_log(folder / "metrics.jsonl") if r["kind"] != "compile"]
    for record in records:
        record.get("train", {}).pop("seconds", None)
    return records


@pytest.mark.slow
def test_a_run_killed_twice_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """Ten epochs in one go, and ten with SIGKILL in the 4th and in the 7th: bit for bit."""
    phases = "bce: 6 epochs; dice: 4 epochs from best"
    settings = [*SMALL, f'train.phases="{phases}"', "train.grad_clip=1"]
    settings += ["train.augment=flip+rotate+translate"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(DATA, whole, config=Config().override(settings), say=silent)
    run_until_epoch(killed, 4, ["--set", *settings])
    run_until_epoch(killed, 7, ["--resume"])
    train(DATA, killed, resume=True, say=silent)
    assert_same_state(killed, whole)
    assert numbers(killed) == numbers(whole)


class Killed(BaseException):
    """Stands for a kill: nothing of the product catches it."""


@pytest.mark.slow
def test_a_run_killed_before_and_after_every_file_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small('train.phases="bce: 2 epochs; dice: 2 epochs from best"')
    whole = tmp_path / "whole"
    written: list[Path] = []

    def counted(write: Callable[..., None]) -> Callable[..., None]:
        def counting(path: Path, *rest: Any) -> None:
            if len(written) == stop:
                raise Killed
            write(path, *rest)
            written.append(path)

        return counting

    for name in ("save", "share"):
        monkeypatch.setattr(checkpoint, name, counted(getattr(checkpoint, name)))
    stop = -1
    train(DATA, whole, config=config, say=silent)
    for count in range(len(written)):
        written, stop = [], count
        with pytest.raises(Killed):
            train(DATA, tmp_path / f"{count}", config=config, say=silent)
        stop = -1
        train(DATA, tmp_path / f"{count}", resume=True, say=silent)
        assert_same_state(tmp_path / f"{count}", whole)
        best = [
            checkpoint.load(out / "checkpoints" / "best.safetensors")
            for out in (tmp_path / f"{count}", whole)
        ]
        assert best[0][1] == best[1][1]
        assert numbers(tmp_path / f"{count}") == numbers(whole)


def test_the_picture_after_a_kill_is_that_of_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(DATA, whole, config=small("train.epochs=1"), say=silent)
    with monkeypatch.context() as patched:
        patched.setattr("tinyseg.training.trainer.save_grid", kill)
        with pytest.raises(Killed):
            train(DATA, killed, config=small("train.epochs=1"), say=silent)
    (killed / "samples").mkdir()
    (killed / "samples" / "best.png").write_bytes(b"of an earlier epoch")
    os.utime(killed / "samples" / "best.png", (0, 0))
    train(DATA, killed, resume=True, say=silent)
    best, wanted = (out / "samples" / "best.png" for out in (killed, whole))
    assert best.read_bytes() == wanted.read_bytes()


def run_until_epoch(out: Path, epoch: int, options: list[str]) -> None:
    """Starts the command and kills it, without warning, once an epoch's checkpoint is there."""
    command = [sys.executable, "-m", "tinyseg", "train", DATA, "--out", str(out), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while saved_epoch(out) < epoch:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert saved_epoch(out) < 10


def saved_epoch(out: Path) -> int:
    try:
        return int(checkpoint.load_latest(out / "checkpoints")[1]["position"]["epoch"])
    except RunError:
        return 0


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(run: Run, tmp_path: Path) -> None:
    config = run.config
    out = tmp_path / "run"
    trainer = Trainer(
        train(DATA, out, config=config, say=silent), Dataset(DATA, config.data), silent
    )
    last = out / "checkpoints" / "last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    heard: list[str] = []
    trainer.say = heard.append
    trainer._resume()
    assert trainer.at.epoch == 2
    assert "previous.safetensors" in heard[0]
    train(DATA, out, resume=True, say=silent)
    assert_same_state(out, run.folder)


def test_resuming_on_other_data_or_over_another_run_is_refused(run: Run) -> None:
    with pytest.raises(RunError, match="is not the data"):
        train("sim:cells?n=10&size=32&seed=2", run.folder, resume=True, say=silent)
    with pytest.raises(RunError, match="not empty"):
        train(DATA, run.folder, config=run.config, say=silent)


def test_what_a_kill_left_before_the_run_began_is_no_obstacle(tmp_path: Path) -> None:
    dataset = Dataset(DATA, small().data)
    split = make_split(dataset, small().data)
    given = (small(), dataset, split, InputScale((0.5,) * 3, (1.0,) * 3))
    Run.create(tmp_path / "run", *given)
    (tmp_path / "run" / "run.json").unlink()
    assert load_run(Run.create(tmp_path / "run", *given).folder).split == split
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for out in (tmp_path / "full", tmp_path / "full" / "thesis.tex"):
        with pytest.raises(RunError, match="contains no run"):
            Run.create(out, *given)


def test_a_finished_run_resumes_to_itself(run: Run) -> None:
    before = state_of(run.folder)
    train(DATA, run.folder, resume=True, say=silent)
    assert state_of(run.folder)[1] == before[1]


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_epochs_and_says_what_becomes_of_the_schedule(
    tmp_path: Path,
) -> None:
    out, told = tmp_path / "run", list[str]()
    train(DATA, out, config=small("train.epochs=2"), say=silent)
    before = numbers(out)
    longer = train(DATA, out, config=small("train.epochs=4"), resume=True, say=told.append)
    assert load_run(out).config == longer.config == small("train.epochs=4")
    records = numbers(out)
    assert records[: len(before)] == before
    assert [r["epoch"] for r in records if r["kind"] == "epoch"] == [1, 2, 3, 4]
    assert {"kind": "epochs", "step": 4, "before": 2, "after": 4} in records
    (said,) = (text for text in told if "train.epochs" in text)
    assert "is now 4 (was 2): after epoch 2 the schedule cosine(warmup=0.05) goes on at" in said
    rates = [r["learning_rate"] / 0.001 for r in records if r["kind"] == "step"]
    wanted = [Schedule("cosine(warmup=0.05)").factor(step, 8) for step in range(4, 8)]
    assert rates[4:] == pytest.approx(wanted)
    share = float(said.partition("goes on at ")[2].split()[0])
    assert share == pytest.approx(wanted[0], abs=5e-4)
    train(
        DATA, out, config=small("train.epochs=4"), resume=True, say=silent
    )  # nothing is left to do
    assert numbers(out) == records
    with pytest.raises(RunError, match=r"train\.epochs=3, but 4 epochs are trained already"):
        train(DATA, out, config=small("train.epochs=3"), resume=True, say=silent)


def test_other_settings_of_a_resumed_run_are_refused_by_name(run: Run) -> None:
    before = state_of(run.folder)[1]
    changed = run.config.override(["train.batch_size=2", "model.base_channels=3", "train.epochs=9"])
    said = "except train.epochs; model.base_channels=3 .was 2., train.batch_size=2 .was 4.: omit"
    with pytest.raises(RunError, match=said):
        train(DATA, run.folder, config=changed, resume=True, say=silent)
    train(DATA, run.folder, config=run.config, resume=True, say=silent)
    assert load_run(run.folder).config == run.config
    assert state_of(run.folder)[1] == before


def test_a_run_that_another_process_trains_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    holds = (
        "import sys, pathlib; from tinyseg.common.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('locked', flush=True); input()"
    )
    command = [sys.executable, "-c", holds, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"locked\n"
        said = rf"run is in use by process {other.pid} on .+ since \d{{4}}-.+; wait until it ends"
        for resume in (False, True):
            with pytest.raises(RunError, match=said):
                train(DATA, out, config=small("train.epochs=1"), resume=resume, say=silent)
        other.kill()
    assert (out / ".lock").exists()  # what a kill leaves is no lock
    train(DATA, out, config=small("train.epochs=1"), say=silent)
    assert not (out / ".lock").exists()
    with locked(out), pytest.raises(RunError, match="in use by process"):
        train(DATA, out, resume=True, say=silent)


def test_phases_switch_the_loss_and_start_from_the_best(tmp_path: Path) -> None:
    heard: list[str] = []
    config = small('train.phases="bce: 2 epochs; dice: 1 epoch from best"')
    run = train(DATA, tmp_path / "run", config=config, say=heard.append)
    steps = read_log(run.log, "step")
    assert ["bce" in step for step in steps] == [True] * 4 + [False] * 2
    assert ["dice" in step for step in steps] == [False] * 4 + [True] * 2
    (switch,) = read_log(run.log, "phase")
    assert switch == {
        **{"kind": "phase", "step": 5, "loss": "dice"},
        **{"from_best": True, "optimizer_state": "from the best"},
    }
    assert any("from the best" in line for line in heard)


def test_phases_are_read_or_refused_in_one_line() -> None:
    assert parse_phases("bce: 30 epochs; 0.5*dice+ce: 1 epoch from best") == [
        Phase("bce", 30),
        Phase("0.5*dice+ce", 1, from_best=True),
    ]
    for text in ("bce", "bce: 0 epochs", "bce: ten epochs", "bce: 3 epochs;", "a: 1 epoch from x"):
        with pytest.raises(ConfigError, match=r"train\.phases"):
            parse_phases(text)
    with pytest.raises(ConfigError, match="first phase"):
        parse_phases("bce: 3 epochs from best")


@pytest.mark.slow
def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    config = small("train.epochs=20", "train.early_stopping=2", "train.optimizer=adam(lr=0)")
    run = train(DATA, tmp_path / "run", config=config, say=silent)
    assert len(read_log(run.log, "epoch")) == 3


def test_validation_is_prediction(run: Run, tmp_path: Path) -> None:
    """The files that `predict` writes have the Dice of the best epoch, at the threshold found."""
    samples = {s.name: s for s in simulate("cells", n=10, size=32, seed=1)}
    val = [samples[name] for name in run.split.val]
    write_pairs(val, tmp_path / "val")
    predict(run, [tmp_path / "val" / "images"], tmp_path / "masks", say=silent)
    scores = []
    for sample in val:
        with Image.open(tmp_path / "masks" / f"{sample.name}.png") as picture:
            mask = np.asarray(picture)
        assert sample.label is not None
        scores.append(
            evaluate_image(np.asarray(mask > 127).astype(np.uint8), sample.label, 2).matrix
        )
    hits = sum(matrix[1, 1] for matrix in scores)
    total = sum(matrix[1].sum() + matrix[:, 1].sum() for matrix in scores)
    best = max(read_log(run.log, "epoch"), key=lambda r: r["val"]["pooled"]["dice"]["mean"])["val"]
    logged, (found,) = best["pooled"]["dice"]["mean"], best["thresholds"]
    assert 2 * hits / total == pytest.approx(found["dice"], abs=1e-12)
    assert load_run(run.folder).threshold == found["threshold"] != 0.5
    again = evaluate(run, DATA)
    assert again.chosen == ("epoch", "threshold")
    assert evaluate(run, DATA, threshold=0.5, surface=False).chosen == ("epoch",)
    assert evaluate(run, DATA, "train", surface=False).chosen == ()
    assert foreground_mean(again.summary.pooled["dice"]) == pytest.approx(found["dice"], abs=1e-12)
    assert again.threshold_gain.dice_at_half == pytest.approx(logged, abs=1e-12)
    usual = evaluate(run, DATA, threshold=0.5)
    assert foreground_mean(usual.summary.pooled["dice"]) == pytest.approx(logged, abs=1e-12)


def test_images_of_several_sizes_are_scored_at_their_own(tmp_path: Path) -> None:
    for size in (24, 40, 56):
        samples = simulate("cells", n=4, size=size, seed=size)
        write_pairs(samples, tmp_path / f"{size}")
        for part in ("images", "masks"):
            (tmp_path / "all" / part).mkdir(parents=True, exist_ok=True)
            for path in (tmp_path / f"{size}" / part).iterdir():
                path.rename(tmp_path / "all" / part / f"{size}_{path.name}")
    run = train(tmp_path / "all", tmp_path / "run", config=small("train.epochs=1"), say=silent)
    found = evaluate(run, tmp_path / "all", split="all")
    pixels = sorted(int(scores.matrix.sum()) for scores in found.images)
    assert pixels == sorted([24 * 24, 40 * 40, 56 * 56] * 4)


def test_a_deep_image_with_nan_stops_with_the_files_name(tmp_path: Path) -> None:
    dataset = Dataset(DATA, small().data)
    config = small("train.epochs=1")
    run = train(DATA, tmp_path / "run", config=config, say=silent)
    trainer = Trainer(run, dataset, silent)
    trainer.at.epoch = 0
    trainer.images = [replace(one, pixels=unit_range(one.pixels)) for one in trainer.images]
    trainer.images[2].pixels[5, 5, 0] = np.nan
    with pytest.raises(NonFiniteError, match=f"first in the image {run.split.train[2]}"):
        trainer._run_phase(trainer.phases[0], 0)
    (saved,) = run.folder.glob("nonfinite-step-*.npz")
    with np.load(saved) as batch:
        assert np.isnan(batch["image"]).any()
        assert run.split.train[2] in batch["names"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "told"),
    [("3e38", r"output is not finite"), ("3e38,momentum=0.9", r"is not finite")],
)
def test_weights_that_overflow_are_never_saved(rate: str, told: str, tmp_path: Path) -> None:
    """One step an epoch: the loss that would show it is never computed."""
    config = small("train.epochs=2", f"train.optimizer=sgd(lr={rate})")
    config = config.override(["train.schedule=constant"])
    with pytest.raises(NonFiniteError, match=told):
        train(DATA.replace("n=10", "n=5"), tmp_path / "run", config=config, say=silent)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_state_that_is_not_finite_is_named(tmp_path: Path) -> None:
    run = train(DATA, tmp_path / "run", config=small("train.epochs=1"), say=silent)
    trainer = Trainer(run, Dataset(DATA, run.config.data), silent)
    trainer._check_finite(1)
    bias = trainer.state["model.head.bias"]
    copy_(bias, np.full(bias.shape, np.inf, np.float32))
    with pytest.raises(NonFiniteError, match=r"epoch 1: model\.head\.bias is not finite"):
        trainer._check_finite(1)


def test_training_and_validation_have_one_dice_which_empty_tiles_do_not_lower() -> None:
    """A perfect network on tiles of which four of five are empty; class 2 is nowhere."""
    rng = np.random.default_rng(0)
    epoch = EpochMeans()
    step = TrainStep(OneHot(), "ce", "sgd(lr=0)", jit=False)
    for number in range(5):
        label = np.zeros((1, 8, 8), np.uint8)
        if number == 2:
            label[:] = rng.choice([0, 1, 3], label.shape)
        logits = np.eye(4, dtype=np.float32)[label].transpose(0, 3, 1, 2)
        epoch.add(step(to_device(logits), to_device(label)))
    assert np.isnan(epoch.steps[0]["train_dice"])  # nothing to find, nothing found
    assert epoch.means()["train_dice"] == 1


def test_the_dice_of_an_epoch_is_the_pooled_dice_of_the_validation() -> None:
    rng = np.random.default_rng(0)
    epoch, images = EpochMeans(), []
    step = TrainStep(OneHot(), "ce", "sgd(lr=0)", jit=False)
    for share in (0.1, 0.9, 0.5):
        label = (rng.integers(0, 4, (2, 8, 8)) * (rng.random((2, 8, 8)) < share)).astype(np.uint8)
        label[0, 0] = 255
        logits = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
        epoch.add(step(to_device(logits), to_device(label)))
        images += map(evaluate_image, logits.argmax(1), label, (4, 4))
    expected = foreground_mean(summarize(images).pooled["dice"])
    assert epoch.means()["train_dice"] == pytest.approx(expected, abs=1e-15)


class OneHot:
    """A network that gives back its image."""

    out_channels = 4

    def __init__(self) -> None:
        self.weight = to_device(np.ones(1, np.float32))

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return x_bchw * self.weight


@pytest.mark.slow
def test_a_batch_whose_gradient_is_not_finite_is_blamed_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of sqrt(0 x logits) is 0 / 0 in the batch that has one image's label."""
    config = small("train.batch_size=1", "train.epochs=1")
    dataset = Dataset(DATA, config.data)
    names = make_split(dataset, config.data).train
    areas = [int((dataset[name].label == 1).sum()) for name in names]
    most, zero = max(areas), to_device(np.zeros((), np.float32))

    def loss(logits: Tensor, label: Tensor) -> Tensor:
        few = ((label == 1).sum() < most).float()
        return bce(logits, label) + (logits.sum() * zero + few).sqrt()

    own = Loss.of(loss, 1)
    monkeypatch.setattr(Loss, "of", lambda text, out_channels: own)
    with pytest.raises(NonFiniteError, match="but its gradient is not; first in the grad") as error:
        train(DATA, tmp_path / "run", config=config, model=TwoLayers(in_channels=3), say=silent)
    steps = read_log(tmp_path / "run" / "metrics.jsonl", "step")
    assert len(steps) > 0
    assert f"step {len(steps) + 1}:" in str(error.value)
    assert f"batch: {names[areas.index(most)]} " in str(error.value)


def test_a_validation_without_foreground_is_refused(tmp_path: Path) -> None:
    samples = simulate("cells", n=10, size=32, seed=1)
    empty = next(s.name for s in samples if s.label is not None and not s.label.any())
    names = tuple(s.name for s in samples if s.name != empty)
    Split(names, (empty,)).save(tmp_path / "split.json")
    config = small(f"data.split_file={tmp_path / 'split.json'}")
    with pytest.raises(DataError, match="none of the 1 validation images has foreground"):
        train(DATA, tmp_path / "run", config=config, say=silent)
    assert not (tmp_path / "run").exists()


def test_an_image_too_large_to_pad_is_named_before_anything_is_made(tmp_path: Path) -> None:
    write_pairs(simulate("cells", n=5, size=40, seed=1, empty=0), tmp_path / "cells")
    config = small("data.fit=pad", "train.batch_size=2")
    with pytest.raises(DataError, match=r"cells_000\d\.png: image of 40 x 40 pixels"):
        train(tmp_path / "cells", tmp_path / "run", config=config, say=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_with_windows_validation_is_evaluation_too(tmp_path: Path) -> None:
    """Squares of 32 in images of 64: four train, nine are predicted."""
    config, data = small("data.fit=tile", "train.epochs=1"), DATA.replace("size=32", "size=64")
    run = train(data, tmp_path / "run", config=config, say=silent)
    steps = [line["step"] for line in read_log(run.log) if line["kind"] == "step"]
    assert steps == list(range(1, 1 + len(run.split.train)))
    logged = next(line["val"] for line in read_log(run.log) if line["kind"] == "epoch")
    found = evaluate(run, data, surface=False, say=silent, threshold=0.5).summary.to_dict()
    assert found["pooled"]["dice"] == logged["pooled"]["dice"]


def test_post_processing_that_helps_is_kept_in_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Any, Any]] = []

    def chosen(pairs: Any, classes: int) -> tuple[str, float, float]:
        given.extend(pairs)
        return "largest", 0.1, 0.2

    monkeypatch.setattr(sys.modules["tinyseg.training.train"], "choose", chosen)
    config = small("train.epochs=1", "train.postprocess=auto")
    train(DATA, tmp_path / "run", config=config, say=silent)
    again = load_run(tmp_path / "run")
    assert len(given) == len(again.split.val)
    assert again.postprocess().text == again.facts.postprocess == "largest"
    assert again.postprocess("none").text == ""
    sample = again.open(DATA)[0]
    raw = to_classes(again.probabilities(sample.image), again.threshold)
    np.testing.assert_array_equal(again.predict(sample.image), Postprocess("largest")(raw))


def test_a_run_without_what_validation_chose_is_its_last_epoch_at_one_half(
    run: Run, tmp_path: Path
) -> None:
    out = shutil.copytree(run.folder, tmp_path / "run")
    points = out / "checkpoints"
    (points / "best.safetensors").unlink()
    (points / "previous.safetensors").replace(points / "best.safetensors")
    chosen = load_run(out)
    chosen.config = chosen.config.override(["train.postprocess=auto", "train.early_stopping=5"])
    chosen._stored_threshold = 0.3
    chosen.update_facts(postprocess="largest")
    assert chosen.chosen == ("epoch", "threshold", "post-processing", "train.early_stopping")
    plain = chosen.last_epoch()
    assert plain.chosen == ("train.early_stopping",)
    assert (plain.threshold, plain.postprocess().text) == (0.5, "")
    for one, name in ((chosen, "best"), (plain, "last")):
        wanted = checkpoint.load(points / f"{name}.safetensors")[0]
        weights = one.predictor.step.state
        assert all(
            np.array_equal(tensor.numpy(), wanted[f"model.{key}"])
            for key, tensor in weights.items()
        )
    chosen.config = chosen.config.override(["train.threshold=0.4", "train.postprocess=largest"])
    assert chosen.chosen == ("epoch", "train.early_stopping")
    plain = chosen.last_epoch()
    assert (plain.threshold, plain.postprocess().text) == (0.4, "largest")


def test_too_few_images_are_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="fewer than a batch"):
        train(DATA, tmp_path / "run", config=small("train.batch_size=9"), say=silent)
    with pytest.raises(DataError, match="zero validation samples"):
        train(DATA, tmp_path / "run", config=small("data.val_fraction=0"), say=silent)
    for setting in ("loss=dise", "optimizer=adamant", "schedule=cosinus", 'phases="bce: 3"'):
        with pytest.raises(ConfigError, match=r"unknown|cannot be read"):
            train(DATA, tmp_path / "run", config=small(f"train.{setting}"), say=silent)
    with pytest.raises(ConfigError, match="use softmax"):
        train("sim:shapes?n=8&size=32", tmp_path / "run", config=small("head=sigmoid"), say=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_overfit_gives_a_verdict_on_every_image() -> None:
    config = Config().override(
        ["data.size=32", "model.base_channels=8", "model.depth=1", *["loss=bce+dice"]]
    )
    config = config.override(["train.optimizer=adam(lr=0.01)"])
    data = "sim:cells?n=10&size=32&seed=1&empty=0.2"
    passed = overfit(data, 3, config=config, steps=200, say=silent)
    assert passed.passed
    assert len(passed.dice) == 3
    assert "PASS: 3 of 3" in passed.table()
    frozen = overfit(data, 3, config=config, steps=25, optimizer="adam(lr=0)", say=silent)
    assert not frozen.passed
    assert frozen.steps == 25
    assert "FAIL: 0 of 3" in frozen.table()


def test_training_validation_evaluation_and_prediction_see_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = simulate("cells", n=9, size=40, seed=3, empty=0)
    cut = [replace(s, image=s.image[:, i:], label=s.label[:, i:]) for i, s in enumerate(samples)]  # type: ignore[index]
    write_pairs(cut, tmp_path / "set")
    entered: list[np.ndarray] = []
    to_batch = InputPipeline.to_batch

    def spy(fitted: list[Tile]) -> np.ndarray:
        x_bchw = to_batch(fitted)
        entered.extend(x_bchw)
        return x_bchw

    monkeypatch.setattr(InputPipeline, "to_batch", staticmethod(spy))

    def seen() -> set[bytes]:
        found = {x_chw.tobytes() for x_chw in entered}
        entered.clear()
        return found

    more = ("data.preprocess=median(size=3)+clahe", "data.normalize=image", "train.epochs=1")
    run = train(tmp_path / "set", tmp_path / "run", config=small(*more), say=silent)
    trained_and_validated = seen()
    assert len(trained_and_validated) == 9
    run = load_run(run.folder)
    parts = []
    for split in ("train", "val"):
        evaluate(run, tmp_path / "set", split, say=silent)
        parts.append(seen())
    assert [len(part) for part in parts] == [len(run.split.train), len(run.split.val)]
    assert parts[0] | parts[1] == trained_and_validated
    warnings: list[str] = []
    predict(run, [tmp_path / "set" / "images"], tmp_path / "masks", say=warnings.append)
    assert seen() == trained_and_validated
    assert warnings == []
    assert run.facts.scale is None
    for path in (tmp_path / "set" / "images").iterdir():
        with Image.open(path) as image:
            Image.fromarray(np.asarray(image) // 64).save(path)
    run.config = replace(run.config, data=replace(run.config.data, normalize="none"))
    run.facts = replace(run.facts, scale=InputScale((0.0,) * 3, (1.0,) * 3))
    del run.predictor
    predict(run, [tmp_path / "set" / "images"], tmp_path / "masks", say=warnings.append)
    assert [text[:31] for text in warnings] == ["warning: the images differ from"]


def test_a_run_from_before_the_input_statistics_opens_and_gets_one(
    run: Run, tmp_path: Path
) -> None:
    old = shutil.copytree(run.folder, tmp_path / "old")
    table = json.loads((old / "run.json").read_text())
    statistics = table.pop("input_statistics")
    (old / "run.json").write_text(json.dumps(table))
    lines = (old / "config.toml").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(("preprocess", "normalize"))]
    (old / "config.toml").write_text("\n".join(kept))
    assert load_run(old).facts == replace(run.facts, input_statistics=None)
    assert load_run(old).config == run.config
    train(DATA, old, resume=True, say=silent)
    assert json.loads((old / "run.json").read_text()) == {**table, "input_statistics": statistics}
    statistics["channels"].pop()
    flat = {"mean": [0.5], "std": [1.0]}
    for change in ({"input_statistics": statistics}, {"scale": flat}, {"scale": None}):
        (old / "run.json").write_text(json.dumps({**table, **change}))
        with pytest.raises(RunError, match=r"run\.json: .*train again"):
            load_run(old)


def test_old_names_in_run_json_still_open(run: Run, tmp_path: Path) -> None:
    old = shutil.copytree(run.folder, tmp_path / "old")
    table = json.loads((old / "run.json").read_text())
    table["contract"] = table.pop("input_statistics")
    table["scale"]["deviation"] = table["scale"].pop("std")
    (old / "run.json").write_text(json.dumps(table))
    assert load_run(old).facts == run.facts
