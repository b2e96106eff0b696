"""Set-ups in which nothing is wrong: the doctor may not raise an alarm."""

from collections.abc import Callable
from pathlib import Path

from fault import CONFIG, Healthy

from tinyseg.config import Config
from tinyseg.data import simulate, write_pairs
from tinyseg.doctor import Project

SHARED = Path(__file__).parents[4] / "shared" / "data"
"""Real images, where the folder is there."""


def simulated(kind: str, *settings: str, n: int = 40, size: int = 64) -> Callable[[Path], Project]:
    def make(folder: Path) -> Project:
        write_pairs(simulate(kind, n=n, size=size, seed=7), folder)
        return Project(folder, CONFIG.override(settings))

    return make


def real(source: str, *settings: str) -> Callable[[Path], Project]:
    name, _, options = source.partition("?")
    where = f"{name}:{SHARED / name}" + (f"?{options}" if options else "")
    return lambda folder: Project(where, Config().override(settings))


HEALTHY = [
    Healthy("cells", simulated("cells")),
    Healthy("ultrasound, focal", simulated("ultrasound", "train.loss=focal(alpha=0.75)+dice")),
    Healthy("membranes, Tversky", simulated("membranes", "train.loss=0.5*bce+0.5*tversky")),
    Healthy("shapes, softmax", simulated("shapes")),
    Healthy(
        "cells, softmax and cross-entropy",
        simulated("cells", "model.head=softmax", "train.loss=ce"),
    ),
    Healthy(
        "cells, group norm and AdamW",
        simulated("cells", "model.norm=group", "train.optimizer=adamw(lr=0.01)"),
    ),
    Healthy("cells, BCE alone", simulated("cells", "train.loss=bce")),
    Healthy(
        "cells, no norm", simulated("cells", "model.norm=none", "train.optimizer=adam(lr=0.003)")
    ),
    Healthy("cells, augmented", simulated("cells", "train.augment=medium", "model.attention=true")),
]
REAL = [
    Healthy("BUSI", real("busi"), ("color", "contradiction")),
    Healthy("ISBI 2012", real("isbi2012")),
    Healthy("ISBI 2012, the cells", real("isbi2012?foreground=cell")),
    Healthy("CamVid", real("camvid", "train.loss=0.5*ce+0.5*dice")),
    Healthy("Pets", real("pets")),
    Healthy("nuclei", real("dsb2018"), ("color",)),
]
