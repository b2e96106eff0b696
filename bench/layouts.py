"""What tinyseg makes of folders as people have them: pairs, classes; bench/README.md."""

import argparse
from pathlib import Path

from record import HELP, ROOT, keep, machine

from tinyseg.config import Config
from tinyseg.data import Dataset
from tinyseg.data.checks.check import check
from tinyseg.errors import TinysegError

SHARED = ROOT.parent / "shared" / "data"
FOLDERS = (*sorted((SHARED / "wild").glob("*")), *sorted((SHARED / "cases").glob("*")))


def open_folder(folder: Path) -> dict[str, object]:
    """The verdict of `tinyseg data check`, and what a run would use."""
    row: dict[str, object] = {"folder": folder.name}
    try:
        found = check(folder, Config())
        row |= {"verdict": found.level, "findings": [f.seen for f in found.findings]}
        data = Dataset(folder)
    except TinysegError as error:
        return row | {"verdict": "refused", "why": str(error).replace(f"{folder.parent}/", "")}
    labels = [sample.label for sample in map(data.__getitem__, range(len(data)))]
    known = sum((label != 255).sum() for label in labels if label is not None)
    objects = sum(((label > 0) & (label != 255)).sum() for label in labels if label is not None)
    return row | {
        "images": len(data),
        "channels": data.channels,
        "classes": list(data.class_names),
        "foreground": round(float(objects / max(1, known)), 4),
        "taken": data.layout,
        "warnings": list(data.warnings),
    }


def line(row: dict[str, object]) -> str:
    """A row of the table."""
    head = f"{str(row['folder'])[:24]:25}{row['verdict']!s:9}"
    if "images" not in row:
        return f"{head}{str(row.get('why', ''))[:150]}"
    names = ", ".join(map(str, row["classes"]))[:60]  # type: ignore[call-overload]
    return f"{head}{row['images']:4} images  {row['foreground']:7.2%} foreground  {names}"


def main() -> None:
    """Open all, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=FOLDERS)
    parser.add_argument("--json", metavar="NAME", help=HELP)
    options = parser.parse_args()
    rows = []
    for folder in options.folders:
        rows.append(open_folder(folder))
        print(line(rows[-1]), flush=True)
    keep({**machine(), "rows": rows}, options.json)


if __name__ == "__main__":
    main()
