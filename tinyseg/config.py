"""The settings of a run: frozen dataclasses, in and out of TOML, changed by overrides."""

import json
import math
import os
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tinyseg.errors import ConfigError

IGNORE = 255
"""The class id of pixels that count nowhere: not in losses, not in metrics."""


def _check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{name}={value!r} cannot be used: it must be {rule}")


PRECISIONS = ("float32", "bfloat16", "float16")
"""What convolutions may take and give; weights and sums are float32."""


@dataclass(frozen=True)
class DataConfig:
    """Which images, at which size, and how they are split."""

    size: int = 128
    """Side of the square that the network sees, in pixels."""
    fit: str = "resize"
    """resize: scale to the side with the aspect kept, then pad; pad: keep the scale, only pad;
    window: keep the scale, and see a larger image through several squares."""
    overlap: float = 0.5
    """Share of its side that a window has in common with the next one, in prediction (window)."""
    color: str = "auto"
    """grey, rgb, or auto: grey when every image is grey."""
    preprocess: str = ""
    """Steps before the fit, e.g. "median(size=3)+clahe(tiles=8,clip=2)"; see `Preprocess`."""
    normalize: str = "dataset"
    """Mean and deviation of the dataset, of each image, minmax, fixed(mean=[..],std=[..]), none."""
    labels: str = "auto"
    """Mask value to class, as "0:0,255:1" ("3:255" ignores value 3); auto scans the masks."""
    split_file: str = ""
    """A saved split or saved folds (JSON) to use again; empty: split by seed and fractions."""
    val: float = 0.2
    """Fraction of the images held out for validation."""
    test: float = 0.0
    """Fraction of the images held out for the test."""
    split_seed: int = 0
    """Seed of the split."""
    stratify: bool = True
    """Give every part its share of empty masks and of small, large and rare objects."""
    folds: int = 0
    """Number of validation parts that together hold every image once; 0: one part by `val`."""
    fold: int = 0
    """Which of the folds validates, from 0."""
    groups: str = ""
    """Regular expression; images whose names give the same first group never straddle a split."""
    limit: int = 0
    """Use only the first so many training images; 0 uses all."""

    def __post_init__(self) -> None:
        _check(16 <= self.size <= 4096, "data.size", self.size, "16 to 4096 pixels")
        fits = ("resize", "pad", "window")
        _check(self.fit in fits, "data.fit", self.fit, f"one of {', '.join(fits)}")
        _check(0 <= self.overlap <= 0.9, "data.overlap", self.overlap, "a share, 0 to 0.9")
        _check(self.color in ("auto", "grey", "rgb"), "data.color", self.color, "auto, grey or rgb")
        _check(0 <= self.val < 1, "data.val", self.val, "a fraction, 0 <= val < 1")
        _check(0 <= self.test < 1 - self.val, "data.test", self.test, "a fraction, val + test < 1")
        _check(
            self.folds == 0 or self.folds >= 2, "data.folds", self.folds, "0 (off) or 2 and more"
        )
        count = self.folds or 1000  # a file of saved folds has its own number
        _check(0 <= self.fold < count, "data.fold", self.fold, f"0 to {count - 1}")
        _check(self.limit >= 0, "data.limit", self.limit, "0 (all) or a count")


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    base: int = 16
    """Channels of the first level; each level down doubles them."""
    depth: int = 4
    """Number of times the resolution is halved."""
    up: str = "transpose"
    """How the decoder doubles the resolution: transpose, bilinear or nearest."""
    norm: str = "batch"
    """batch, group, instance or none."""
    attention: bool = False
    """Attention gates on the skip connections."""
    dropout: float = 0.0
    """Probability that a channel of the deepest level is dropped in training."""
    head: str = "auto"
    """sigmoid (1 channel), softmax (K >= 2 channels), or auto: sigmoid for two classes."""

    def __post_init__(self) -> None:
        ups, norms = ("transpose", "bilinear", "nearest"), ("batch", "group", "instance", "none")
        _check(1 <= self.base <= 256, "model.base", self.base, "1 to 256 channels")
        _check(1 <= self.depth <= 6, "model.depth", self.depth, "1 to 6 levels")
        _check(self.up in ups, "model.up", self.up, f"one of {', '.join(ups)}")
        _check(self.norm in norms, "model.norm", self.norm, f"one of {', '.join(norms)}")
        _check(0 <= self.dropout < 1, "model.dropout", self.dropout, "a probability below 1")
        heads = ("auto", "sigmoid", "softmax")
        _check(self.head in heads, "model.head", self.head, f"one of {', '.join(heads)}")


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = 30
    """Passes over the training images (ignored when `phases` is given)."""
    batch: int = 4
    """Images per step."""
    loss: str = "auto"
    """A loss as text, e.g. "0.7*focal(alpha=0.9,gamma=2)+0.3*bce"; auto: cross-entropy + Dice."""
    optimizer: str = "adam(lr=0.001)"
    """sgd(lr,momentum,nesterov,decay), adam(lr,...) or adamw(lr,decay,...)."""
    schedule: str = "cosine(warmup=0.05)"
    """constant, cosine, poly(power) or plateau(factor,patience); warmup is a fraction of all."""
    augment: str = "none"
    """Transforms drawn anew in every step, e.g. "flip+0.5*rotate(degrees=15)", or a preset."""
    clip: float = 0.0
    """Largest global gradient norm; 0 does not clip."""
    precision: str = "float32"
    """What convolutions take and give, on GPUs: float32, bfloat16 or float16; weights stay
    float32, and prediction computes likewise."""
    loss_scale: float = 0.0
    """float16: factor of the loss against underflow, 1 to 2^24; 0 adapts it from 2^16."""
    phases: str = ""
    """Losses one after another: "bce: 30 epochs; dice: 10 epochs from best"."""
    patience: int = 0
    """Stop after so many epochs without a better validation Dice; 0 never stops early."""
    threshold: float = 0.0
    """Probability from which a pixel is foreground (one-channel head); 0: `predict` and `evaluate`
    take the best one of the validation, which itself is scored with 0.5."""
    postprocess: str = "none"
    """Of class maps, e.g. "fill_holes+min_size(pixels=64)" or "largest"; auto: what helps on the
    validation images, if anything does."""
    seed: int = 0
    """Seed of the weights, the order of the images, dropout and augmentation."""

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "train.epochs", self.epochs, "at least 1")
        _check(self.batch >= 1, "train.batch", self.batch, "at least 1")
        _check(0 <= self.clip < math.inf, "train.clip", self.clip, "0 (off) or a positive norm")
        one_of = f"one of {', '.join(PRECISIONS)}"
        _check(self.precision in PRECISIONS, "train.precision", self.precision, one_of)
        scales = self.loss_scale == 0 or 1 <= self.loss_scale <= 2**24
        _check(scales, "train.loss_scale", self.loss_scale, "0 (adapted) or 1 to 2^24")
        fits = self.loss_scale == 0 or self.precision == "float16"
        rule = "0 unless train.precision is float16"
        _check(fits, "train.loss_scale", self.loss_scale, rule)
        _check(self.patience >= 0, "train.patience", self.patience, "0 (off) or a count of epochs")
        ok = 0 <= self.threshold < 1
        _check(ok, "train.threshold", self.threshold, "0 (from validation) or between 0 and 1")
        _check(0 <= self.seed < 2**31, "train.seed", self.seed, "0 to 2^31 - 1")


