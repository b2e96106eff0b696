"""`tinyseg help`: pages, commands, and what is said of others."""

from pathlib import Path

import pytest

from tinyseg.cli import main, topics


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "settings.md").write_text("# All settings\n\n`train.epochs` ...\n")
    (tmp_path / "recipes" / "own_loss.md").write_text("# A loss of your own\n")
    monkeypatch.setattr(topics, "FOLDER", tmp_path)
    return tmp_path


def test_it_lists_pages_with_their_titles(pages, capsys) -> None:
    assert main(["help"]) == 0
    text = capsys.readouterr().out
    assert "  settings          All settings\n" in text
    assert "  recipes/own_loss  A loss of your own\n" in text


def test_it_prints_a_page(pages, capsys) -> None:
    assert main(["help", "settings"]) == 0
    assert capsys.readouterr().out.startswith("# All settings\n\n`train.epochs`")
    assert main(["help", "recipes/own_loss.md"]) == 0


def test_it_prints_the_help_of_a_command(pages, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        main(["help", "data", "check"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("usage: tinyseg data check")


@pytest.mark.parametrize(("word", "answer"), [("setings", "mean settings?"), ("xyz", "lists the")])
def test_an_unknown_page_is_one_line(pages, word, answer, capsys) -> None:
    assert main(["help", word]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: no page on '{word}'; ")
    assert answer in text
