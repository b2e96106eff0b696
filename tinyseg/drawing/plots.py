"""Drawings of statistics and of runs, with matplotlib: the optional extra `plot`."""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tinyseg.common.files import write_atomic
from tinyseg.data.checks.compare import PLAIN, Comparison, normalized
from tinyseg.data.checks.stats import DatasetStats, weighted_quantiles
from tinyseg.errors import TinysegError

Array = np.ndarray[Any, np.dtype[Any]]
Panel = Callable[[Any], None]
"""Draws into the axes it is given."""

COLORS = ("#0072B2", "#D55E00")
"""Okabe & Ito's blue and vermilion, told apart by the colour-blind too; dashes help in print."""
RUN_COLORS = (*COLORS, "#009E73", "#CC79A7", "#E69F00", "#000000")
"""The same palette goes on, for runs."""
STYLES = ("-", "--")
COLUMNS = 3
MOST_CLASSES = 8
"""Whose curves are drawn: a picture of more rows is not looked at."""
BINS = 40


def draw_stats(path: Path, sets: Sequence[DatasetStats], comparison: Comparison | None) -> None:
    """Writes a PNG of one or two datasets: levels, foreground, objects.

    With a comparison, the levels stand there again as its best normalisation leaves them.
    """
    panels = _level_panels(sets, PLAIN, "pixels in [0, 1]")
    if comparison and comparison.best != PLAIN:
        panels += _level_panels(sets, comparison.best, comparison.best.replace(" data", "\ndata"))
    panels += _shape_panels(sets)
    rows = -(-len(panels) // COLUMNS)
    figure = _new_figure(figsize=(4 * COLUMNS, 3 * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        panel(axes)
        axes.grid(alpha=0.3)
    for axes in grid[len(panels) :]:
        axes.remove()
    names = [f"{stats.source} ({len(stats.images)} images)" for stats in sets]
    figure.legend(grid[0].patches, names, loc="outside upper center")
    _write(path, figure)


def draw_curves(path: Path, runs: Sequence[dict[str, Any]], classes: Sequence[str]) -> None:
    """Writes a PNG of the curves of runs as a report collects them, with the names of all classes.

    Training, and for each foreground class a row with precision and recall, Dice by threshold and
    calibration; of more than MOST_CLASSES those that have the most pixels.
    """
    kinds = _largest(runs[0]["curves"])
    figure = _new_figure(figsize=(4 * COLUMNS, 3.5 * (1 + len(kinds))), layout="constrained")
    training, *rows = figure.subplots(1 + len(kinds), COLUMNS)
    _draw_training(training[0], training[1], runs)
    training[2].remove()
    for kind, row in zip(kinds, rows, strict=True):
        _draw_class(row, runs, kind, f"{_plain(classes[1 + kind])}: " if len(classes) > 2 else "")
    several = len(runs[0]["curves"])
    left_out = f"of {several} classes the {len(kinds)} with the most pixels"
    title = left_out if len(kinds) < several else None
    handles = training[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", title=title)
    _write(path, figure)


def _largest(curves: Sequence[dict[str, Any]]) -> list[int]:
    """Which classes are drawn, in their order."""
    pixels = [sum(share * count for _, share, count in one["reliability"]) for one in curves]
    order = sorted(range(len(curves)), key=lambda kind: -pixels[kind])
    return sorted(order[:MOST_CLASSES])


def _plain(text: str) -> str:
    """Without matplotlib's formulas."""
    return text.replace("$", r"\$")


def _lines(runs: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    for index, run in enumerate(runs):
        yield run, {"color": RUN_COLORS[index % len(RUN_COLORS)], "label": _plain(run["title"])}


def _draw_training(loss: Any, dice: Any, runs: Sequence[dict[str, Any]]) -> None:
    for run, line in _lines(runs):
        epochs = [epoch["epoch"] for epoch in run["history"]]
        for axes, key, style in (
            (loss, "loss", {}),
            (dice, "train_dice", {"linestyle": "--"}),
            (dice, "val_dice", {}),
        ):
            axes.plot(epochs, [_nan(epoch[key]) for epoch in run["history"]], **line, **style)
    loss.set(title="loss in training", xlabel="epoch")
    dice.set(title="Dice: validation, training dashed", xlabel="epoch", ylim=(0, 1))
    for axes in (loss, dice):
        axes.grid(alpha=0.3)


def _draw_class(row: Sequence[Any], runs: Sequence[dict[str, Any]], kind: int, name: str) -> None:
    tradeoff, threshold, calibration = row
    for run, line in _lines(runs):
        curve = run["curves"][kind]
        tradeoff.plot(*([_nan(v) for v in curve[k]] for k in ("recall", "precision")), **line)
        thresholds = np.arange(1, 256) / 256
        threshold.plot(thresholds, [_nan(v) for v in curve["dice"]], **line)
        calibration.plot(*zip(*(point[:2] for point in curve["reliability"]), strict=True), **line)
    calibration.plot([0, 1], [0, 1], color="grey", linestyle=":")
    unit = {"xlim": (0, 1), "ylim": (0, 1)}
    tradeoff.set(title=f"{name}all thresholds", xlabel="recall", ylabel="precision", **unit)
    threshold.set(title=f"{name}Dice by threshold", xlabel="threshold", **unit)
    share = "share of the class" if name else "share of foreground"
    calibration.set(title=f"{name}calibration", xlabel="probability", ylabel=share, **unit)
    for axes in row:
        axes.grid(alpha=0.3)


def _nan(value: float | None) -> float:
    return np.nan if value is None else value


def _write(path: Path, figure: Any) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": "tinyseg"})
    write_atomic(path, buffer.getvalue())


def require_matplotlib() -> Any:
    """Its class of figures; TinysegError where it is not installed: ask before a long work."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TinysegError(
            'a drawing needs matplotlib, which is not installed: pip install "tinyseg[plot]"'
        ) from None
    return Figure


def _new_figure(**options: Any) -> Any:
    return require_matplotlib()(**options)


def _level_panels(sets: Sequence[DatasetStats], way: str, what: str) -> list[Panel]:
    def panel(channel: int, name: str) -> Panel:
        levels = [of_set[channel] for of_set in by_set]
        ends = np.concatenate([weighted_quantiles(v, w, (0.001, 0.999)) for v, w in levels])
        gap = (ends.max() - ends.min()) / BINS or 1
        edges = np.linspace(ends.min() - gap, ends.max(), BINS + 2)
        heights = [_share_between(v, w, edges) for v, w in levels]
        return lambda axes: _steps(
            axes, heights, edges, title=name, xlabel=what, ylabel="% of pixels"
        )

    by_set = [normalized(stats, way) for stats in sets]
    return [panel(channel, name) for channel, name in enumerate(sets[0].channel_names)]


def _share_between(values: Array, weights: Array, edges: Array) -> Array:
    """The weight between two edges; a level counts as all values since the one before it.

    Plainly counted, 256 levels in 40 bins would look like a comb.
    """
    levels, place = np.unique(values, return_inverse=True)
    sums = np.cumsum(np.bincount(place, weights)) / weights.sum()
    return np.diff(np.interp(edges, np.append(edges[0], levels), np.append(0, sums)))


def _shape_panels(sets: Sequence[DatasetStats]) -> list[Panel]:
    shares = [100 * np.array([i.foreground for i in s.images if i.foreground >= 0]) for s in sets]
    counts = [np.array([sum(map(len, image.areas)) for image in s.images]) for s in sets]
    areas = [np.concatenate([a for image in s.images for a in image.areas]) for s in sets]
    top, most, largest = (max(v.max(initial=1) for v in of) for of in (shares, counts, areas))
    width = 1 + most // BINS
    percent, size = np.linspace(0, top, BINS // 2), np.geomspace(0.9, 1.1 * largest, BINS // 2)
    number = np.arange(0, most + 1 + width, width) - 0.5
    return [
        _counted(shares, percent, "foreground", "% of the image", "% of images"),
        _counted(counts, number, "objects in an image", "number", "% of images"),
        _counted(areas, size, "size of the objects", "pixels", "% of objects", xscale="log"),
    ]


def _counted(
    sets: Sequence[Array], edges: Array, title: str, what: str, share: str, **more: str
) -> Panel:
    heights = [np.histogram(values, edges)[0] / max(1, len(values)) for values in sets]
    labels = {"title": title, "xlabel": what, "ylabel": share}
    return lambda axes: _steps(axes, heights, edges, **labels, **more)


def _steps(axes: Any, sets: Sequence[Array], edges: Array, **labels: str) -> None:
    for heights, color, style in zip(sets, COLORS, STYLES, strict=False):
        axes.stairs(100 * heights, edges, color=color, linestyle=style, linewidth=1.5)
    axes.set(**labels)
