"""Learning-rate schedules, computed on the host."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tinyseg.common.spec import Value, check_name, fill, parse_call
from tinyseg.errors import ConfigError

_SCHEDULES: dict[str, dict[str, Value]] = {
    "constant": {"warmup": 0.0},
    "cosine": {"warmup": 0.0, "floor": 0.0},
    "poly": {"power": 0.9, "warmup": 0.0},
    "plateau": {"factor": 0.1, "patience": 10.0, "warmup": 0.0},
}


@dataclass
class Schedule:
    """The factor of the learning rate, 0 to 1, at each step; only `plateau` has a state."""

    text: str
    name: str = ""
    settings: dict[str, float] = field(default_factory=dict)
    scale: float = 1.0
    """plateau: the product of all reductions so far."""
    best: float = -1.0
    """plateau: the best validation Dice so far."""
    waited: int = 0
    """plateau: epochs since the best."""

    def __post_init__(self) -> None:
        call = parse_call(self.text)
        check_name(call, _SCHEDULES, "schedule")
        filled = fill(call, _SCHEDULES[call.name])
        self.name, self.settings = call.name, {k: float(v) for k, v in filled.items()}  # type: ignore[arg-type]
        for name, value in self.settings.items():
            top = math.inf if name in ("power", "patience") else 1.0
            if not 0 <= value <= top:
                raise ConfigError(f"{call}: {name}={value} must be between 0 and {top}")

    def factor(self, step: int, steps: int) -> float:
        """Return the factor at step number `step` (from 0) of `steps` in all."""
        warmup = self.settings["warmup"] * steps
        rising = min(1.0, (step + 1) / warmup) if warmup >= 1 else 1.0
        done = max(0.0, (step - warmup) / max(steps - warmup, 1))
        return self.scale * rising * _SHAPES[self.name](done, self.settings)

    def observe(self, dice: float) -> bool:
        """Take the validation Dice of an epoch; return whether `plateau` lowers the rate now."""
        if self.name != "plateau":
            return False
        if dice > self.best:
            self.best, self.waited = dice, 0
            return False
        self.waited += 1
        if self.waited <= self.settings["patience"]:
            return False
        self.scale, self.waited = self.scale * self.settings["factor"], 0
        return True


_SHAPES: dict[str, Callable[[float, dict[str, float]], float]] = {
    "constant": lambda done, s: 1.0,
    "plateau": lambda done, s: 1.0,
    "cosine": lambda done, s: s["floor"] + (1 - s["floor"]) * 0.5 * (1 + math.cos(math.pi * done)),
    "poly": lambda done, s: (1 - done) ** s["power"],
}
