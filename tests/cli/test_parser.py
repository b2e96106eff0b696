"""The help of every command, and what is said about wrong words."""

import argparse
import shlex
import tomllib
from pathlib import Path

import pytest

import tinyseg
from tinyseg.cli import commands, main, topics
from tinyseg.cli.parser import parser
from tinyseg.cli.table import COMMANDS


def ended(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a call that parsing ends, and what it printed."""
    with pytest.raises(SystemExit) as end:
        parser().parse_args(words)
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out + captured.err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_says_what_a_command_does_explains_every_option_and_ends_with_an_example(
    command, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = ended(capsys, *command.name.split(), "--help")
    assert code == 0
    assert command.summary in " ".join(text.split())
    for one in command.options:
        assert len(one.settings["help"]) > 5, one.flags
        assert one.flags[0] in text or one.settings["metavar"] in text
    assert text.rstrip().endswith(f"example:\n  {command.example}")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_example_is_a_call_of_the_command_that_exists(command) -> None:
    program, *words = shlex.split(command.example)
    assert program == "tinyseg"
    options = parser().parse_args(words)
    assert options.function == command.name.replace(" ", "_")
    module = topics if options.function == "help" else commands
    assert callable(getattr(module, options.function))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(capsys, "--version") == (0, f"tinyseg {tinyseg.__version__}\n")
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == tinyseg.__version__


@pytest.mark.parametrize(
    ("words", "usage", "message"),
    [
        ("evaluate run cells --treshold 0.4", "tinyseg evaluate", "did you mean --threshold?"),
        ("train cells --otu run", "tinyseg train", "unknown option --otu; did you mean --out?"),
        ("trian cells --out run", "tinyseg", "unknown command trian; did you mean train?"),
        ("data chek cells", "tinyseg data", "unknown command chek; did you mean check?"),
        ("info --everything", "tinyseg info", "see tinyseg info --help"),
        ("info cells", "tinyseg info", "'cells' is one argument too many"),
        ("--verison", "tinyseg", "did you mean --version?"),
    ],
)
def test_unknown_words_are_answered_with_the_usage_of_their_command(
    words: str, usage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = ended(capsys, *words.split())
    assert code == 2
    assert text.startswith(f"usage: {usage} [-h]")
    assert message in text.splitlines()[-1]


def test_an_empty_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ended(capsys, "train", "cells", "--out", "")
    assert code == 2
    assert text.endswith("argument --out: the name is empty\n")


def test_values_that_look_like_options_and_abbreviations_are_taken() -> None:
    options = parser().parse_args(["evaluate", "r", "c", "--thresh=0.4", "--split=all"])
    assert (options.threshold, options.split) == (0.4, "all")
    assert parser().parse_args(["data", "stats", "--", "--odd"]).data == "--odd"


def test_settings_given_twice_are_both_taken() -> None:
    command = ["train", "x", "--out", "y", "--set", "base=2", "--set", "depth=1", "epochs=3"]
    assert parser().parse_args(command).set == ["base=2", "depth=1", "epochs=3"]


def test_no_two_arguments_of_a_command_share_a_place() -> None:
    for command in COMMANDS:
        made = argparse.ArgumentParser()
        names = [made.add_argument(*one.flags, **one.settings).dest for one in command.options]
        assert len(names) == len(set(names)), command.name


@pytest.mark.slow
def test_the_examples_run_one_after_another(tmp_path: Path, monkeypatch, capsys) -> None:
    """In the order of the table, on smaller images, with a smaller network."""
    monkeypatch.chdir(tmp_path)
    smaller = {"--n 40": "--n 12", "--size 64": "--size 32", "epochs=8": "epochs=1"}
    smaller |= {
        "size=64": "size=32",
        "base_channels=8": "base_channels=2 depth=1 dropout=0.2 batch_size=4",
    }
    verdicts = ("tinyseg overfit", "tinyseg doctor", "tinyseg data check")
    for command in COMMANDS:
        if command.name in ("data download", "cache clear"):
            continue  # the network, and what all other tests share
        words = command.example
        for text, less in smaller.items():
            words = words.replace(text, less)
        code = main(shlex.split(words)[1:])
        assert code in ((0, 1) if words.startswith(verdicts) else (0,)), capsys.readouterr()
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"cells", "run", "masks", "scores.json", "grid.png", "report.html"}
    assert made >= {"doctor.html", "check.json", "split.json", "stats.json", "preview.png"}
