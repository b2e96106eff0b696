"""The README's table of records is made from the JSON of a bench, and nothing else changes."""

import copy
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
REPORT = {
    "date": "2026-11-20T19:00:00+00:00",
    "commit": "0123456789abcdef",
    "torch": "2.13.0",
    "options": {"threads": 2},
    "cases": {
        "A": {
            "case": {"base": 16, "batch": 4, "channels": 1, "size": 128, "depth": 4},
            "facts": {"cpu": "a processor"},
            "kernels": {"train": 246, "predict": 93},
            "cold": {"train": {"start_s": 9.87}},
            "load": [0.3, 0.9],
            "rows": {
                side: {
                    measure: {"median": value, "min": value / 2, "max": value * 10, "n": 60}
                    for measure in ("step_ms", "inference_ms", "start_s", "peak_mib")
                }
                for side, value in {"tinyseg": 50.0, "torch nchw": 75.0}.items()
            },
            "ratios": {
                statistic: {
                    measure: {"ratio": ratio, "best": "torch nchw"}
                    for measure in ("step_ms", "inference_ms", "start_s", "peak_mib")
                }
                for statistic, ratio in {"median": 0.667, "min": 0.7}.items()
            },
        }
    },
}


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    sys.modules.pop("table", None)
    import table

    return table


def test_the_table_holds_the_numbers_of_the_report(table: ModuleType) -> None:
    text = table.render(REPORT)
    assert "| median (least..greatest) | A: base 16, 4x1x128x128 |" in text
    assert "| training step, ms | 50.0 (25.0..500) |" in text
    assert "| PyTorch's best step, ms | 75.0 (37.5..750) |" in text
    assert "| **ratio** | **0.67** (least 0.70) |" in text
    assert "| first step with nothing cached, s | 9.9 |" in text
    assert "| kernels of a step | 246 |" in text
    assert "commit 0123456" in text
    assert "a processor" in text


def test_only_what_is_between_the_marks_changes(table: ModuleType, tmp_path: Path) -> None:
    result, readme = tmp_path / "step.json", tmp_path / "README.md"
    result.write_text(json.dumps(REPORT))
    readme.write_text(f"before\n{table.START}\nold\n{table.END}\nafter\n")
    table.main(result, readme)
    head, rest = readme.read_text().split(table.START)
    middle, tail = rest.split(table.END)
    assert (head, tail) == ("before\n", "\nafter\n")
    assert "old" not in middle
    assert "50.0 (25.0..500)" in middle
    again = copy.deepcopy(readme.read_text())
    table.main(result, readme)
    assert readme.read_text() == again


@pytest.mark.parametrize("text", ["no marks", "{END}\nx\n{START}", "{START}\n{END}\n" * 2])
def test_a_readme_without_its_marks_is_left_alone(table: ModuleType, text: str) -> None:
    text = text.format(START=table.START, END=table.END)
    with pytest.raises(SystemExit, match="needs the marks"):
        table.rewrite(text, "table")


def test_the_readme_has_the_marks_and_the_kept_result_makes_its_table(table: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made = table.render(json.loads(table.RESULT.read_text(encoding="utf-8")))
    assert table.rewrite(readme, made) == readme
