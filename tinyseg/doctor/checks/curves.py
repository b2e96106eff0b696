"""Checks of a run's log, without its network: how it ended, and how it learned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.doctor.check import error, ok, warning
from tinyseg.doctor.figures import curve_picture
from tinyseg.inference.run import Run
from tinyseg.metrics.bootstrap import Interval
from tinyseg.runs.metrics_log import Epoch, history, read_log
from tinyseg.training.phases import phases_of

MIN_CHANGE = 0.05
"""Share by which a loss, or Dice by which a score, has to change in a run."""
LARGE_GAP = 0.2
"""Dice of training over validation from which a run overfits."""
LOW = 0.6
"""Training Dice below which the network has not even learned its training images."""
MIN_EPOCHS = 3
"""Epochs below which a trend cannot be seen."""
SHORT_PATIENCE = 3
"""Epochs of patience that the noise of validation alone uses up."""
SPENT, LONG_SPENT = 0.01, 0.4
"""Share of the highest learning rate that moves little, and of the steps at it: cosine has 0.07."""
NEEDED = ("loss", "train_dice", "val_dice")
DIAGNOSE = "run `tinyseg doctor DATA` with the settings of this run to find the cause"


@dataclass(frozen=True)
class Curves:
    """The epochs of a run with loss and scores; at least one."""

    run: Run
    epochs: Sequence[Epoch]

    def __getitem__(self, name: str) -> Array:
        """Return one value per epoch."""
        return np.array([epoch[name] for epoch in self.epochs], float)

    @property
    def best(self) -> int:
        """The index of the epoch with the highest validation Dice."""
        return int(self["val_dice"].argmax())

    @property
    def still_rising(self) -> bool:
        """Whether the best epoch is among the last tenth."""
        return self.best >= 0.9 * len(self.epochs) - 1

    @property
    def gap(self) -> float:
        """The Dice of the last training epoch minus the best validation Dice."""
        return float(self["train_dice"][-1] - self["val_dice"].max())

    @property
    def rates(self) -> Array:
        """The learning rate of each step, as far as it was logged."""
        steps = read_log(self.run.log, "step") if self.run.log.exists() else []
        known = [step.get("learning_rate") for step in steps]
        return np.array([rate for rate in known if isinstance(rate, int | float)], float)

    @property
    def losses(self) -> Iterator[Array]:
        """The losses of each phase; those of different loss functions cannot be compared."""
        last = 0
        for phase in phases_of(self.run.config.train):
            first, last = last, last + phase.epochs
            within = [e["loss"] for e in self.epochs if first < e["epoch"] <= last]
            if within:
                yield np.array(within, float)

    def __str__(self) -> str:
        train, val = self["train_dice"], self["val_dice"]
        best, last = self.epochs[self.best]["epoch"], self.epochs[-1]["epoch"]
        return (
            f"training Dice {train[-1]:.2f}, validation Dice {val[-1]:.2f} (best {val.max():.2f} "
            f"in epoch {best} of {last})"
        )

    @property
    def more_epochs(self) -> str:
        """The setting that trains twice as long, or as long as runs do by default."""
        train = self.run.config.train
        if train.phases:
            return "more epochs in train.phases"
        return f"train.epochs={max(2 * train.epochs, type(train).epochs)}"


def curves_of(run: Run) -> Curves | None:
    """Return the curves in a run's log; None if no epoch has all values."""
    complete = [e for e in history(run.log) if all(e[name] is not None for name in NEEDED)]
    return Curves(run, complete) if complete else None


def check_end(run: Run) -> list[Finding]:
    """Check that no NaN or infinity stopped the run."""
    steps = [record["step"] for record in read_log(run.log, "step")] if run.log.exists() else []
    number = max(steps, default=0) + 1
    saved = run.folder / f"nonfinite-step-{number}.npz"
    if not saved.exists():  # those of other steps are from before a resume
        return []
    epochs = len(history(run.log))
    after = f"in step {number}, after {epochs} epoch{'s' * (epochs != 1)}"
    what = f"training stopped {after}: the loss or a gradient was NaN or infinite"
    why = "the scores are those of an early checkpoint" if epochs else "no checkpoint was saved"
    remedy = "fix the image that the error message named, lower the learning rate, or set "
    remedy += f"train.grad_clip=1; {saved.name} contains the batch"
    return error("not finite", what, why, remedy, [saved.name])


