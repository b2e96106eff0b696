"""README and docs are true: their commands and Python blocks run, their links lead somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tinyseg.cli.reference import PAGES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "tinyseg" / "docs"
README = ROOT / "README.md"
PAGES_IN_ORDER = ["train", "data", "predict", "evaluate", "debug", "augmentation", "weights"]
"""Pages with commands, in the order in which a reader of all of them would run these."""
RECIPES = sorted((DOCS / "recipes").glob("*.py"))


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


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


def run_page(page: Path, folder: Path) -> list[str]:
    """Run a page's commands, then its Python blocks; return what each printed."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("tinyseg ")]
    outputs = [run(["-m", *shlex.split(line)], folder) for line in ours]
    return outputs + [run(["-c", code], folder) for code in blocks(page, "python")]


@pytest.mark.slow
def test_the_commands_and_the_python_blocks_of_the_readme_run_in_order(tmp_path: Path) -> None:
    outputs = run_page(README, tmp_path)
    assert len(outputs) >= 9
    assert any("PASS: 4 of 4" in text for text in outputs)
    assert any("this run" in text and "all background" in text for text in outputs)
    written = {"run", "run2", "masks", "cells", "grid.png", "report.html", "doctor.html"}
    assert written <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_the_commands_and_the_python_blocks_of_the_docs_run(tmp_path: Path) -> None:
    run(["-m", "tinyseg", "simulate", "cells", "--n", "40", "--size", "64"], tmp_path)
    outputs = [text for name in PAGES_IN_ORDER for text in run_page(DOCS / f"{name}.md", tmp_path)]
    assert len(outputs) >= 12
    assert any("NOT aligned" in text for text in outputs)
    for page in DOCS.glob("*.md"):
        if page.stem not in PAGES_IN_ORDER and page.name not in PAGES:
            assert not [b for b in blocks(page, "sh") if "tinyseg " in b], f"{page} is not run"
            assert not blocks(page, "python"), f"{page} is not run"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_is_short(recipe: Path, tmp_path: Path) -> None:
    lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 15
    run([str(recipe)], tmp_path)
    assert recipe.name in README.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_the_reference_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run  make docs"


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pages = [README, ROOT / ".github" / "CONTRIBUTING.md"]
    targets = {
        t for p in pages for b in blocks(p, "sh") for t in re.findall(r"^make (\w+)", b, re.M)
    }
    assert targets >= {"demo", "test", "quick", "docs"}
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_table_of_rooms_names_every_room_and_nothing_else() -> None:
    text = README.read_text(encoding="utf-8")
    table = text[text.index("## How it is built") : text.index("## Speed")]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in row.split(", ")}
    there = {
        path.name if path.suffix else f"{path.name}/"
        for path in (ROOT / "tinyseg").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert {name.strip("`") for name in named} == there - {"__init__.py", "__main__.py"}


@pytest.mark.parametrize(
    "page", [README, ROOT / ".github" / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))], ids=str
)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
