"""`--model FILE.py:CLASS`: what is loaded, and one clear line for what is wrong."""

from pathlib import Path

import pytest

from tinyseg.cli import main
from tinyseg.cli.user_code import load_callable, make_model
from tinyseg.errors import TinysegError

GOOD = """
from dataclasses import dataclass
from neighbor import VALUE

NUMBER = 3

@dataclass
class Net:
    channels: int = VALUE

class NeedsWidth:
    def __init__(self, width):
        self.width = width

def my_loss(logits, label):
    return logits
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbor.py").write_text("VALUE = 7\n")
    path = tmp_path / "nets.py"
    path.write_text(GOOD)
    return path


def test_a_class_and_a_function_of_one_file_share_its_module(file: Path) -> None:
    model, loss = make_model(f"{file}:Net"), load_callable("--loss", f"{file}:my_loss")
    assert model.channels == 7
    assert loss(1, 2) == 1
    assert loss.__globals__["Net"] is type(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nets.py", "give FILE.py:NAME, e.g. nets.py:MyNet"),
        ("nets.txt:Net", "give FILE.py:NAME"),
        ("nowhere.py:Net", "there is no file nowhere.py"),
        ("{file}:Nte", r"has no 'Nte'; did you mean Net\?"),
        ("{file}:NUMBER", "NUMBER is not a class or a function but int"),
        ("{file}:NeedsWidth", "TypeError: .*missing 1 required positional argument: 'width'"),
    ],
)
def test_what_is_wrong_is_said(file: Path, text: str, message: str) -> None:
    with pytest.raises(TinysegError, match=message):
        make_model(text.format(file=file))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import math\n\nx = math.nothing\n", r"bad\.py, line 3: AttributeError: module 'math'"),
        ("def f(:\n", r"bad\.py, line 1: SyntaxError: "),
        ("\ndef f():\n    1 / 0\n\nf()\n", r"bad\.py, line 3: ZeroDivisionError: division by zero"),
        ("import no_such_module_here\n", r"bad\.py, line 1: ModuleNotFoundError"),
        ("raise ValueError('one\\ntwo')\n", r"bad\.py, line 1: ValueError: one \("),
    ],
)
def test_an_exception_names_the_users_file_and_line(tmp_path, code, message) -> None:
    (tmp_path / "bad.py").write_text(code)
    with pytest.raises(TinysegError, match=message) as error:
        load_callable("--model", f"{tmp_path / 'bad.py'}:Net")
    assert "\n" not in str(error.value)


OWN = """
from tinygrad import Tensor, nn

class Net:
    out_channels = 1

    def __init__(self):
        self.first, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def __call__(self, x):
        return self.head(self.first(x).relu())

def loss(logits, label):
    return logits[:, 0].binary_crossentropy_logits((label == 1).float())
"""


SETTINGS = ["size=16", "epochs=1", "batch_size=2"]


@pytest.mark.slow
def test_a_network_and_a_loss_of_ones_own_are_trained_and_used(tmp_path: Path, capsys) -> None:
    file, out, cells = tmp_path / "own.py", tmp_path / "run", "sim:cells?n=8&size=16"
    file.write_text(OWN)
    train = ["train", cells, "--out", str(out), "--set", *SETTINGS]
    assert main([*train, "--model", f"{file}:Net", "--loss", f"{file}:loss"]) == 0
    assert main(["evaluate", str(out), cells, "--model", f"{file}:Net"]) == 0
    assert "this run" in capsys.readouterr().out
    assert main(["evaluate", str(out), cells]) == 2
    assert "--model FILE.py:Net" in capsys.readouterr().err


@pytest.mark.slow
def test_folds_train_a_new_network_of_ones_own_each(tmp_path: Path, capsys) -> None:
    file, out, cells = tmp_path / "own.py", tmp_path / "cv", "sim:cells?n=8&size=16&empty=0"
    file.write_text(OWN)
    train = ["train", cells, "--out", str(out), "--folds", "2", "--set", *SETTINGS]
    own = ["--model", f"{file}:Net", "--loss", f"{file}:loss"]
    assert main([*train, *own]) == 0
    assert "all out-of-fold" in capsys.readouterr().out
    losses = [(out / f"fold-{k}" / "metrics.jsonl").read_text().splitlines()[1] for k in (0, 1)]
    assert losses[0] != losses[1]
    assert main(["evaluate", str(out), cells, "--model", f"{file}:Net"]) == 0
    assert main([*train, "--resume", "--model", f"{file}:Net"]) == 2
    assert "pass it again to resume, loss=loss" in capsys.readouterr().err


def test_a_loss_that_raises_is_one_line_with_the_users_file_and_line(
    tmp_path: Path, capsys
) -> None:
    file = tmp_path / "broken.py"
    file.write_text(OWN.replace("logits[:, 0]", "logits.reshape(7, 7)"))
    train = ["train", "sim:cells?n=8&size=16", "--out", str(tmp_path / "run"), "--set", *SETTINGS]
    assert main([*train, "--model", f"{file}:Net", "--loss", f"{file}:loss"]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"error: {file}, line 14: ValueError: ")
    assert "in loss, given from the command line" in line
