"""Finished runs of tiny networks."""

from collections.abc import Callable
from pathlib import Path

from tinyseg.config import Config
from tinyseg.data import simulate, write_pairs
from tinyseg.doctor import Project
from tinyseg.training.train import train

SETTINGS = ("data.size=32", "model.base_channels=8", "model.depth=1", "train.batch_size=4")


def finished(*settings: str, kind: str = "cells", images: int = 24) -> Callable[[Path], Project]:
    """Return a maker of a run with these settings, trained when it is called."""

    def make(folder: Path) -> Project:
        write_pairs(simulate(kind, n=images, size=32, seed=3), folder / "data")
        config = Config().override([*SETTINGS, *settings])
        run = train(folder / "data", folder / "run", config=config, say=lambda text: None)
        return Project(folder / "data", run=run)

    return make
