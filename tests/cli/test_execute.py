"""How a command ends: files of others are kept, Ctrl-C and closed streams leave no traceback."""

import errno
import json
import os
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

# a test that runs in the background inherits that Ctrl-C is ignored
LISTENING = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
print("on", flush=True)
from tinyseg.cli import main
import sys
sys.argv = ["tinyseg", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("execute") / "cells"
    write_pairs(simulate("cells", n=10, size=32, seed=2), folder)
    return folder


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_a_file_of_others_is_never_replaced(
    cells: Path, tmp_path: Path, option: str, capsys
) -> None:
    file = tmp_path / ("labels.json" if option == "--json" else "mask.png")
    if option == "--json":
        file.write_text('{"annotations": [], "info": "of tinyseg"}')
    else:
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(file)
    before = file.read_bytes()
    command = ["data", "stats", str(cells), option, str(file)]
    assert main(command) == 2
    assert "exists and was not written by tinyseg" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main([*command, "--force"]) == 0
    assert f"written: {file}" in capsys.readouterr().out
    assert main(command) == 0, "it may replace what it wrote"


def test_a_mask_of_the_data_is_never_replaced(cells: Path, capsys) -> None:
    mask = min((cells / "masks").iterdir())
    before = mask.read_bytes()
    assert main(["data", "preview", str(cells), "--out", str(mask)]) == 2
    assert str(mask) in capsys.readouterr().err
    assert mask.read_bytes() == before


def test_a_saved_split_is_not_replaced_without_force(cells: Path, tmp_path: Path, capsys) -> None:
    split = tmp_path / "split.json"
    command = ["data", "check", str(cells), "--save-split", str(split), "--set", "data.size=32"]
    assert main(command) in (0, 1)
    before = json.loads(split.read_text())
    assert main([*command, "data.split_seed=5"]) == 2
    assert json.loads(split.read_text()) == before
    assert main([*command, "data.split_seed=5", "--force"]) in (0, 1)
    assert json.loads(split.read_text()) != before


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "no-run", "no-data", "--picture", "p.xyz"),
        ("report", "no-run", "--out", "p.xyz"),
        ("doctor", "no-data", "--page", "page.png"),
        ("data", "preview", "no-data", "--out", "p.jpg"),
    ],
)
def test_how_a_file_is_named_is_checked_before_any_work(command, capsys) -> None:
    assert main(command) == 2
    assert "the name of this file must end in ." in capsys.readouterr().err


@pytest.mark.slow
def test_training_goes_on_when_its_reader_leaves(cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = [sys.executable, "-m", "tinyseg", "train", str(cells), "--out", str(out)]
    with subprocess.Popen(
        [*program, "--set", *SMALL, "epochs=3"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")
    epochs = (out / "metrics.jsonl").read_text().count('"epoch"')
    assert epochs >= 3


@pytest.mark.parametrize(
    "closed",
    [*(pytest.param(one, marks=pytest.mark.slow) for one in (">&-", "2>&-")), ">&- 2>&-"],
)
def test_a_closed_stream_is_no_error(closed: str) -> None:
    command = f"'{sys.executable}' -m tinyseg cache info {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("milliseconds", [0, 5, 20, 60, 150, 300, 500, 800, 1200])
def test_control_c_is_one_line_while_python_imports(milliseconds: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LISTENING, "data", "check", "sim:cells?n=2000&size=256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        # the script's own few lines are not ours: the first import has its moment
        time.sleep(0.03 + milliseconds / 1000)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == b"interrupted"
    assert b"Traceback" not in errors


@pytest.mark.parametrize("seconds", [0.05, 1.5])
def test_sigterm_is_one_line(seconds: float) -> None:
    command = [sys.executable, "-c", LISTENING, "data", "check", "sim:cells?n=2000&size=256"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        time.sleep(seconds)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines()[-1] == b"terminated"
    assert b"Traceback" not in errors


def test_control_c_after_the_work_changes_nothing() -> None:
    code = LISTENING.replace(
        "sys.exit(main())", "code = main()\nsignal.raise_signal(2)\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "help"], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB\nfor an array"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
    ],
)
def test_too_little_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr("tinyseg.cli.commands.info", fail)
    monkeypatch.setattr("tinyseg.cli.commands.overfit", fail)
    assert main(["info"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory in `tinyseg info` (")
    assert str(error).split()[-1] in said
    assert "closing other programs" in said
    assert main(["overfit", "cells"]) == 2
    assert "train.batch_size" in capsys.readouterr().err
