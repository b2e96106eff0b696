"""Faults that a finished run shows."""

from pathlib import Path

from fault import CONFIG, Fault, cells

from tinyseg.data import simulate, write_pairs
from tinyseg.doctor import Project
from tinyseg.training.train import train


def trained(folder: Path, data: Path, *settings: str) -> Project:
    config = CONFIG.override(["train.epochs=10", *settings])
    return Project(data, run=train(data, folder / "run", config=config, say=lambda text: None))


def hidden(folder: Path) -> Project:
    return trained(folder, cells(folder / "data"), "train.threshold=0.99")


def too_short(folder: Path) -> Project:
    settings = ("train.epochs=2", "train.optimizer=adam(lr=0.002)")
    return trained(folder, cells(folder / "data"), *settings)


def memorized(folder: Path) -> Project:
    """Ten hard images, seen a hundred times."""
    samples = simulate("ultrasound", n=20, size=64, seed=4, empty=0, noise=1.5, contrast=0.6)
    write_pairs(samples, folder / "data")
    return trained(folder, folder / "data", "train.epochs=60", "data.val_fraction=0.5")


FAULTS = [
    Fault("a threshold of 0.99 in a run", "threshold", hidden),
    Fault("a run that was too short", "underfitting", too_short),
    Fault("a run that memorized its images", "overfitting", memorized),
]