def check_curves(curves: Curves, baseline: float, score: float, sure: Interval | None) -> Finding:
    """Return whether a run exploded, stood still, overfitted or underfitted; or ok.

    `score` is the run's Dice, `baseline` that of the best trivial baseline, `sure` the interval of
    its validation Dice if that was measured.
    """
    findings = (
        _exploded(curves)
        or _stood_still(curves, baseline, score)
        or _over_or_underfitted(curves, sure)
        or ok("curves", str(curves))
    )
    return replace(findings[0], picture=curve_picture(curves.epochs))


def _exploded(curves: Curves) -> list[Finding]:
    for loss in curves.losses:
        if len(loss) >= MIN_EPOCHS and loss[-1] > 2 * loss[0] > 0:
            what = f"the loss rose from {loss[0]:.3g} to {loss[-1]:.3g}"
            why = "the steps are too large to follow the gradient"
            return error("exploded", what, why, "divide the learning rate (train.optimizer) by 10")
    return []


def _stood_still(curves: Curves, baseline: float, score: float) -> list[Finding]:
    """Check for change; a run that is good from its first epoch may rightly stand still."""
    dice, phases = curves["val_dice"], list(curves.losses)
    falls = [1 - loss.min() / loss[0] for loss in phases if loss[0]]
    moved = max(dice.max() - dice[0], *falls, 0.0) >= MIN_CHANGE
    if len(dice) < MIN_EPOCHS or moved or score > baseline + MIN_CHANGE:
        return []
    first, lowest = phases[0][0], min(loss.min() for loss in phases)
    what = (
        f"nothing changed in {len(dice)} epochs: the loss went from {first:.3g} to {lowest:.3g}, "
        f"validation Dice from {dice[0]:.3f} to {dice.max():.3f}"
    )
    why = "a run that does not improve in its first epochs usually never does"
    return error("plateau", what, why, f"{DIAGNOSE}; most often, the learning rate is wrong")


def _over_or_underfitted(curves: Curves, sure: Interval | None) -> list[Finding]:
    train = curves["train_dice"][-1]
    if curves.gap > LARGE_GAP and (sure is None or train > sure.high):
        why = "the network has memorized its training images and does much worse on new ones"
        remedy = "set train.augment=medium, then add images; train.early_stopping=10 saves time"
        return warning("overfitting", str(curves), why, remedy)
    return _ended_too_early(curves) or (_underfitted(curves) if train < LOW else [])


def _ended_too_early(curves: Curves) -> list[Finding]:
    """Check whether patience or the schedule ended the progress of a run."""
    settings, loss, rates = curves.run.config.train, curves["loss"], curves.rates
    low = curves["train_dice"][-1] < LOW
    patience, last = settings.early_stopping, curves.epochs[-1]["epoch"]
    falls = len(loss) >= MIN_EPOCHS and loss[-1] < (1 - MIN_CHANGE) * loss[len(loss) // 2]
    stopped = bool(patience) and not settings.phases and last < settings.epochs
    if stopped and (low or (patience <= SHORT_PATIENCE and falls)):
        what = f"{curves}; early stopping with a patience of {patience} ended the run after "
        what += f"{last} of {settings.epochs} epochs"
        why = "validation Dice goes up and down from epoch to epoch: the loss was still falling"
        return warning("stopped early", what, why, "set train.early_stopping=20, or 0")
    spent = float((rates < SPENT * rates.max()).mean()) if len(rates) and rates.max() else 0.0
    if spent <= LONG_SPENT or not low:
        return []
    what = f"{curves}; for {spent:.0%} of the steps the learning rate was below a hundredth of its "
    what += f"highest value (train.schedule={settings.schedule})"
    why = "the schedule ended the training long before its last epoch"
    remedy = "set train.schedule=cosine or constant, or for plateau a patience of 10 and factor=0.5"
    return warning("schedule", what, why, remedy)


def _underfitted(curves: Curves) -> list[Finding]:
    why = "the run ended before the network had learned its own training images"
    larger = curves.run.config.model.larger
    remedy = f"set {curves.more_epochs}, a higher learning rate, or {larger}"
    if not curves.still_rising:
        why = "the network has not learned its own training images, and no longer improves"
        remedy = f"{DIAGNOSE}; then {remedy}"
    return warning("underfitting", str(curves), why, remedy)
