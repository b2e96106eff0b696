"""The README is true: its commands and its Python blocks run, its files and settings exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tinyseg.config import Config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def run(command: list[str], folder: Path) -> str:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_and_the_python_blocks_run_in_order(tmp_path: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    ours = [line for line in commands if line.startswith("tinyseg ")]
    assert len(ours) >= 7
    said = [run(["-m", *shlex.split(line)], tmp_path) for line in ours]
    assert any("PASS: 4 of 4" in text for text in said)
    assert any("this run" in text and "all background" in text for text in said)
    for code in blocks("python"):
        run(["-c", code], tmp_path)
    made = {"run", "run2", "masks", "masks2", "cells", "scores.json", "grid.png"}
    assert made <= {path.name for path in tmp_path.iterdir()}


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.M)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_settings_in_the_table_have_these_defaults() -> None:
    cells = r"^\| (`(?:data|model|train)\.(?!py)\w+`[^|]*?) \| *([^|]*?) *\|"
    rows = re.findall(cells, README, re.M)
    assert len(rows) >= 8
    for names, defaults in rows:
        keys = re.findall(r"`(\w+)\.(\w+)`", names)
        values = [value.strip("` ") for value in re.split(r", (?![^(]*\))", defaults)]
        for (section, name), value in zip(keys, values, strict=True):
            assert str(getattr(getattr(Config(), section), name)).removesuffix(".0") == value


def test_the_file_table_names_every_module_and_nothing_else() -> None:
    table = README[README.index("## How it is built") :]
    named = {name.rstrip("/") for name in re.findall(r"`(\w+(?:\.py|/))`", table)}
    there = {
        path.name
        for path in (ROOT / "tinyseg").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert named - {"bench", "journal"} == there - {"__init__.py", "__main__.py"}


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