@dataclass(frozen=True)
class Config:
    """All settings of a run, in three sections; also the content of a run's config.toml."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    @staticmethod
    def load(path: str | Path) -> "Config":
        """Reads a TOML file; unknown sections, keys and wrong types raise ConfigError."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                f"{path}: no such file; give --config an existing TOML file"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not a readable TOML file ({error})") from None
        try:
            return _from_table(table)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        except (ValueError, OverflowError):  # too long to be shown, or to be a float
            raise ConfigError(f"{path}: a number in it is too large") from None

    def override(self, assignments: list[str] | tuple[str, ...]) -> "Config":
        """Applies texts like "model.base=32" or "loss=dice" (a bare key must be unique)."""
        changed: dict[str, dict[str, object]] = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise ConfigError(f"{assignment!r} is not key=value, e.g. model.base=32")
            section, name = _find_key(key.strip())
            current = getattr(getattr(self, section), name)
            value = _parse_text(f"{section}.{name}", text.strip(), current)
            changed.setdefault(section, {})[name] = value
        parts: dict[str, Any] = {s: replace(getattr(self, s), **v) for s, v in changed.items()}
        return replace(self, **parts)

    def with_settings(self, **settings: object) -> "Config":
        """Return a copy with other settings: `epochs=20`, or `**{"train.epochs": 20}`.

        Names, types and values are checked as in a TOML file.
        """
        table = asdict(self)
        for key, value in settings.items():
            section, name = _find_key(key)
            table[section][name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        return _from_table(table)

    def changes(self, other: "Config") -> dict[str, tuple[Any, Any]]:
        """Each setting that differs in another config: its value here and there."""
        mine, theirs = asdict(self), asdict(other)
        return {
            f"{section}.{name}": (value, theirs[section][name])
            for section, values in mine.items()
            for name, value in values.items()
            if value != theirs[section][name]
        }

    def to_toml(self) -> str:
        """The settings as TOML text; `load` reads it back equal."""
        lines: list[str] = []
        for section in fields(self):
            part = getattr(self, section.name)
            lines += [f"[{section.name}]"]
            lines += [f"{f.name} = {_toml_value(getattr(part, f.name))}" for f in fields(part)]
            lines += [""]
        return "\n".join(lines)


SECTIONS = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}


