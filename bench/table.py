"""Rewrites the README's table of records from a result of `step.py`: `make bench` runs both."""

import json
import sys
from pathlib import Path
from typing import Any

from record import ROOT

Row = dict[str, Any]

RESULT = ROOT / "bench" / "results" / "step.json"
START, END = "<!-- records: written by bench/table.py -->", "<!-- /records -->"


def render(report: Row) -> str:
    """The table of a report, every number with the least and the greatest in brackets."""
    cases = report["cases"]
    titles = [f"{name}: {_sizes(case)}" for name, case in cases.items()]
    lines = [_line(["median (least..greatest)", *titles]), "|---" * (len(cases) + 1) + "|"]
    for title, cell in ROWS.items():
        lines.append(_line([title, *(cell(case) for case in cases.values())]))
    return "\n".join([*lines, "", _told(report)])


def _sizes(case: Row) -> str:
    sizes = case["case"]
    batch = f"{sizes['batch']}x{sizes['channels']}x{sizes['size']}x{sizes['size']}"
    return f"base {sizes['base']}, {batch}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _ours(measure: str) -> Any:
    return lambda case: _spread(case["rows"]["tinyseg"][measure])


def _best(measure: str) -> Any:
    """PyTorch's best way for this measure, by its median."""
    return lambda case: _spread(case["rows"][case["ratios"]["median"][measure]["best"]][measure])


def _ratio(measure: str) -> Any:
    def cell(case: Row) -> str:
        middle, least = (case["ratios"][s][measure]["ratio"] for s in ("median", "min"))
        return f"**{middle:.2f}** (least {least:.2f})"

    return cell


def _spread(values: Row) -> str:
    middle, least, most = (_digits(values[key]) for key in ("median", "min", "max"))
    return f"{middle} ({least}..{most})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


ROWS = {
    "training step, ms": _ours("step_ms"),
    "PyTorch's best step, ms": _best("step_ms"),
    "**ratio**": _ratio("step_ms"),
    "inference, ms": _ours("inference_ms"),
    "PyTorch's best inference, ms": _best("inference_ms"),
    "**ratio** of inference": _ratio("inference_ms"),
    "first step from process start, s": _ours("start_s"),
    "PyTorch's, s": _best("start_s"),
    "first step with nothing cached, s": lambda case: f"{case['cold']['train']['start_s']:.1f}",
    "peak memory, ours / PyTorch's least": _ratio("peak_mib"),
    "kernels of a step": lambda case: str(case["kernels"]["train"]),
}


def _told(report: Row) -> str:
    """What the numbers depend on."""
    case = next(iter(report["cases"].values()))
    rows = case["rows"]["tinyseg"]
    loads = ", ".join(f"{case['load'][0]:.1f}" for case in report["cases"].values())
    return (
        f"{report['date'][:10]}, commit {report['commit'][:7]}, {case['facts']['cpu']}, "
        f"{report['options']['threads']} threads, PyTorch {report['torch']} (the best of NCHW and "
        f"channels_last, default and tuned allocator), {rows['step_ms']['n']} steps each on A; "
        f"load average before each case: {loads}."
    )


def rewrite(text: str, table: str) -> str:
    """The README with `table` between its two marks."""
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not (start and end) or START in rest or END in head + tail:
        raise SystemExit(f"README.md: needs the marks {START} and {END} once each, in this order")
    return f"{head}{START}\n{table}\n{END}{tail}"


def main(path: Path = RESULT, readme: Path = ROOT / "README.md") -> None:
    """Read the result, rewrite the README, show the table."""
    table = render(json.loads(path.read_text(encoding="utf-8")))
    readme.write_text(rewrite(readme.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
