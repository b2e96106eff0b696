"""What the log of a run shows, without its network: how it ended, and how it learned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.doctor.figures import curve_picture
from tinyseg.inference.run import Run
from tinyseg.metrics.bootstrap import Interval
from tinyseg.runs.metrics_log import Epoch, history, read_log
from tinyseg.training.phases import phases_of

MOVES = 0.05
"""Share by which a loss, or Dice by which a score, has to move in a run."""
APART = 0.2
"""Dice of training over validation from which a network is said to know images by heart."""
LOW = 0.6
"""Training Dice below which the network has not even learned its own images."""
FEW = 3
"""Epochs below which nothing is said of where a run goes."""

NEEDED = ("loss", "train_dice", "val_dice")


@dataclass(frozen=True)
class Curves:
    """The epochs of a run of which loss and scores are known, at least one."""

    run: Run
    epochs: Sequence[Epoch]

    def __getitem__(self, name: str) -> Array:
        """One number of every epoch."""
        return np.array([epoch[name] for epoch in self.epochs], float)

    @property
    def best(self) -> int:
        """The place of the epoch with the highest validation Dice."""
        return int(self["val_dice"].argmax())

    @property
    def late(self) -> bool:
        """Whether the best is among the last tenth: it may go on."""
        return self.best >= 0.9 * len(self.epochs) - 1

    @property
    def gap(self) -> float:
        """Dice by which training is ahead of the best validation."""
        return float(self["train_dice"][-1] - self["val_dice"].max())

    @property
    def losses(self) -> Iterator[Array]:
        """The loss of every phase: those of different losses cannot be compared."""
        last = 0
        for phase in phases_of(self.run.config.train):
            first, last = last, last + phase.epochs
            within = [e["loss"] for e in self.epochs if first < e["epoch"] <= last]
            if within:
                yield np.array(within, float)


def curves_of(run: Run) -> Curves | None:
    """The curves in a run's log; None where no epoch has all of them."""
    known = [e for e in history(run.log) if all(e[name] is not None for name in NEEDED)]
    return Curves(run, known) if known else None


def ended(run: Run) -> list[Finding]:
    """The last step of a run was no step into NaN."""
    steps = [record["step"] for record in read_log(run.log, "step")] if run.log.exists() else []
    number = max(steps, default=0) + 1
    saved = run.folder / f"nonfinite-step-{number}.npz"
    if not saved.exists():  # those of other steps are from before a resume
        return []
    epochs = len(history(run.log))
    return [
        Finding(
            "error",
            "not finite",
            f"training stopped at a number that is not finite, in step {number} after {epochs} "
            f"epoch{'s' * (epochs != 1)}",
            "what is scored here is an early state of the network"
            if epochs
            else "no network was kept",
            "fix the image named by the error, lower the learning rate, or set train.grad_clip=1; "
            f"{saved.name} holds the batch",
            (saved.name,),
        )
    ]


def learned(curves: Curves, baseline: float, score: float, sure: Interval | None) -> Finding:
    """Where the curves go: exploded, plateau, overfitting, underfitting, or ok.

    `score` is the run's Dice beside the best of its baselines; `sure` the interval of its
    validation Dice, where that was measured.
    """
    reasons = (_exploded(curves), _plateau(curves, baseline, score), _fit(curves, sure))
    found = next((one for one in reasons if one), Finding("ok", "curves", _told(curves)))
    return replace(found, picture=curve_picture(curves.epochs))


def _told(curves: Curves) -> str:
    train, val = curves["train_dice"], curves["val_dice"]
    epoch = curves.epochs[curves.best]["epoch"]
    told = f"training Dice {train[-1]:.2f}, validation {val[-1]:.2f}"
    return f"{told} (best {val.max():.2f}, epoch {epoch} of {curves.epochs[-1]['epoch']})"


def _exploded(curves: Curves) -> Finding | None:
    for loss in curves.losses:
        if len(loss) >= FEW and loss[-1] > 2 * loss[0] > 0:
            seen = f"the loss has grown from {loss[0]:.3g} to {loss[-1]:.3g}"
            why = "steps are too long to follow the gradient"
            return Finding("error", "exploded", seen, why, "lower the learning rate tenfold")
    return None


def _plateau(curves: Curves, baseline: float, score: float) -> Finding | None:
    """A run that was good from its first epoch, as after many steps, stands still rightly."""
    dice, phases = curves["val_dice"], list(curves.losses)
    falls = [1 - loss.min() / loss[0] for loss in phases if loss[0]]
    moved = max(dice.max() - dice[0], *falls, 0.0) >= MOVES
    if len(dice) < FEW or moved or score > baseline + MOVES:
        return None
    first, lowest = phases[0][0], min(loss.min() for loss in phases)
    return Finding(
        "error",
        "plateau",
        f"nothing has moved in {len(dice)} epochs: loss {first:.3g} to {lowest:.3g}, validation "
        f"Dice {dice[0]:.3f} to {dice.max():.3f}",
        "a run that stands still from its first epoch has a cause that no patience mends",
        "`tinyseg doctor DATA` with the run's settings finds it: the learning rate most often",
    )


def _fit(curves: Curves, sure: Interval | None) -> Finding | None:
    """Training and validation are not far apart, and training is not low."""
    train = curves["train_dice"][-1]
    if curves.gap > APART and (sure is None or train > sure.high):
        why = "the network knows its images by heart and reads new ones much worse"
        remedy = "train.augment=medium, then more images; patience=10 saves the time after the best"
        return Finding("warning", "overfitting", _told(curves), why, remedy)
    if train < LOW and curves.late:
        why = "it had not learned its own training images when it ended"
        remedy = f"{longer(curves)}, or a higher learning rate, or "
        remedy += f"model.base_channels={2 * curves.run.config.model.base_channels}"
        return Finding("warning", "underfitting", _told(curves), why, remedy)
    return None


def longer(curves: Curves) -> str:
    """The setting that trains twice as long, or as long as runs are by default."""
    train = curves.run.config.train
    if train.phases:
        return "more epochs in train.phases"
    return f"train.epochs={max(2 * train.epochs, type(train).epochs)}"
