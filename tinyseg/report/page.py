"""The HTML file: a fixed page, its style and its scripts, and the data as JSON that cannot run."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

SCRIPTS = ("dom.js", "findings.js", "chart.js", "summary.js", "viewer.js", "page.js")
DIAGNOSIS = ("dom.js", "findings.js", "doctor.js")


def build_page(
    data: dict[str, Any], frame: str = "page.html", scripts: Sequence[str] = SCRIPTS
) -> str:
    """The whole page as text, in the frame of an HTML file beside this one.

    Names of files and settings are only in the JSON, where "<" is written as an escape, and reach
    the page as text nodes. Its policy lets this very script and style run, and nothing be fetched.
    """
    folder = files("tinyseg.report")
    style = (folder / "page.css").read_text(encoding="utf-8")
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; "
        f"script-src {_hash(script)}; base-uri 'none'; form-action 'none'"
    )
    page = (folder / frame).read_text(encoding="utf-8")
    # the data last: its texts may look like places to fill
    parts = {"POLICY": policy, "STYLE": style, "SCRIPT": script, "DATA": embed(data)}
    for name, text in parts.items():
        before, _, after = page.partition(f"[[{name}]]")
        page = before + text + after
    return page


def embed(data: dict[str, Any]) -> str:
    """JSON that is safe inside a script element: ASCII, without <, > and &."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
