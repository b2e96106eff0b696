"""The settings of a run: frozen dataclasses, in and out of TOML, changed by overrides."""

import difflib
import json
import math
import os
import tomllib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from tinyseg.errors import ConfigError

IGNORE = 255
"""The class id that losses and metrics ignore."""


def _check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ConfigError(f"{name}={value!r} cannot be used: it must be {rule}")


PRECISIONS = ("float32", "bfloat16", "float16")
"""Types of the images between convolutions; weights and sums are always float32."""


@dataclass(frozen=True)
class DataConfig:
    """Which images, at which size, and how they are split."""

    size: int = 128
    """Height and width of the network's input, in pixels."""
    fit: str = "resize"
    """How an image becomes size x size. resize: scale the longer side to size, keep the aspect
    ratio, pad the rest; pad: keep the scale and pad; tile: keep the scale and cut larger images
    into tiles."""
    overlap: float = 0.5
    """With fit=tile: overlap of neighboring tiles in prediction, as a fraction of the tile side."""
    color: str = "auto"
    """Color mode in which images are read: grey, rgb, or auto (grey if every image is grey)."""
    preprocess: str = ""
    """Filters applied to each image before resizing: "median(size=3)+clahe(tiles=8,clip=2)"."""
    normalize: str = "dataset"
    """dataset or image: subtract the mean and divide by the std of the training images or of each
    image; minmax: scale each image to [0, 1]; fixed(mean=[0.5],std=[0.25]): these values; none."""
    labels: str = "auto"
    """Mask values to class ids: "0:0,255:1" ("3:255" ignores value 3); auto: scan the
    masks."""
    split_file: str = ""
    """JSON file with a saved split or saved folds; empty: split by seed and fractions."""
    val_fraction: float = 0.2
    """Fraction of the images held out for validation."""
    test_fraction: float = 0.0
    """Fraction of the images held out for testing."""
    split_seed: int = 0
    """Seed of the split."""
    stratify: bool = True
    """Give each part its share of empty masks and of small, large and rare objects."""
    folds: int = 0
    """Number of cross-validation folds; 0: no folds, hold out `val_fraction`."""
    fold: int = 0
    """The fold used for validation, from 0."""
    groups: str = ""
    """Regular expression for image names; images with the same match of its first group stay in the
    same part of the split."""
    max_train_images: int = 0
    """Train on at most this many images; 0: on all."""

    def __post_init__(self) -> None:
        _check(16 <= self.size <= 4096, "data.size", self.size, "16 to 4096 pixels")
        fits = ("resize", "pad", "tile")
        _check(self.fit in fits, "data.fit", self.fit, f"one of {', '.join(fits)}")
        _check(0 <= self.overlap <= 0.9, "data.overlap", self.overlap, "a fraction, 0 to 0.9")
        _check(self.color in ("auto", "grey", "rgb"), "data.color", self.color, "auto, grey or rgb")
        _check(
            0 <= self.val_fraction < 1,
            "data.val_fraction",
            self.val_fraction,
            "at least 0 and below 1",
        )
        room, rule = 1 - self.val_fraction, "at least 0, and below 1 together with val_fraction"
        _check(0 <= self.test_fraction < room, "data.test_fraction", self.test_fraction, rule)
        _check(
            self.folds == 0 or self.folds >= 2, "data.folds", self.folds, "0 (off) or at least 2"
        )
        count = self.folds or 1000  # a file of saved folds has its own number
        _check(0 <= self.fold < count, "data.fold", self.fold, f"0 to {count - 1}")
        _check(
            self.max_train_images >= 0,
            "data.max_train_images",
            self.max_train_images,
            "0 (all) or a number of images",
        )


