"""How good a run is, beside what needs no network at all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.progress import Progress
from tinyseg.data import Dataset, DriftMonitor
from tinyseg.drawing.pictures import color_image, legend_of, row, save_grid
from tinyseg.errors import DataError
from tinyseg.evaluation.score import Scored, label_of, load_samples, score, score_image
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.run import Run
from tinyseg.inference.tta import PredictFunction, combine_runs
from tinyseg.metrics.baselines import Baseline, baselines
from tinyseg.metrics.best_threshold import curves, find_thresholds
from tinyseg.metrics.bootstrap import Interval, gain_of
from tinyseg.metrics.pixel import dice_of_counts, mean
from tinyseg.metrics.summary import (
    ImageScores,
    Summary,
    foreground_mean,
    summarize,
)
from tinyseg.metrics.threshold_curves import HALF, Histograms

SPLITS = ("train", "val", "test", "all")
NOTHING = np.full(2, np.nan)
MOST_FOR_THRESHOLD = 200
"""Training images from which the grey-threshold baseline is found."""


@dataclass(frozen=True)
class ThresholdGain:
    """What the threshold in use is worth, beside 0.5."""

    threshold: float
    dice: float
    """Pooled, of the foreground, with the threshold."""
    dice_at_half: float
    gain: Interval
    """Of the one over the other; the interval is over images drawn anew."""
    chosen_here: bool
    """Whether the threshold was chosen on these images, which flatters it."""

    @staticmethod
    def of(
        threshold: float,
        scores: Sequence[ImageScores],
        at_half: Sequence[ImageScores],
        chosen_here: bool,
    ) -> "ThresholdGain":
        """From the scores of every image with the threshold and with 0.5."""
        matrices = np.stack([[one.matrix for one in rule] for rule in (at_half, scores)], axis=1)
        tp = matrices[..., 1, 1]
        size = matrices[..., 1, :].sum(-1) + matrices[..., :, 1].sum(-1)
        half, dice = dice_of_counts(tp.sum(0), size.sum(0))
        return ThresholdGain(threshold, float(dice), float(half), gain_of(tp, size), chosen_here)

    def __str__(self) -> str:
        flattered = "; chosen on these images, which flatters it" if self.chosen_here else ""
        return (
            f"threshold {self.threshold:.3f}: Dice {self.dice:.4f}, with 0.5 "
            f"{self.dice_at_half:.4f}, gain {self.gain.mean:+.4f} (95 % interval "
            f"{self.gain.low:+.4f} to {self.gain.high:+.4f}){flattered}"
        )


@dataclass(frozen=True)
class Evaluation:
    """A run's scores on some images of a dataset, with baselines on the same images."""

    split: str
    names: tuple[str, ...]
    images: tuple[ImageScores, ...]
    summary: Summary
    baselines: tuple[Baseline, ...]
    class_names: tuple[str, ...]
    histograms: Histograms
    worth: ThresholdGain | None
    """None for a softmax head, which has no threshold."""
    drift: str = ""
    """How the images differ from the training set; "" if they do not."""
    chosen: tuple[str, ...] = ()
    """What the run chose on these images, which flatters its scores on them."""
    trained_on: int = 0
    """How many of these images a network that predicted them has trained on, beside split=train."""
    folds: int = 0
    """Of a cross-validation, where each image is scored by the fold that did not train on it."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        pairs = zip(self.names, self.images, strict=True)
        return {
            "split": self.split,
            "chosen_here": self.chosen,
            "trained_on": self.trained_on,
            "folds": self.folds,
            "classes": self.class_names,
            "summary": self.summary.to_dict(),
            "baselines": {b.name: {"rule": b.rule, **b.summary.to_dict()} for b in self.baselines},
            "images": {name: scores.to_dict() for name, scores in pairs},
            "threshold": self.worth and asdict(self.worth),
            "thresholds": curves(self.histograms),
        }

    def table(self) -> str:
        """The comparison as text: the network, then each baseline."""
        which = self.split
        if self.folds:
            which += f", each by the one of {self.folds} folds that did not train on it"
        lines = [
            f"{len(self.names)} images ({which})",
            f"{'':28}{'pooled':>15}{'per image':>18}{'empty right':>13}",
            f"{'':28}{'Dice':>8}{'IoU':>7}{'Dice':>11}{'IoU':>7}{'Dice':>13}",
            _line("this run", self.summary),
            *(_line(baseline.rule, baseline.summary) for baseline in self.baselines),
        ]
        return "\n".join([*lines, *self._by_class(), *self._remarks()])

    def _by_class(self) -> list[str]:
        """Pooled scores of every class, also of class 0, where there are more than two."""
        if len(self.class_names) < 3:
            return []
        dice, iou = (self.summary.pooled[name] for name in ("dice", "iou"))
        names = [*self.class_names, "mean of all classes"]
        rows = zip(names, [*dice, np.nanmean(dice)], [*iou, np.nanmean(iou)], strict=True)
        return [f"  {name[:25]:26}{d:8.4f}{i:7.4f}" for name, d, i in rows]

    def _about_thresholds(self) -> list[str]:
        found = find_thresholds(self.histograms, resample=False)
        names = ("average_precision", "roc_auc", "calibration_error")
        means = mean(np.array([[getattr(one, name) for name in names] for one in found]))
        told = "average precision {:.4f}, ROC-AUC {:.4f}, calibration error {:.4f}".format(*means)
        told += " (means of classes)" if len(found) > 1 else ""
        return [told] if self.worth is None else [str(self.worth), told]

    def _remarks(self) -> list[str]:
        remarks = self._about_thresholds()
        if self.trained_on:
            remarks.append(
                f"{self.trained_on} of these images were trained on by a network that predicted "
                "them: the scores say little of new images"
            )
        if self.chosen:
            remarks.append(
                f"chosen on these images, which flatters this run: {', '.join(self.chosen)}; "
                "images that it never saw give a fair score (data.test_fraction, --split test)"
            )
        per = self.summary.per_image
        hd95, assd = (foreground_mean(per.get(name, NOTHING)) for name in ("hd95", "assd"))
        if hd95 >= 0:
            remarks.append(f"Hausdorff 95: {hd95:.2f} px, average surface distance {assd:.2f} px")
        missed = int(self.summary.missed[1:].sum())
        if missed:
            several = len(self.summary.missed) > 2
            what = "classes in images" if several else "images"
            remarks.append(f"{missed} {what} with foreground have none predicted")
        empty = sum(not scores.present[1:].any() for scores in self.images)
        if empty:
            area = foreground_mean(self.summary.false_area)
            remarks.append(
                f"{empty} labels have no foreground (left out of the per-image Dice; "
                f'"empty right" counts them as 1 when nothing is predicted); '
                f"{area:.2%} of their pixels are false positives"
            )
        best = max(foreground_mean(b.summary.pooled["dice"]) for b in self.baselines)
        if foreground_mean(self.summary.pooled["dice"]) <= best:
            remarks.append("this run does NOT beat the best baseline")
        return remarks


def _line(title: str, summary: Summary) -> str:
    pooled, per = summary.pooled, summary.per_image
    values = (pooled["dice"], pooled["iou"], per["dice"], per["iou"], per["dice_or_one"])
    a, b, c, d, e = (foreground_mean(value) for value in values)
    return f"{title[:27]:28}{a:8.4f}{b:7.4f}{c:11.4f}{d:7.4f}{e:13.4f}"


@dataclass(frozen=True)
class Part:
    """Images that are predicted alike."""

    names: tuple[str, ...]
    runs: tuple[Run, ...]
    """Whose probabilities are averaged."""
    network: PredictFunction
    threshold: float
    postprocess: Postprocess

    def score(
        self,
        dataset: Dataset,
        names: Sequence[str] | None = None,
        monitor: DriftMonitor | None = None,
        surface: bool = False,
    ) -> Iterator[Scored]:
        """Yield the scores of its images, or of those with these names."""
        return score(
            lambda images: self.network(images, monitor),
            load_samples(dataset, self.names if names is None else names),
            self.runs[0].facts.classes,
            self.threshold,
            self.postprocess,
            surface,
        )

    def seen(self, dataset: Dataset) -> set[str]:
        """The images that one of the runs has trained on."""
        known = dataset.fingerprint()
        trained = [set(run.split.train) for run in self.runs if run.facts.fingerprint == known]
        return set(self.names).intersection(set().union(*trained))


def runs_of(run: Run | Sequence[Run]) -> list[Run]:
    """A run, or the folds of a cross-validation, as a list."""
    return [run] if isinstance(run, Run) else list(run)


def parts_of(
    run: Run | Sequence[Run],
    split: str,
    names: Sequence[str],
    threshold: float | None = None,
    others: Sequence[Run] = (),
    tta: str = "",
    postprocess: str | None = None,
) -> list[Part]:
    """Who predicts which image: the folds together, but of `val` each what it did not train on."""
    runs, parts = runs_of(run), [(tuple(names), runs_of(run))]
    if split == "val" and len(runs) > 1:
        parts = [(tuple(n for n in names if n in {*one.split.val}), [one]) for one in runs]
    found = []
    for some, own in parts:
        members = (*own, *others)
        used = fmean(one.threshold_or(threshold) for one in members)
        network = combine_runs(members, tta)
        found.append(Part(some, members, network, used, own[0].postprocess(postprocess)))
    return found


def evaluate(
    run: Run | Sequence[Run],
    data: str | Path | Dataset,
    split: str = "val",
    surface: bool = True,
    picture: Path | None = None,
    say: Callable[[str], None] = print,
    threshold: float | None = None,
    others: Sequence[Run] = (),
    tta: str = "",
    names: Sequence[str] | None = None,
    postprocess: str | None = None,
) -> Evaluation:
    """Scores a run on `split` (train, val, test, or all for data it was not made from).

    Several runs are the folds of a cross-validation (`load_runs`): each validation image is
    predicted by the fold that did not train on it, images of other splits by all together.

    Images go through the same path as `predict`, at their original size. `picture` writes a grid
    of the worst, random and best images. `threshold` replaces the run's; `others` and `tta` average
    probabilities, `postprocess` replaces the run's, as in `predict`; `names` are the images of the
    split that are wanted. The grey threshold is found on the run's training images, or where there
    are none of them, on the images that are scored, which flatters it.
    """
    runs = runs_of(run)
    first = runs[0]
    dataset = data if isinstance(data, Dataset) else first.open(data)
    names = names_of(runs, dataset, split) if names is None else names
    if split != "all" and dataset.fingerprint() != first.facts.fingerprint:
        say(f"warning: {dataset.source} is not as it was when {first.folder} was trained on it")
    parts = parts_of(runs, split, names, threshold, others, tta, postprocess)
    found: dict[str, tuple[ImageScores, ImageScores]] = {}
    monitor, histograms, channels = DriftMonitor(), Histograms(), 0
    with Progress("evaluating", len(names)) as progress:
        for part in parts:
            for one in part.score(dataset, monitor=monitor, surface=surface):
                channels = len(one.probability)
                histograms.add(one.probability, one.label)
                known = one.sample, one.probability, first.facts.classes
                at_half = score_image(*known, HALF, part.postprocess).scores
                found[one.sample.name] = at_half, one.scores
                progress.update(len(found))
    at_halves, scores = zip(*(found[name] for name in names), strict=True)
    drift = monitor.warning(first.facts.input_statistics)
    if drift:
        say(f"warning: {drift}")
    if picture is not None:
        _save_picture(picture, parts, dataset, names, scores, first.facts.classes)
    indices = [dataset.index(name) for name in names]
    training, scored = _threshold_images(first, dataset, names), _pixels(dataset, indices)
    replaced = {"threshold": threshold, "post-processing": postprocess}
    chosen = [name for name in first.chosen if replaced.get(name) is None and split == "val"]
    worth = None
    if channels == 1:
        mean_threshold = fmean(part.threshold for part in parts)
        worth = ThresholdGain.of(mean_threshold, scores, at_halves, "threshold" in chosen)
    return Evaluation(
        split,
        tuple(names),
        scores,
        summarize(scores),
        tuple(baselines(*training, *scored, dataset.class_names)),
        dataset.class_names,
        histograms,
        worth,
        drift,
        tuple(chosen),
        0 if split == "train" else sum(len(part.seen(dataset)) for part in parts),
        len(runs) if len(parts) > 1 else 0,
    )


def names_of(run: Run | Sequence[Run], dataset: Dataset, split: str) -> Sequence[str]:
    """The images of a run's split; DataError when there is none, or the dataset lacks some.

    Of the folds of a cross-validation: the validation images of all, or the first one's split.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    if split == "all":
        return dataset.names
    runs = runs_of(run)
    of_folds = runs if split == "val" else runs[:1]
    names = tuple(name for one in of_folds for name in getattr(one.split, split))
    missing = set(names) - set(dataset.names)
    if missing:
        raise DataError(
            f"{dataset.source}: {len(missing)} of the run's {split} images are not there, e.g. "
            f"{min(missing)!r}; for other data than the run's own use --split all"
        )
    if not names:
        raise DataError(f"{runs[0].folder}: the {split} split is empty; use another --split")
    return names


