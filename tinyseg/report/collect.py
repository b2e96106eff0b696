"""All that the page shows, as a dictionary of plain values."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from tinyseg.common.files import read_json
from tinyseg.common.findings import Finding
from tinyseg.common.progress import Progress
from tinyseg.config import IGNORE
from tinyseg.data import Dataset
from tinyseg.doctor import EvaluatedRun
from tinyseg.drawing.pictures import FN, FP, TP, color_image, color_map, palette
from tinyseg.errors import RunError
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.evaluation.groups import as_runs, group_images, split_names
from tinyseg.evaluation.result import Evaluation
from tinyseg.evaluation.score import Scored
from tinyseg.inference.run import Run
from tinyseg.metrics.summary import Summary, foreground_mean
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.models import head_channels
from tinyseg.report.curves import curves
from tinyseg.report.diagnosis import findings_of
from tinyseg.report.encode import data_uri, level_of, levels, pack, shrink, size_in_page
from tinyseg.report.history import differences, mean_history, parting
from tinyseg.runs.metrics_log import history

MEASURES = ("dice", "iou", "precision", "recall", "hd95", "assd")
SIDES = (512, 384, 256)
"""Longest side of a picture in the page, in pixels; larger ones are scaled down."""
MOST_BYTES = 19_500_000
"""Of all pictures, so that the page stays below 20 MB."""
FEW = 5
"""Images from which the size of all pictures is estimated."""
SUMMARY = (
    ("pooled", "dice"),
    ("pooled", "iou"),
    ("per_image", "dice"),
    ("per_image", "iou"),
    ("per_image", "dice_or_one"),
    ("per_image", "hd95"),
)


def collect(
    runs: Sequence[Run | Sequence[Run]],
    data: str | Path,
    split: str,
    images: int,
    say: Callable[[str], None] = print,
    examine: Callable[[EvaluatedRun], Sequence[Finding]] = lambda case: (),
    channels: Sequence[int] = (),
) -> dict[str, Any]:
    """Return scores, curves, settings and pictures of runs on their shared images; see `report`.

    `examine` returns the findings of the doctor for a run.
    """
    groups = [as_runs(run) for run in runs]
    firsts, sizes = [folds[0] for folds in groups], map(len, groups)
    _check_alike(firsts)
    datasets = [run.open(data) for run in firsts]
    _check_channels(channels, datasets[0].channels)
    names = shared_names(groups, datasets[0], split, say)
    scored = [
        evaluate(folds, dataset, split, say=say, names=names)
        for folds, dataset in zip(groups, datasets, strict=True)
    ]
    for evaluation in scored:
        if count := evaluation.trained_on:
            say(f"warning: {count} of the images are training images of the run that is scored")
    side, shown = _shown(groups, datasets, scored, spread(_dice(scored[0]), images), channels)
    return {
        "source": str(data),
        "split": split,
        "scored": len(names),
        "classes": list(datasets[0].class_names),
        "colors": palette(max(3, len(datasets[0].class_names))).tolist(),
        "probability": color_map().tolist(),
        "outcomes": {"tp": [*TP], "fp": [*FP], "fn": [*FN]},
        "runs": [
            {
                **_run(folds, title),
                **_scored(evaluation),
                "findings": findings_of(_examined(examine, folds, dataset, evaluation)),
            }
            for folds, title, dataset, evaluation in zip(
                groups, titles([_folder(folds) for folds in groups]), datasets, scored, strict=True
            )
        ],
        "baselines": [
            {"rule": b.rule, "summary": _numbers(b.summary)} for b in scored[0].baselines
        ],
        "settings": differences([run.config for run in firsts]),
        "parting": parting([run.log for run in firsts]) if len(firsts) == sum(sizes) else None,
        "images": shown,
        "side": side,
    }


def _check_channels(shown: Sequence[int], count: int) -> None:
    if shown and not (len(shown) in (1, 2, 3) and all(1 <= one <= count for one in shown)):
        raise RunError(
            f"--channels {','.join(map(str, shown))} cannot be shown: give one to three numbers "
            f"from 1 to {count}, for red, green and blue"
        )


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.facts.classes != first.facts.classes:
            raise RunError(
                f"{run.folder} has {run.facts.classes} classes and {first.folder} has "
                f"{first.facts.classes}: they cannot be compared, give each its own report"
            )


def _folder(folds: Sequence[Run]) -> Path:
    """Return the folder of a run, or of the cross-validation that it is a fold of."""
    return folds[0].folder.parent if len(folds) > 1 else folds[0].folder


def _examined(
    examine: Callable[[EvaluatedRun], Sequence[Finding]],
    folds: Sequence[Run],
    dataset: Dataset,
    evaluation: Evaluation,
) -> Sequence[Finding]:
    """Return the doctor's findings for a run; none for folds, whose scores are of no single run."""
    return examine(EvaluatedRun(folds[0], dataset, evaluation)) if len(folds) == 1 else ()


def shared_names(
    runs: Sequence[Run | Sequence[Run]],
    dataset: Dataset,
    split: str,
    say: Callable[[str], None] = print,
) -> tuple[str, ...]:
    """Return the images in the split of every run: none is scored on its training images."""
    of_runs = [split_names(run, dataset, split) for run in runs]
    names = tuple(name for name in of_runs[0] if all(name in of for of in of_runs[1:]))
    if not names:
        folders = ", ".join(str(_folder(as_runs(run))) for run in runs)
        raise RunError(
            f"{folders}: no image is in the {split} split of all of them; train them with one "
            "data.split_seed or data.split_file"
        )
    most = max(map(len, of_runs))
    if len(names) < most:
        say(f"warning: {len(names)} images are in the {split} split of every run (of {most})")
    return names


