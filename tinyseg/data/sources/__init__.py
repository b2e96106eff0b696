"""Datasets known by name, such as "pets:PATH" or "busi:PATH?kinds=benign,malignant".

`find_named` turns such a text into a layout with label map and class names; `download` gets the
published files. This room knows files and folders, but decodes no image and opens no `Dataset`.
"""

import re
from pathlib import Path

from tinyseg.data.sample import name_some
from tinyseg.data.sources.busi import BUSI
from tinyseg.data.sources.camvid import CAMVID
from tinyseg.data.sources.dsb2018 import DSB2018
from tinyseg.data.sources.isbi2012 import ISBI2012
from tinyseg.data.sources.pets import PETS
from tinyseg.data.sources.source import Archive, Named, Option, Source
from tinyseg.errors import DataError

__all__ = ["SOURCES", "Archive", "Named", "Option", "Source", "find_named"]

SOURCES: dict[str, Source] = {
    "pets": PETS,
    "busi": BUSI,
    "isbi2012": ISBI2012,
    "camvid": CAMVID,
    "dsb2018": DSB2018,
}


def find_named(text: str) -> Named | None:
    """Read "NAME:PATH?option=choice&..."; None when the text is the path of a folder.

    DataError when the name or an option is unknown, or official files are not in the folder.
    """
    name, colon, rest = text.partition(":")
    if not re.fullmatch(r"\w{2,}", name) or Path(text).exists() or not (colon or name in SOURCES):
        return None
    if name not in SOURCES:
        known = ", ".join(f"{known}:" for known in (*SOURCES, "sim"))
        raise DataError(f"{text}: no such folder, and {name}: is no known dataset; known: {known}")
    source = SOURCES[name]
    path, _, query = rest.partition("?")
    if not path:
        raise DataError(
            f"{text}: the folder is missing; {_get(name, 'PATH')}, then give {name}:PATH"
        )
    folder, options = Path(path).expanduser(), _options(text, source, query)
    if not folder.is_dir():
        raise DataError(f"{text}: no such folder: {path}; {_get(name, path)}")
    missing = source.missing(folder)
    if missing:
        absent = name_some(missing, most=6)
        raise DataError(
            f"{text}: not there: {absent}; restore the official layout, or {_get(name, 'NEW')}"
        )
    return source.find(source.root(folder), options)


def _get(name: str, path: str) -> str:
    return f"`tinyseg data download {name} {path}` fetches it"


def _options(text: str, source: Source, query: str) -> dict[str, str]:
    chosen = {name: option.default for name, option in source.options.items()}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        if name not in source.options:
            known = ", ".join(source.options) or "none"
            raise DataError(f"{text}: unknown option {name!r}; known: {known}")
        chosen[name] = source.options[name].read(text, name, value)
    return chosen
