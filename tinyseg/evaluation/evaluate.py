"""Evaluate: how good a run is on images, next to trivial baselines."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.common.files import check_output
from tinyseg.common.progress import Progress
from tinyseg.data import Dataset, DriftMonitor
from tinyseg.drawing.pictures import color_image, legend_of, row, save_grid
from tinyseg.evaluation.groups import Group, as_runs, group_images, split_names
from tinyseg.evaluation.result import Evaluation, ThresholdGain, gain_over
from tinyseg.evaluation.score import label_of, load_samples, score_image
from tinyseg.inference.run import Run
from tinyseg.inference.tta import choose_views
from tinyseg.metrics.baselines import Baseline, baselines
from tinyseg.metrics.bootstrap import Interval
from tinyseg.metrics.summary import ImageScores, foreground_mean, summarize
from tinyseg.metrics.threshold_curves import HALF, Histograms

BASELINE_IMAGES = 200
"""Most training images from which the gray-threshold baseline is found."""


def evaluate(
    run: Run | Sequence[Run],
    data: str | Path | Dataset,
    split: str = "val",
    *,
    surface: bool = True,
    picture: Path | None = None,
    say: Callable[[str], None] = print,
    threshold: float | None = None,
    others: Sequence[Run] = (),
    tta: str = "",
    names: Sequence[str] | None = None,
    postprocess: str | None = None,
    force: bool = False,
) -> Evaluation:
    """Score a run on a split of its data, or on all images of other data.

    Images go through the same path as in `predict`, at their original size. The gray threshold
    among the baselines is found on the run's training images, or where the dataset has none of
    them, on the images that are scored, which flatters it.

    Args:
        run: The run, or the folds of a cross-validation (`load_runs`): each validation image is
            predicted by the fold that did not train on it, other images by all folds together.
        data: The dataset.
        split: "train", "val", "test", or "all" for data that the run was not made from.
        surface: Whether the surface distances are measured, which takes far longer.
        picture: Where a grid of the worst, random and best images is written (PNG).
        say: Where warnings go.
        threshold: Replaces the run's.
        others: Runs whose probabilities are averaged with this one's.
        tta: Test-time augmentation, as in `predict`; the images are also scored without it.
        names: The images of the split that are wanted; all without.
        postprocess: Replaces the run's.
        force: Whether `picture` replaces a file that tinyseg has not written.
    """
    if picture is not None:
        check_output(picture, force)
    first = (runs := as_runs(run))[0]
    dataset = data if isinstance(data, Dataset) else first.open(data)
    names = split_names(runs, dataset, split) if names is None else names
    tta = choose_views(tta, [*runs, *others], say)
    if split != "all" and dataset.fingerprint() != first.facts.fingerprint:
        say(f"warning: {dataset.source} has changed since {first.folder} was trained on it")
    group = partial(group_images, runs, split, names, threshold, others, postprocess=postprocess)
    groups = group(tta=tta)
    monitor, histograms = DriftMonitor(), Histograms()
    scores, at_half = _score(groups, dataset, names, surface, monitor, histograms)
    if drift := monitor.warning(first.facts.input_statistics):
        say(f"warning: {drift}")
    if picture is not None:
        _save_picture(picture, groups, dataset, names, scores)
    chosen = _chosen_on_val(first, threshold, postprocess) if split == "val" else []
    used = fmean(group.threshold for group in groups)
    gain = ThresholdGain.of(used, scores, at_half, "threshold" in chosen) if at_half else None
    return Evaluation(
        split=split,
        names=tuple(names),
        images=scores,
        summary=summarize(scores),
        baselines=tuple(_baselines(first, dataset, names)),
        class_names=dataset.class_names,
        histograms=histograms,
        threshold_gain=gain,
        tta=tta,
        tta_gain=_gain_over(group(), dataset, names, scores) if tta else None,
        drift=drift,
        chosen=tuple(chosen),
        trained_on=sum(len(g.trained_on(dataset)) for g in groups) if split != "train" else 0,
        folds=len(runs) if len(groups) > 1 else 0,
    )


def _chosen_on_val(run: Run, threshold: float | None, postprocess: str | None) -> list[str]:
    """Return what the run chose on its validation images and is not replaced here."""
    replaced = {"threshold": threshold, "post-processing": postprocess}
    return [name for name in run.chosen if replaced.get(name) is None]


def _score(
    groups: Sequence[Group],
    dataset: Dataset,
    names: Sequence[str],
    surface: bool,
    monitor: DriftMonitor,
    histograms: Histograms,
) -> tuple[tuple[ImageScores, ...], tuple[ImageScores, ...]]:
    """Return the scores of each image, and those at threshold 0.5; none for a softmax head."""
    scores: dict[str, ImageScores] = {}
    at_half: dict[str, ImageScores] = {}
    with Progress("evaluating", len(names)) as progress:
        for group in groups:
            for one in group.score(dataset, monitor=monitor, surface=surface):
                histograms.add(one.probability, one.label)
                scores[one.sample.name] = one.scores
                if len(one.probability) == 1:
                    classes = len(one.scores.matrix)
                    half = score_image(
                        one.sample, one.probability, classes, HALF, group.postprocess
                    )
                    at_half[one.sample.name] = half.scores
                progress.update(len(scores))
    ordered = tuple(scores[name] for name in names)
    return ordered, tuple(at_half[name] for name in names if name in at_half)


def _gain_over(
    groups: Sequence[Group], dataset: Dataset, names: Sequence[str], after: Sequence[ImageScores]
) -> Interval:
    before, _ = _score(groups, dataset, names, False, DriftMonitor(), Histograms())
    return gain_over(before, after)


def _baselines(run: Run, dataset: Dataset, names: Sequence[str]) -> list[Baseline]:
    train = [name for name in run.split.train if name in {*dataset.names}] or list(names)
    some = train[:: -(-len(train) // BASELINE_IMAGES)]
    return baselines(*_pixels(dataset, some), *_pixels(dataset, names), dataset.class_names)


def _pixels(dataset: Dataset, names: Sequence[str]) -> tuple[list[Array], list[Array]]:
    """The images in color, and the labels."""
    samples = list(load_samples(dataset, names))
    return [color_image(one.image) for one in samples], [label_of(one) for one in samples]


def _save_picture(
    path: Path,
    groups: Sequence[Group],
    dataset: Dataset,
    names: Sequence[str],
    scores: Sequence[ImageScores],
) -> None:
    dice = np.array([foreground_mean(one.values["dice"]) for one in scores])
    rows, captions = [], []
    for index, why in _choose_images(dice).items():
        name = names[index]
        group = next(group for group in groups if name in group.names)
        one = next(group.score(dataset, [name]))
        images = (one.sample.image, one.label, one.probability, one.mask)
        rows.append(row(*images, dataset.classes))
        known = "no foreground" if np.isnan(dice[index]) else f"Dice {dice[index]:.3f}"
        captions.append(f"{why}: {name}: {known}")
    save_grid(path, rows, captions, legend=legend_of(dataset.class_names))


def _choose_images(dice: Array) -> dict[int, str]:
    """Indices of two images each with the lowest, any and the highest Dice, in this order."""
    order = np.argsort(dice, kind="stable")
    # an image without foreground, rightly left empty, shows nothing
    shown = [int(i) for i in order if dice[i] >= 0] or list(range(len(dice)))
    reasons = {**dict.fromkeys(shown[:2], "worst"), **dict.fromkeys(shown[:1:-1][:2], "best")}
    rest = np.array([i for i in shown if i not in reasons], int)
    drawn = np.random.default_rng(0).permutation(rest)[:2].tolist()
    reasons |= dict.fromkeys(drawn, "random")
    return {index: reasons[index] for index in sorted(reasons, key=shown.index)}
