"""Cross-validation: a run for each fold, one table, a mask of every image by a run new to it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.common.files import locked, native, write_json
from tinyseg.common.progress import Progress
from tinyseg.config import Config
from tinyseg.data import Dataset
from tinyseg.errors import RunError
from tinyseg.evaluation.score import score_run
from tinyseg.inference.mask_files import write_mask
from tinyseg.inference.run import Run
from tinyseg.metrics.summary import ImageScores, Summary, foreground_mean, summarize
from tinyseg.runs.run import FOLD, RunFolder
from tinyseg.training.state import AnyLoss
from tinyseg.training.train import train

OUT_OF_FOLD = "out-of-fold"
"""The folder of the masks."""


@dataclass(frozen=True)
class CrossValidation:
    """The scores of every fold's run on its validation images."""

    names: tuple[str, ...]
    """The names of the runs' folders."""
    images: tuple[int, ...]
    """How many validation images each has."""
    summaries: tuple[Summary, ...]
    whole: Summary
    """Of all images together, each predicted by the run that did not train on it."""
    chosen: tuple[str, ...] = ()
    """What each run chose on the images that it is scored on, which makes scores too good."""
    unbiased: "CrossValidation | None" = None
    """The same with the last epoch, threshold 0.5 and no post-processing chosen on the fold."""

    def rows(self) -> dict[str, tuple[float, float, float]]:
        """Return pooled Dice, pooled IoU and mean Dice per image (foreground) of each fold."""
        return dict(zip(self.names, map(_numbers, self.summaries), strict=True))

    def spread(self) -> tuple[list[float], list[float]]:
        """Return the mean and the sample standard deviation of these over the folds."""
        values = np.array([*self.rows().values()])
        return np.nanmean(values, axis=0).tolist(), np.nanstd(values, axis=0, ddof=1).tolist()

    def table(self) -> str:
        """Return lines for people: each fold, mean and spread, and all images together."""
        mean, std = self.spread()
        rows = [*zip(self.rows().items(), self.images, strict=True)]
        lines = [f"{'':16}{'images':>8}{'Dice':>9}{'IoU':>9}{'Dice per image':>16}"]
        lines += [_line(name, str(count), values) for (name, values), count in rows]
        lines += [_line("mean", "", mean), _line("spread (SD)", "", std)]
        lines.append(_line("all out-of-fold", str(sum(self.images)), _numbers(self.whole)))
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        """Return what makes the scores too good, and the scores without it."""
        if self.unbiased is None:
            return []
        mean, std = self.unbiased.spread()
        still = self.unbiased.chosen
        doubt = f" (but {', '.join(still)} used the fold in training)" if still else ""
        return [
            f"optimistic scores, because these were chosen on each fold itself: "
            f"{', '.join(self.chosen)}",
            f"without that{doubt}: last epoch, threshold 0.5 unless set, no chosen post-processing",
            _line("  mean", "", mean),
            _line("  spread (SD)", "", std),
            _line("  out-of-fold", str(sum(self.images)), _numbers(self.unbiased.whole)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what folds.json holds."""
        keys = ("dice", "iou", "dice_per_image")
        mean, std = self.spread()
        pooled = {"mean": mean, "spread": std, "out_of_fold": _numbers(self.whole)}
        folds = {name: dict(zip(keys, row, strict=True)) for name, row in self.rows().items()}
        rest = {name: dict(zip(keys, row, strict=True)) for name, row in pooled.items()}
        unbiased = {"unbiased": self.unbiased.to_dict()} if self.unbiased else {}
        return {"chosen_on_fold": list(self.chosen), "folds": folds, **rest, **unbiased}


def cross_validate(
    data: str | Path,
    out: str | Path,
    config: Config | None = None,
    folds: int = 5,
    resume: bool = False,
    probability: bool = False,
    say: Callable[[str], None] = print,
    model: Callable[[], Any] | None = None,
    loss: AnyLoss | None = None,
) -> CrossValidation:
    """Train a run for each fold into out/fold-0 and so on, and score each on its own fold.

    Scores are computed twice: with the epoch, threshold and post-processing that were best on the
    fold itself, which makes them too good, and with nothing that was chosen on it.
    Writes out/folds.json and, for every image, the mask of the run that did not train on it into
    out/out-of-fold; with `probability` its probabilities too, as `predict` does. With `resume`
    finished folds are kept (or trained longer, see `train`), an interrupted one goes on, and the
    others follow with the settings of the first. `model` is a class or function that makes a
    network of your own, for each fold a new one, and `loss` is your own loss: see `train`.
    RunError if the folder has other folds, or another process trains in it.
    """
    if folds < 2:
        raise RunError(f"--folds {folds}: give at least 2")
    out, runs = Path(out), list[Run]()
    with locked(out):
        config = _settings(out, config, folds, resume)
        for fold in range(folds):
            say(f"fold {fold + 1} of {folds}")
            own = config.with_settings(folds=folds, fold=fold)
            folder = out / f"{FOLD}{fold}"
            resumes = resume and (folder / "run.json").exists()
            parts: dict[str, Any] = {"model": model and model(), "loss": loss}
            runs.append(train(data, folder, config=own, resume=resumes, say=say, **parts))
        dataset = runs[0].open(data)
        plain = [run.last_epoch() for run in runs]
        unbiased = _scored(plain, [[*_predict(run, dataset)] for run in plain])
        masks = (out / OUT_OF_FOLD, probability)
        result = _scored(runs, [[*_predict(run, dataset, *masks)] for run in runs], unbiased)
        write_json(out / "folds.json", result.to_dict())
    return result


def _scored(
    runs: Sequence[Run],
    scores: Sequence[Sequence[ImageScores]],
    unbiased: CrossValidation | None = None,
) -> CrossValidation:
    names = tuple(run.folder.name for run in runs)
    counts, summaries = tuple(map(len, scores)), tuple(map(summarize, scores))
    whole = summarize([one for fold in scores for one in fold])
    return CrossValidation(names, counts, summaries, whole, runs[0].chosen, unbiased)


def _settings(out: Path, config: Config | None, folds: int, resume: bool) -> Config:
    first = out / f"{FOLD}0"
    if not (first / "run.json").exists():
        return config or Config()
    if not resume:
        raise RunError(f"{out} has folds already: give --resume to continue, or another --out")
    begun = RunFolder.load(first).config
    if begun.data.folds != folds:
        raise RunError(f"{out} has {begun.data.folds} folds: give --folds {begun.data.folds}")
    return config or begun


def _predict(
    run: Run, dataset: Dataset, folder: Path | None = None, probability: bool = False
) -> Iterator[ImageScores]:
    """Yield the scores of a run on its validation images; write their masks if given a folder."""
    names = run.split.val
    with Progress("out-of-fold predictions", len(names)) as progress:
        for count, one in enumerate(score_run(run, dataset, names), start=1):
            if folder:
                p_khw = one.probability if probability else None
                file = Path(native(f"{one.sample.name}.png"))
                write_mask(folder, file, one.mask, run.facts.label_map, p_khw)
            yield one.scores
            progress.update(count)


def _numbers(summary: Summary) -> tuple[float, float, float]:
    pooled, per = summary.pooled, summary.per_image
    dice, iou, image = (foreground_mean(v) for v in (pooled["dice"], pooled["iou"], per["dice"]))
    return float(dice), float(iou), float(image)


def _line(title: str, images: str, values: Sequence[float]) -> str:
    dice, iou, image = values
    return f"{title[:15]:16}{images:>8}{dice:9.4f}{iou:9.4f}{image:16.4f}"
