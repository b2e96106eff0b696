"""The settings of a run: frozen dataclasses, in and out of TOML, changed by overrides."""

import difflib
import json
import os
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tinyseg.config.sections import IGNORE, PRECISIONS, DataConfig, ModelConfig, TrainConfig
from tinyseg.errors import ConfigError

__all__ = ["IGNORE", "PRECISIONS", "Config", "DataConfig", "ModelConfig", "TrainConfig"]


@dataclass(frozen=True)
class Config:
    """All settings of a run in three sections: data, model and train.

    `Config.load("run/config.toml")` reads TOML; `Config().with_settings(epochs=20, size=256)` and
    `Config().override(["train.epochs=20", "size=256"])` return a changed copy. A setting is named
    with its section, or without where the name is unique. Invalid ones raise ConfigError.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @staticmethod
    def load(path: str | Path, warn: bool = True) -> "Config":
        """Read a TOML file; with `warn`, settings under an old name give a FutureWarning."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; give an existing TOML file") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not a readable TOML file ({error})") from None
        try:
            for section, values in table.items():
                if section not in SECTIONS or not isinstance(values, dict):
                    raise ConfigError(f"unknown section [{section}]; known: {', '.join(SECTIONS)}")
            keys = {f"{section}.{k}": v for section, part in table.items() for k, v in part.items()}
            return Config()._changed(keys, warn)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        except (ValueError, OverflowError):  # too long to be printed, or to be a float
            raise ConfigError(
                f"{path}: a number in this file is too large; use a smaller one"
            ) from None

    def with_settings(self, **settings: object) -> "Config":
        """Return a copy with these settings: `epochs=20`, or `**{"train.epochs": 20}`."""
        return self._changed(settings)

    def override(self, assignments: Iterable[str]) -> "Config":
        """Return a copy with settings given as texts: `override(["train.epochs=20"])`."""
        values: dict[str, object] = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"{assignment!r} is not key=value, e.g. train.epochs=20")
            section, name = find_setting(key.strip())
            default = getattr(SECTIONS[section](), name)
            full = f"{section}.{name}"
            values[full] = _parse_text(full, text.strip(), type(default))
        return self._changed(values)

    def _changed(self, settings: Mapping[str, object], warn: bool = True) -> "Config":
        changed: dict[str, dict[str, object]] = {}
        for key, value in settings.items():
            section, name = find_setting(key, warn)
            value = _typed(f"{section}.{name}", value, type(getattr(SECTIONS[section](), name)))
            changed.setdefault(section, {})[name] = _RENAMED_VALUES.get((name, value), value)
        parts: dict[str, Any] = {s: replace(getattr(self, s), **v) for s, v in changed.items()}
        return replace(self, **parts)

    def differences(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Return each setting that differs, as "section.name", with its value here and there."""
        pairs = {
            f"{section}.{f.name}": (
                getattr(getattr(self, section), f.name),
                getattr(getattr(other, section), f.name),
            )
            for section, part in SECTIONS.items()
            for f in fields(part)
        }
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def to_toml(self) -> str:
        """Return all settings as TOML; `load` reads them back equal."""
        lines: list[str] = []
        for section in fields(self):
            part = getattr(self, section.name)
            lines += [f"[{section.name}]"]
            lines += [f"{f.name} = {_toml_value(getattr(part, f.name))}" for f in fields(part)]
            lines += [""]
        return "\n".join(lines)


SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}

_RENAMED = {
    # settings of version 0.1: their new names
    "data.limit": "data.max_train_images",
    "data.val": "data.val_fraction",
    "data.test": "data.test_fraction",
    "model.base": "model.base_channels",
    "model.up": "model.upsample",
    "train.batch": "train.batch_size",
    "train.clip": "train.grad_clip",
    "train.patience": "train.early_stopping",
}
_RENAMED_VALUES: dict[tuple[str, object], object] = {("fit", "window"): "tile"}


def find_setting(key: str, warn: bool = True) -> tuple[str, str]:
    """Return section and name of a setting; ConfigError, with a suggestion, if there is none.

    The section may be omitted. A name of an earlier version is accepted with a FutureWarning.
    """
    known = all_settings()
    matches = [full for full in (*known, *_RENAMED) if key in (full, full.partition(".")[2])]
    if not matches:
        raise ConfigError(f"unknown setting {key!r}; {_suggestion(key)}")
    full = _RENAMED.get(matches[0], matches[0])
    if full != matches[0] and warn:
        warnings.warn(f"the setting {key} is now called {full}", FutureWarning, stacklevel=3)
    section, _, name = full.partition(".")
    return section, name


def all_settings() -> list[str]:
    """Return the names of all settings, as "section.name"."""
    return [f"{section}.{f.name}" for section, part in SECTIONS.items() for f in fields(part)]


_SYNONYMS = {"lr": '"adam(lr=0.001)"', "learning_rate": '"adam(lr=0.001)"'}


def _suggestion(key: str) -> str:
    """Return the setting that a misspelled key probably means, or all of them."""
    section, _, name = key.rpartition(".")
    if name in _SYNONYMS:
        return f"set train.optimizer={_SYNONYMS[name]}"
    candidates = {full.partition(".")[2]: full for full in all_settings()}
    candidates |= {old.partition(".")[2]: new for old, new in _RENAMED.items()}
    if section in SECTIONS:
        candidates = {n: f for n, f in candidates.items() if f.startswith(f"{section}.")}
    close = difflib.get_close_matches(name.lower(), candidates, n=1, cutoff=0.65)
    if close:
        return f"did you mean {candidates[close[0]]}?"
    return f"known: {', '.join(all_settings())}"


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def _parse_text(key: str, text: str, kind: type) -> object:
    if kind is str:
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigError(f"{key}={text!r} is not text: it has bytes that are not UTF-8")
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
        return text[1:-1] if quoted else text
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{key}={text!r} is not {_KINDS[kind]}") from None


def _typed(key: str, value: object, kind: type) -> object:
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if type(value) is not kind:
        raise ConfigError(f"{key}={value!r} is not {_KINDS[kind]}")
    return value


def _toml_value(value: object) -> str:
    # JSON's strings, numbers and booleans are also TOML's, but for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