def _threshold_images(
    run: Run, dataset: Dataset, names: Sequence[str]
) -> tuple[list[Array], list[Array]]:
    known = set(dataset.names)
    train = [name for name in run.split.train if name in known] or list(names)
    kept = train[:: -(-len(train) // MOST_FOR_THRESHOLD)]
    return _pixels(dataset, [dataset.index(name) for name in kept])


def _pixels(dataset: Dataset, indices: Sequence[int]) -> tuple[list[Array], list[Array]]:
    images = [color_image(dataset[index].image) for index in indices]
    return images, [label_of(dataset[index]) for index in indices]


def _save_picture(
    path: Path,
    parts: Sequence[Part],
    dataset: Dataset,
    names: Sequence[str],
    scores: Sequence[ImageScores],
    classes: int,
) -> None:
    dice = np.array([foreground_mean(score.values["dice"]) for score in scores])
    # an image without foreground, rightly left empty, shows nothing
    order = [i for i in np.argsort(dice, kind="stable") if dice[i] >= 0] or [*range(len(dice))]
    kinds = {**dict.fromkeys(order[:2], "worst"), **dict.fromkeys(order[:1:-1][:2], "best")}
    rest = np.array([i for i in order if i not in kinds], int)
    drawn = np.random.default_rng(0).permutation(rest)[:2]
    kinds |= dict.fromkeys(drawn.tolist(), "random")
    rows, captions = [], []
    for index in sorted(kinds, key=order.index):
        part = next(part for part in parts if names[index] in part.names)
        one = next(part.score(dataset, [names[index]]))
        rows.append(row(one.sample.image, one.label, one.probability, one.mask, classes))
        told = "nothing to find" if np.isnan(dice[index]) else f"Dice {dice[index]:.3f}"
        captions.append(f"{kinds[index]}: {names[index]}: {told}")
    save_grid(path, rows, captions, legend=legend_of(dataset.class_names))
