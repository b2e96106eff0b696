"""The HTML file: a fixed page, its style and its scripts, and the data as JSON that cannot run."""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Layout:
    """The headings of a page's sections by their ids, and the scripts that fill them."""

    sections: Mapping[str, str]
    scripts: Sequence[str]


REPORT = Layout(
    {
        "summary": "Scores",
        "images": "Images",
        "curves": "Curves",
        "doctor": "Findings of the doctor",
        "settings": "Settings",
    },
    ("dom.js", "findings.js", "chart.js", "summary.js", "viewer.js", "page.js"),
)
DIAGNOSIS = Layout({"doctor": "Findings"}, ("dom.js", "findings.js", "doctor.js"))


def build_page(data: dict[str, Any], layout: Layout = REPORT) -> str:
    """Return the whole page as text.

    Names of files and settings are only in the JSON, where "<" is written as an escape, and reach
    the page as text nodes. Its policy lets this very script and style run, and nothing be fetched.
    """
    folder = files("tinyseg.report") / "web"
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in layout.scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    page = (folder / "page.html").read_text(encoding="utf-8")
    # the data last: its texts may look like places to fill
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script}
    parts |= {"SECTIONS": _sections(layout.sections), "DATA": embed(data)}
    for name, text in parts.items():
        before, _, after = page.partition(f"[[{name}]]")
        page = before + text + after
    return page


def embed(data: dict[str, Any]) -> str:
    """Return JSON that is safe inside a script element: ASCII, without <, > and &."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _sections(titles: Mapping[str, str]) -> str:
    heads = {key: f'<h2 id="{key}-title">{title}</h2>' for key, title in titles.items()}
    sections = [
        f'<section id="{k}" aria-labelledby="{k}-title">{h}</section>' for k, h in heads.items()
    ]
    return "\n".join(sections)


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