def _find_key(key: str) -> tuple[str, str]:
    section, dot, name = key.partition(".")
    if dot:
        found = [section] if section in SECTIONS and name in _names(section) else []
    else:
        name = key
        found = [section for section in SECTIONS if name in _names(section)]
    if not found:
        raise ConfigError(f"unknown setting {key!r}; known: {', '.join(_all_keys())}")
    return found[0], name


def _names(section: str) -> list[str]:
    return [f.name for f in fields(SECTIONS[section])]


def _all_keys() -> list[str]:
    return [f"{section}.{name}" for section in SECTIONS for name in _names(section)]


def _parse_text(key: str, text: str, current: object) -> object:
    if isinstance(current, str):
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigError(f"{key}={text!r} is not text: it has bytes that are not UTF-8")
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
        return text[1:-1] if quoted else text
    words = {"true": True, "false": False}
    try:
        value = words[text.lower()] if isinstance(current, bool) else type(current)(text)  # type: ignore[call-arg]
    except (KeyError, ValueError):
        raise ConfigError(f"{key}={text!r} is not {_KINDS[type(current)]}") from None
    return value


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


def _from_table(table: dict[str, Any]) -> Config:
    parts: dict[str, Any] = {}
    for section, values in table.items():
        if section not in SECTIONS or not isinstance(values, dict):
            raise ConfigError(f"unknown section [{section}]; known: {', '.join(SECTIONS)}")
        parts[section] = _section_from(section, values)
    return Config(**parts)


def _section_from(section: str, values: dict[str, Any]) -> Any:
    defaults, checked = SECTIONS[section](), {}
    for name, value in values.items():
        _find_key(f"{section}.{name}")
        kind = type(getattr(defaults, name))
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ConfigError(f"{section}.{name}={value!r} is not {_KINDS[kind]}")
        checked[name] = value
    return SECTIONS[section](**checked)


def _toml_value(value: object) -> str:
    # JSON's strings, numbers and booleans are also TOML's, but for DEL
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
