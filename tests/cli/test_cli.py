"""The command line: what it prints, where it writes, and how it fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import SMALL

from tinyseg.cli import main
from tinyseg.data import simulate, write_pairs

ONE_EPOCH = [*SMALL, "train.epochs=1"]
TWO = "fixed(mean=[0.5,0.5],std=[1,1])"

# a test that runs in the background inherits that Ctrl-C is ignored
LISTENING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("tinyseg", run_name="__main__")
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "cells"
    write_pairs(simulate("cells", n=12, size=32, seed=2), folder)
    return folder


@pytest.fixture(scope="module")
def run(cells: Path) -> Path:
    out = cells.parent / "run"
    assert main(["train", str(cells), "--out", str(out), "--set", *ONE_EPOCH]) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """The one line that bad input gives."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == 1, text
    assert lines[0].startswith("error: ")
    return lines[0]


def test_simulate_writes_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["simulate", str(out), "--kind", "ultrasound", "--n", "3", "--size", "40"]
    assert main([*command, "--seed", "5", "--empty", "0.34"]) == 0
    assert "3 images and masks" in capsys.readouterr().out
    wanted = simulate("ultrasound", n=3, size=40, seed=5, empty=0.34)
    for sample in wanted:
        with Image.open(out / "masks" / f"{sample.name}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask) > 0, np.equal(sample.label, 1))


def test_evaluate_writes_numbers_and_a_picture(
    cells: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, picture = tmp_path / "scores.json", tmp_path / "grid.png"
    command = ["evaluate", str(run), str(cells), "--split", "train"]
    assert main([*command, "--json", str(scores), "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("this run", "all background", "all foreground", "gray"))
    table = json.loads(scores.read_text())
    assert len(table["images"]) == 10
    assert set(table["baselines"]) == {"background", "foreground", "threshold"}
    with Image.open(picture) as image:
        assert image.width > 700


def test_predict_writes_masks_and_reports_bad_files(
    cells: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(next((cells / "images").iterdir()).read_bytes())
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    command = ["predict", str(run), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    text = capsys.readouterr().out
    assert "1 masks" in text
    assert "broken.png" in text
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.size == (32, 32)
    assert len(list((tmp_path / "out").glob("[!.]*"))) == 1
    averaged = ["--with", str(run), "--tta", "flips", "--postprocess", "largest"]
    assert main([*command, *averaged]) == 2
    assert "there already" not in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.size == (32, 32)


def test_overfit_says_no_with_exit_code_one(cells: Path) -> None:
    command = ["overfit", str(cells), "--images", "4", "--steps", "25", "--set", *ONE_EPOCH]
    assert main([*command, "optimizer=adam(lr=0)"]) == 1


def test_limit_images_uses_fewer(cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["train", str(cells), "--out", str(out), "--limit-images", "4", "--set", *ONE_EPOCH]
    assert main(command) == 0
    split = json.loads((out / "split.json").read_text())
    assert len(split["train"]) == 4


def test_a_config_file_and_settings_are_joined(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        "[train]\nepochs = 1\n[model]\nbase_channels = 2\ndropout = 0.2\n"
    )
    out = tmp_path / "run"
    command = ["train", str(cells), "--out", str(out), "--config", str(tmp_path / "c.toml")]
    assert main([*command, "--set", "model.depth=1", "data.size=32"]) == 0
    written = (out / "config.toml").read_text()
    assert "base_channels = 2" in written
    assert "depth = 1" in written


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m tinyseg info | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert done.stderr == b""


@pytest.mark.parametrize("device", ["FOO", pytest.param("CUDA", marks=pytest.mark.slow)])
def test_a_device_that_does_not_answer_is_one_line(device: str) -> None:
    command = [sys.executable, "-m", "tinyseg", "info"]
    where = {**os.environ, "DEV": device}
    done = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: DEV={device}")
    assert done.stderr.count("\n") == 1


def test_changed_data_is_told(
    cells: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(cells, tmp_path / "cells")
    assert main(["evaluate", str(run), str(tmp_path / "cells")]) == 0
    assert "has changed since" not in capsys.readouterr().out
    first = min((tmp_path / "cells" / "images").iterdir())
    with Image.open(first) as image:
        image.rotate(180).save(first)
    assert main(["evaluate", str(run), str(tmp_path / "cells")]) == 0
    assert "has changed since" in capsys.readouterr().out


def test_data_stats_prints_and_writes_what_differs(
    cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stats.json"
    assert main(["data", "stats", str(cells)]) == 0
    assert "distance" not in capsys.readouterr().out
    other = "sim:ultrasound?n=4&size=32"
    assert main(["data", "stats", str(cells), other, "--json", str(path)]) == 0
    text = capsys.readouterr().out
    for word in ("cells: 12 images", "ultrasound?n=4", "red", "objects", "distance", "reduces"):
        assert word in text
    found = json.loads(path.read_text())
    assert [one["images"] for one in found["sets"]] == [12, 4]
    assert found["comparison"]["advice"] in text


def test_info_names_device_compiler_and_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for word in (
        "device",
        "compiler",
        "because",
        "kernels   tinyseg's",
        "tinygrad 0.13",
        "cache",
        "threads",
    ):
        assert word in text


def test_bad_input_is_one_line_with_the_file_and_the_remedy(
    cells: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("[model]\nbase_channels = 'many'\n")
    cases = {
        "no such": ("train", tmp_path / "nowhere", "--out", new),
        "empty": ("train", tmp_path / "empty", "--out", new),
        "kind 'sells'": ("train", "sim:sells", "--out", new),
        "bad.toml": ("train", cells, "--out", new, "--config", tmp_path / "bad.toml"),
        "model.bass": ("train", cells, "--out", new, "--set", "model.bass=3"),
        "unknown step 'blur'": ("train", cells, "--out", new, "--set", "preprocess=blur"),
        "unknown normalization": ("train", cells, "--out", new, "--set", "normalize=z"),
        "3 channels; give": ("train", cells, "--out", new, "--set", f"normalize={TWO}"),
        "size is odd": ("data", "stats", cells, "--set", "preprocess=median(size=4)"),
        "unknown loss": ("train", cells, "--out", new, "--set", "loss=dise"),
        "batch_size=": ("train", cells, "--out", new, "--set", "train.batch_size=64"),
        "not empty": ("train", cells, "--out", run, "--set", *ONE_EPOCH),
        "keeps all settings": ("train", cells, "--out", run, "--resume", "--set", "batch_size=3"),
        "no run.json": ("evaluate", cells, cells),
        "--split all": ("evaluate", run, "sim:cells?n=4&size=32&seed=9"),
        "the test split is empty": ("evaluate", run, cells, "--split", "test"),
        "no image there": ("predict", run, tmp_path / "empty", "--out", new),
        "nothing.png": ("predict", run, tmp_path / "nothing.png", "--out", new),
        "kind": ("simulate", new, "--kind", "stars"),
        "--images": ("overfit", cells, "--images", "0"),
        "--steps": ("overfit", cells, "--steps", "0"),
        "is a folder": ("evaluate", run, cells, "--json", tmp_path / "empty"),
    }
    for wanted, command in cases.items():
        assert wanted in refused(capsys, *command), command
        assert not new.exists(), command


def test_a_run_trains_on_when_it_is_resumed_with_more_epochs(
    run: Path, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(run, tmp_path / "run")
    command = ["train", str(cells), "--out", str(out), "--resume"]
    assert main([*command, "--set", "train.epochs=2", "data.size=32"]) == 0
    said = capsys.readouterr().out
    assert "train.epochs is now 2 (was 1)" in said
    assert "epoch   2/2" in said
    assert "epochs = 2" in (out / "config.toml").read_text()


def test_a_damaged_run_is_one_line(
    run: Path, cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in {
        "run.json": b"{",
        "config.toml": b"[train]\nepochs = -3\n",
        "split.json": b'{"train": 3}',
        "checkpoints/best.safetensors": b"\x08\0\0\0\0\0\0\0{}",
    }.items():
        broken = tmp_path / name.replace("/", "_")
        for path in run.rglob("*"):
            target = broken / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                target.write_bytes(path.read_bytes())
        (broken / name).write_bytes(content)
        assert Path(name).name in refused(capsys, "evaluate", broken, cells)


@pytest.mark.slow
def test_control_c_leaves_a_run_to_resume(cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ["--set", *SMALL, "train.epochs=500"]
    command = [sys.executable, "-c", LISTENING, "train", str(cells), "--out", str(out), *settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while not (out / "checkpoints" / "last.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in said
    assert b"Traceback" not in errors
    (out / "config.toml").write_text(
        (out / "config.toml").read_text().replace("epochs = 500", "epochs = 1")
    )
    assert main(["train", str(cells), "--out", str(out), "--resume"]) == 0
