"""README and docs are true: their commands and Python blocks run, their links lead somewhere."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from tinyseg.cli import main
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


def run_page(page: Path, done: dict[str, int]) -> None:
    """Run a page's commands, then its Python blocks, which no page before it had."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    for line in lines:
        if line.startswith("tinyseg ") and line not in done:
            done[line] = main(shlex.split(line)[1:])
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_commands_and_the_python_blocks_of_the_readme_and_the_docs_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done: dict[str, int] = {}
    run_page(README, done)
    readme = capsys.readouterr().out
    assert len(done) >= 8
    assert "PASS: 4 of 4" in readme
    assert "this run" in readme
    assert "all background" in readme
    written = {"run", "run2", "masks", "cells", "grid.png", "report.html", "doctor.html"}
    assert written <= {path.name for path in tmp_path.iterdir()}
    for name in PAGES_IN_ORDER:
        run_page(DOCS / f"{name}.md", done)
    assert set(done.values()) == {0}
    assert len(done) >= 11
    assert "NOT aligned" in capsys.readouterr().out
    for page in DOCS.glob("*.md"):
        if page.stem not in PAGES_IN_ORDER and page.name not in PAGES:
            assert not [b for b in blocks(page, "sh") if "tinyseg " in b], f"{page} is not run"
            assert not blocks(page, "python"), f"{page} is not run"


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_and_is_short(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [line for line in recipe.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 15
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(recipe), run_name="__main__")
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