@dataclass(frozen=True)
class ModelConfig:
    """The settings of the network, a U-Net."""

    base_channels: int = 16
    """Channels of the first level; each level down doubles them."""
    depth: int = 4
    """Number of times the resolution is halved."""
    upsample: str = "transpose"
    """How the decoder doubles the resolution: transpose, bilinear or nearest."""
    norm: str = "batch"
    """Normalization layers: batch, group, instance or none."""
    attention: bool = False
    """Whether to use attention gates on the skip connections."""
    dropout: float = 0.0
    """Probability of dropping a channel of the deepest level in training."""
    head: str = "auto"
    """Output of the network: sigmoid (1 channel), softmax (one channel per class), or auto: sigmoid
    for two classes, softmax for more."""

    def __post_init__(self) -> None:
        ups, norms = ("transpose", "bilinear", "nearest"), ("batch", "group", "instance", "none")
        _check(
            1 <= self.base_channels <= 256,
            "model.base_channels",
            self.base_channels,
            "1 to 256 channels",
        )
        _check(1 <= self.depth <= 6, "model.depth", self.depth, "1 to 6 levels")
        _check(self.upsample in ups, "model.upsample", self.upsample, f"one of {', '.join(ups)}")
        _check(self.norm in norms, "model.norm", self.norm, f"one of {', '.join(norms)}")
        _check(0 <= self.dropout < 1, "model.dropout", self.dropout, "a probability below 1")
        heads = ("auto", "sigmoid", "softmax")
        _check(self.head in heads, "model.head", self.head, f"one of {', '.join(heads)}")


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained: loss, optimizer, augmentation, and when to stop."""

    epochs: int = 30
    """Passes over the training images (ignored if `phases` is set)."""
    batch_size: int = 4
    """Images per step."""
    loss: str = "auto"
    """A loss or a weighted sum: "0.7*focal(alpha=0.9,gamma=2)+0.3*bce"; auto: half cross-entropy,
    half Dice."""
    optimizer: str = "adam(lr=0.001)"
    """sgd(lr,momentum,nesterov,weight_decay), adam(lr,beta1,beta2,eps,weight_decay) or adamw."""
    schedule: str = "cosine(warmup=0.05)"
    """Learning rate over time: constant, cosine, poly(power) or plateau(factor,patience); warmup is
    a fraction of all steps."""
    augment: str = "none"
    """Random transforms: none, light, medium, strong, trivial, or "flip+0.5*rotate(degrees=15)"."""
    grad_clip: float = 0.0
    """Maximum norm of the gradients of all weights together (gradient clipping); 0: no clipping."""
    precision: str = "float32"
    """Mixed precision, for GPUs: float32, bfloat16 or float16; weights stay float32."""
    loss_scale: float = 0.0
    """With precision=float16: factor of the loss that prevents underflow of gradients, 1 to 2^24;
    0: adapted in training, starting at 2^16."""
    phases: str = ""
    """Several losses, one after the other: "bce: 30 epochs; dice: 10 epochs from best"."""
    early_stopping: int = 0
    """Stop after this many epochs without a better validation Dice; 0: never."""
    threshold: float = 0.0
    """A pixel is foreground if its probability is at least this (sigmoid head); 0: use the best
    threshold on the validation images if it clearly gains over 0.5, else 0.5."""
    postprocess: str = "none"
    """Post-processing of predicted masks: "fill_holes+min_size(pixels=64)", "largest"; auto: the
    steps that raise the Dice on the validation images, if any do."""
    seed: int = 0
    """Seed of the initial weights, the order of the images, dropout and augmentation."""

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "train.epochs", self.epochs, "at least 1")
        _check(self.batch_size >= 1, "train.batch_size", self.batch_size, "at least 1")
        _check(
            0 <= self.grad_clip < math.inf,
            "train.grad_clip",
            self.grad_clip,
            "0 (off) or a positive norm",
        )
        one_of = f"one of {', '.join(PRECISIONS)}"
        _check(self.precision in PRECISIONS, "train.precision", self.precision, one_of)
        scales = self.loss_scale == 0 or 1 <= self.loss_scale <= 2**24
        _check(scales, "train.loss_scale", self.loss_scale, "0 (adapted in training), or 1 to 2^24")
        fits = self.loss_scale == 0 or self.precision == "float16"
        rule = "0 unless train.precision is float16"
        _check(fits, "train.loss_scale", self.loss_scale, rule)
        _check(
            self.early_stopping >= 0,
            "train.early_stopping",
            self.early_stopping,
            "0 (off) or a number of epochs",
        )
        ok = 0 <= self.threshold < 1
        _check(
            ok,
            "train.threshold",
            self.threshold,
            "0 (best on the validation images), or between 0 and 1",
        )
        _check(0 <= self.seed < 2**31, "train.seed", self.seed, "0 to 2^31 - 1")


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
