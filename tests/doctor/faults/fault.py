"""What a planted fault is: a set-up that was healthy, broken in one place."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinyseg.config import Config
from tinyseg.data import simulate, write_pairs
from tinyseg.doctor import Project

SETTINGS = [
    *("data.size=64", "model.base_channels=8", "model.depth=1", "train.batch_size=4"),
    "train.optimizer=adam(lr=0.01)",
]
CONFIG = Config().override(SETTINGS)
"""Small, and memorizes simulated cells in seconds."""


@dataclass(frozen=True)
class Fault:
    """A fault, and the `check` of the finding that has to come first."""

    name: str
    found_by: str
    plant: Callable[[Path], Project]
    """Build the broken set-up, its files in an empty folder."""


@dataclass(frozen=True)
class Healthy:
    """A set-up in which nothing is wrong, and the checks whose warnings are right for it."""

    name: str
    make: Callable[[Path], Project]
    right: tuple[str, ...] = ()


def cells(folder: Path, n: int = 32, size: int = 64, seed: int = 5, **knobs: float) -> Path:
    """Simulated cells as PNG pairs in `folder/images` and `folder/masks`."""
    write_pairs(simulate("cells", n=n, size=size, seed=seed, **knobs), folder)
    return folder
