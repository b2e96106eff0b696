"""A user's own parts of a run: objects that take the place of settings."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tinyseg.augment import Pipeline
from tinyseg.config import Config
from tinyseg.data import Dataset
from tinyseg.device.choose import backend
from tinyseg.device.tensors import realize_weights
from tinyseg.errors import ConfigError, RunError
from tinyseg.nn import output_channels, state_dict
from tinyseg.runs.run import RunFolder


@dataclass(frozen=True)
class OwnParts:
    """What a user passes as objects; None where the settings say it. See `train`."""

    model: Any = None
    loss: Any = None
    optimizer: Any = None
    augment: Any = None
    pipeline: Pipeline | None = None

    @property
    def names(self) -> dict[str, str]:
        """Each part that is passed, with its name: what run.json says of them."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return {part: _name(value) for part, value in parts.items() if value is not None}

    def configure(self, config: Config, dataset: Dataset) -> Config:
        """Return the settings with the head that an own network has; ConfigError for a wrong one.

        Also where an own loss and train.phases are given both.
        """
        if self.loss is not None and config.train.phases:
            raise ConfigError("loss is a function and train.phases has others: omit one of them")
        if self.model is None:
            return config
        backend()
        realize_weights(state_dict(self.model))
        channels = output_channels(self.model, dataset.channels, config.data.size)
        head = "sigmoid" if channels == 1 else "softmax"
        if channels != dataset.classes and (channels, dataset.classes) != (1, 2):
            raise ConfigError(
                f"{_name(self.model)} gives {channels} channels of logits, but the data has "
                f"{dataset.classes} classes: give {dataset.classes} (softmax)"
                f"{' or 1 (sigmoid)' if dataset.classes == 2 else ''}"
            )
        if config.model.head not in ("auto", head):
            raise ConfigError(
                f"model.head={config.model.head!r} does not fit {_name(self.model)}, which gives "
                f"{channels} channels of logits: omit it"
            )
        return replace(config, model=replace(config.model, head=head))

    def check_resumed(self, run: RunFolder) -> None:
        """Raise RunError unless these are the parts that the run was started with."""
        missing = {p: name for p, name in run.facts.custom.items() if p not in self.names}
        if missing:
            named = ", ".join(f"{part}={name}" for part, name in missing.items())
            raise RunError(
                f"{run.folder} was trained with code that is not in the folder: pass it again to "
                f"resume, {named}"
            )
        # runs of older versions do not say that they have a pipeline
        added = [p for p in self.names if p not in run.facts.custom and p != "pipeline"]
        if added:
            raise RunError(
                f"{run.folder} was started without {added[0]}={self.names[added[0]]}: omit it to "
                "resume, or start a new run with another folder"
            )


def separate(**parts: Any) -> tuple[OwnParts, dict[str, str]]:
    """Return the parts that are objects, and those that are texts: values of settings."""
    texts = {part: value for part, value in parts.items() if isinstance(value, str)}
    objects = {part: value for part, value in parts.items() if part not in texts}
    if isinstance(objects.get("model"), type):
        objects["model"] = objects["model"]()
    return OwnParts(**objects), texts


def _name(part: Any) -> str:
    """Return the name of a function or of an object's class; of a sum that of all its terms."""
    if isinstance(part, Sequence) and not isinstance(part, str):
        return "+".join(f"{weight:g}*{_name(term)}" for weight, term in part)
    if getattr(part, "adam", False):
        return "Adam"  # tinygrad makes it of its class LAMB
    return part if isinstance(part, str) else getattr(part, "__name__", type(part).__name__)