def titles(folders: Sequence[Path]) -> list[str]:
    """Return names of run folders, with as many parents as it takes to distinguish them."""
    parts = [folder.absolute().parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{part[-1]} ({index})" for index, part in enumerate(parts, start=1)]


def spread(values: Sequence[float], count: int) -> list[int]:
    """Return indices of at most `count` values, evenly from the lowest to the highest; nan last."""
    order = np.argsort(np.asarray(values), kind="stable")
    if len(order) <= count:
        return [int(index) for index in order]
    places = np.linspace(0, len(order) - 1, count).round().astype(int)
    return [int(order[place]) for place in places]


def _dice(evaluation: Evaluation) -> list[float]:
    return [foreground_mean(scores.values["dice"]) for scores in evaluation.images]


def _run(folds: Sequence[Run], title: str) -> dict[str, Any]:
    """Return the facts of a run; for folds, means over them, and the rest of the first."""
    run, threshold = folds[0], fmean(one.threshold for one in folds)
    table = read_json(run.folder / "run.json")
    return {
        "title": title if len(folds) == 1 else f"{title} ({len(folds)} folds)",
        "folder": str(_folder(folds)),
        "started": str(table.get("made", "")),
        "device": str((table.get("backend") or {}).get("device", "")),
        "trained": len(run.split.train),
        "postprocess": ", ".join(
            dict.fromkeys(filter(None, (one.postprocess().text for one in folds)))
        ),
        "softmax": head_channels(run.config.model, run.facts.classes) > 1,
        "threshold": threshold,
        "level": level_of(threshold),
        "history": mean_history([history(one.log) for one in folds]),
    }


def _numbers(summary: Summary) -> list[float | None]:
    nothing = np.full(2, np.nan)
    return [
        number(foreground_mean(getattr(summary, pooling).get(name, nothing)))
        for pooling, name in SUMMARY
    ]


def _scored(evaluation: Evaluation) -> dict[str, Any]:
    differs = evaluation.threshold_gain is not None and evaluation.threshold_gain.threshold != HALF
    return {
        "summary": _numbers(evaluation.summary),
        "curves": curves(evaluation.histograms),
        "threshold_gain": str(evaluation.threshold_gain) if differs else "",
    }


def number(value: float) -> float | None:
    """Return a number for the page, or None."""
    return round(float(value), 6) if math.isfinite(value) else None


def _shown(
    runs: Sequence[Sequence[Run]],
    datasets: Sequence[Dataset],
    scored: Sequence[Evaluation],
    chosen: Sequence[int],
    channels: Sequence[int],
) -> tuple[int, list[dict[str, Any]]]:
    """Return the largest of SIDES with which pictures stay below MOST_BYTES, and the pictures."""
    few = chosen[:: max(1, len(chosen) // FEW)]
    for side in SIDES[:-1]:
        for some in (few, chosen):
            pictures = _images(runs, datasets, scored, some, side, channels)
            if len(json.dumps(pictures)) * len(chosen) > MOST_BYTES * len(some):
                break
        else:
            return side, pictures
    return SIDES[-1], _images(runs, datasets, scored, chosen, SIDES[-1], channels)


def _images(
    runs: Sequence[Sequence[Run]],
    datasets: Sequence[Dataset],
    scored: Sequence[Evaluation],
    chosen: Sequence[int],
    side: int,
    channels: Sequence[int],
) -> list[dict[str, Any]]:
    names = [scored[0].names[index] for index in chosen]
    shown = [_picture(datasets[0], name, side, channels) for name in names]
    for folds, dataset, evaluation in zip(runs, datasets, scored, strict=True):
        image_groups = group_images(folds, evaluation.split, names)
        with Progress("drawing", len(names)) as progress:
            drawn = (one for group in image_groups for one in group.score(dataset))
            for count, one in enumerate(drawn, start=1):
                place = names.index(one.sample.name)
                picture, scores = shown[place], evaluation.images[chosen[place]]
                area = number(scores.matrix[:, 1:].sum() / max(1, scores.matrix.sum()))
                maps = _maps(one, tuple(picture["size"]))
                entry = {"scores": _scores(scores.values), **maps, "area": area}
                picture["runs"].append(entry)
                progress.update(count)
    return shown


def _scores(values: dict[str, Any]) -> dict[str, float | None]:
    nothing = np.full(2, np.nan)
    return {name: number(foreground_mean(values.get(name, nothing))) for name in MEASURES}


def _picture(dataset: Dataset, name: str, side: int, channels: Sequence[int]) -> dict[str, Any]:
    sample = dataset[name]
    assert sample.label is not None
    rows, columns = sample.label.shape
    size = size_in_page(rows, columns, side)
    known = sample.label[sample.label != IGNORE]
    return {
        "name": name,
        "original": [rows, columns],
        "size": list(size),
        "foreground": number(float((known > 0).mean())) if known.size else None,
        "image": data_uri(color_image(sample.image, channels), size),
        "label": pack(shrink(sample.label, size, smooth=False)),
        "runs": [],
    }


def _maps(one: Scored, size: tuple[int, int]) -> dict[str, Any]:
    """Return the probability of each channel and, if there are several, the predicted classes."""
    small = np.stack([shrink(p_hw, size, smooth=True) for p_hw in one.probability])
    maps = {"probability": [pack(level) for level in levels(small)]}
    if len(one.probability) == 1:
        return maps
    return {**maps, "prediction": pack(shrink(one.mask, size, smooth=False))}
