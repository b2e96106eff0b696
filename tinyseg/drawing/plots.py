"""Charts of datasets and of runs, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinyseg.common.arrays import Array
from tinyseg.data.checks.compare import PLAIN, Comparison, normalized
from tinyseg.data.checks.stats import DatasetStats, weighted_quantiles
from tinyseg.drawing.charts import GRAY, LINE_COLORS, Chart, Color, Line, draw_charts, steps
from tinyseg.drawing.pictures import write_png

COLUMNS = 3
MOST_CLASSES = 8
"""Whose curves are drawn: a picture of more rows is not looked at."""
BINS = 40
UNIT = (0.0, 1.0)


def draw_stats(path: Path, sets: Sequence[DatasetStats], comparison: Comparison | None) -> None:
    """Write a PNG of one or two datasets: gray levels, foreground, objects.

    With a comparison, the levels are drawn again as its best normalization leaves them.
    """
    charts = _level_charts(sets, PLAIN, "pixels in [0, 1]")
    if comparison and comparison.best != PLAIN:
        charts += _level_charts(sets, comparison.best, comparison.best)
    charts += _shape_charts(sets)
    rows = [charts[start : start + COLUMNS] for start in range(0, len(charts), COLUMNS)]
    names = [f"{stats.source} ({len(stats.images)} images)" for stats in sets]
    legend = dict(zip(names, LINE_COLORS, strict=False))
    write_png(path, Image.fromarray(draw_charts(rows, legend)), signed=True)


def draw_curves(path: Path, runs: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """Write a PNG of the curves of runs as a report collects them, with the names of all classes.

    Training, and for each foreground class a row with precision and recall, Dice by threshold and
    calibration; of more than MOST_CLASSES those that have the most pixels.
    """
    chosen = _largest(runs[0]["curves"])
    rows = [training_charts([run["history"] for run in runs])]
    for index in chosen:
        name = f"{classes[1 + index]}: " if len(classes) > 2 else ""
        rows.append(_class_charts([run["curves"][index] for run in runs], name))
    total = len(runs[0]["curves"])
    note = f"of {total} classes the {len(chosen)} with the most pixels"
    legend = {run["title"]: _color(index) for index, run in enumerate(runs)}
    picture = draw_charts(rows, legend, note if len(chosen) < total else "")
    write_png(path, Image.fromarray(picture), signed=True)


def training_charts(histories: Sequence[Sequence[Any]]) -> list[Chart]:
    """Return the charts of loss and Dice over the epochs of runs."""

    def lines(key: str, dashed: bool = False) -> list[Line]:
        return [
            Line([e["epoch"] for e in epochs], [e[key] for e in epochs], _color(index), dashed)
            for index, epochs in enumerate(histories)
        ]

    last = max((epoch["epoch"] for epochs in histories for epoch in epochs), default=2)
    epochs = (1.0, float(max(2, last)))
    loss = lines("loss")
    largest = max((value or 0 for line in loss for value in line.y), default=0)
    dice = [*lines("val_dice"), *lines("train_dice", dashed=True)]
    return [
        Chart("Loss in training", "epoch", "loss", loss, epochs, (0.0, largest or 1.0)),
        Chart("Dice: validation, training dashed", "epoch", "Dice", dice, epochs, UNIT),
    ]


def _class_charts(curves: Sequence[dict[str, Any]], name: str) -> list[Chart]:
    thresholds = np.arange(1, 256) / 256
    pairs, dice = [], []
    calibration = [Line(UNIT, UNIT, GRAY, dashed=True)]
    for index, curve in enumerate(curves):
        color = _color(index)
        known = [
            (r, p)
            for r, p in zip(curve["recall"], curve["precision"], strict=True)
            if r is not None
        ]
        pairs.append(Line([r for r, _ in known], [p for _, p in known], color))
        dice.append(Line(thresholds, curve["dice"], color))
        points = curve["reliability"]
        calibration.append(Line([p[0] for p in points], [p[1] for p in points], color))
    share = "share of the class" if name else "share of foreground"
    return [
        Chart(f"{name}precision and recall", "recall", "precision", pairs, UNIT, UNIT),
        Chart(f"{name}Dice by threshold", "threshold", "Dice", dice, UNIT, UNIT),
        Chart(f"{name}calibration", "probability", share, calibration, UNIT, UNIT),
    ]


def _largest(curves: Sequence[dict[str, Any]]) -> list[int]:
    """Return which foreground classes are drawn, in their order."""
    pixels = [sum(share * count for _, share, count in one["reliability"]) for one in curves]
    order = sorted(range(len(curves)), key=lambda index: -pixels[index])
    return sorted(order[:MOST_CLASSES])


def _color(index: int) -> Color:
    return LINE_COLORS[index % len(LINE_COLORS)]


def _level_charts(sets: Sequence[DatasetStats], way: str, x_label: str) -> list[Chart]:
    def chart(channel: int, name: str) -> Chart:
        levels = [of_set[channel] for of_set in by_set]
        ends = np.concatenate([weighted_quantiles(v, w, (0.001, 0.999)) for v, w in levels])
        gap = (ends.max() - ends.min()) / BINS or 1
        edges = np.linspace(ends.min() - gap, ends.max(), BINS + 2)
        heights = [_share_between(v, w, edges) for v, w in levels]
        return _histogram(heights, edges, name, x_label, "% of pixels")

    by_set = [normalized(stats, way) for stats in sets]
    return [chart(channel, name) for channel, name in enumerate(sets[0].channel_names)]


def _share_between(values: Array, weights: Array, edges: Array) -> Array:
    """Return the weight between two edges; a level counts as all values since the one before it.

    Plainly counted, 256 levels in 40 bins would look like a comb.
    """
    levels, place = np.unique(values, return_inverse=True)
    sums = np.cumsum(np.bincount(place, weights)) / weights.sum()
    return np.diff(np.interp(edges, np.append(edges[0], levels), np.append(0, sums)))


def _shape_charts(sets: Sequence[DatasetStats]) -> list[Chart]:
    shares = [100 * np.array([i.foreground for i in s.images if i.foreground >= 0]) for s in sets]
    counts = [np.array([sum(map(len, image.areas)) for image in s.images]) for s in sets]
    areas = [np.concatenate([a for image in s.images for a in image.areas]) for s in sets]
    top, most, largest = (max(v.max(initial=1) for v in of) for of in (shares, counts, areas))
    width = 1 + most // BINS
    percent, size = np.linspace(0, top, BINS // 2), np.geomspace(0.9, 1.1 * largest, BINS // 2)
    number = np.arange(0, most + 1 + width, width) - 0.5

    def shares_in(edges: Array, values: Sequence[Array]) -> list[Array]:
        return [np.histogram(one, edges)[0] / max(1, len(one)) for one in values]

    images, objects = "% of images", "% of objects"
    return [
        _histogram(shares_in(percent, shares), percent, "foreground", "% of the image", images),
        _histogram(shares_in(number, counts), number, "objects in an image", "number", images),
        _histogram(shares_in(size, areas), size, "size of the objects", "pixels", objects, True),
    ]


def _histogram(
    heights: Sequence[Array],
    edges: Array,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
) -> Chart:
    lines = [
        steps(100 * one, edges, _color(index), dashed=index > 0)
        for index, one in enumerate(heights)
    ]
    top = 100 * float(max(one.max(initial=0) for one in heights)) or 1.0
    ends = (float(edges[0]), float(edges[-1]))
    return Chart(title, x_label, y_label, lines, ends, (0.0, 1.05 * top), log_x)
