"""How far a run has come: what a checkpoint holds next to the Tensors."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyseg.errors import RunError
from tinyseg.training.schedule import Schedule


@dataclass
class Position:
    """Epochs and steps that are done, and the best epoch among them."""

    epoch: int = 0
    """Epochs completed."""
    step: int = 0
    """Steps completed."""
    dice: float = 0.0
    """Pooled validation Dice of the foreground after the last epoch."""
    best_dice: float = -1.0
    """The best of these so far; -1 before the first epoch."""
    best_epoch: int = 0
    """The epoch it belongs to, from 1."""
    waited: int = 0
    """Epochs since then."""

    def update(self, epoch: int, dice: float) -> bool:
        """Take up the Dice of another epoch (nan counts as 0); return whether it is the best."""
        self.epoch, self.dice = epoch, 0.0 if math.isnan(dice) else dice
        improved = self.dice > self.best_dice
        self.waited = 0 if improved else self.waited + 1
        if improved:
            self.best_dice, self.best_epoch = self.dice, epoch
        return improved


def to_facts(position: Position, schedule: Schedule, thresholds: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a checkpoint, for JSON."""
    return {"position": asdict(position), "schedule": asdict(schedule), "thresholds": thresholds}


def from_facts(facts: dict[str, Any], path: Path) -> tuple[Position, Schedule]:
    """Read what `to_facts` returned; RunError, which names the file, for anything else."""
    try:
        return Position(**facts["position"]), Schedule(**facts["schedule"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{path}: not a checkpoint of a training run ({error!r})") from None
