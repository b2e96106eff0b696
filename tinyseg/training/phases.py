"""Phases: losses that a run uses one after another, read from `train.phases`."""

import re
from dataclasses import dataclass

from tinyseg.config import TrainConfig
from tinyseg.errors import ConfigError


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one loss."""

    loss: str
    epochs: int
    from_best: bool = False
    """Start from the best checkpoint instead of the last state."""


def parse_phases(text: str) -> list[Phase]:
    """Read "bce: 30 epochs; dice: 10 epochs from best"; ConfigError for anything else."""
    phases = []
    for part in text.split(";"):
        match = re.fullmatch(r"\s*(.+?)\s*:\s*(\d+)\s*epochs?(\s+from\s+best)?\s*", part)
        if not match or int(match[2]) < 1:
            raise ConfigError(
                f"train.phases: {part.strip()!r} cannot be read; write it as "
                '"bce: 30 epochs; dice: 10 epochs from best"'
            )
        phases.append(Phase(match[1], int(match[2]), bool(match[3])))
    if phases[0].from_best:
        raise ConfigError("train.phases: the first phase has no best checkpoint to start from")
    return phases


def phases_of(config: TrainConfig) -> list[Phase]:
    """Return the phases of a run: those of `train.phases`, or one with `train.loss`."""
    return parse_phases(config.phases) if config.phases else [Phase(config.loss, config.epochs)]
