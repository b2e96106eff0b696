"""Line charts as pictures, with Pillow: every curve of a PNG is drawn here."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tinyseg.common.arrays import Array

Color = tuple[int, int, int]

# Okabe & Ito's palette, which color-blind readers can distinguish too; dashes help in print
LINE_COLORS: tuple[Color, ...] = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115)),
    *((204, 121, 167), (230, 159, 0), (0, 0, 0)),
)
WHITE, INK, GRAY, FAINT = (255,) * 3, (27, 31, 35), (89, 99, 110), (222, 226, 230)
WIDTH, HEIGHT = 400, 300
"""Of one chart, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 44, 46
SMOOTH = 2
"""Everything is drawn this much larger and then scaled down: smooth lines."""


@dataclass(frozen=True)
class Line:
    """A line through points; a y that is not a number breaks it."""

    x: Sequence[float] | Array
    y: Sequence[float | None] | Array
    color: Color
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over two axes; an axis without a range has that of the lines."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    log_x: bool = False


def steps(heights: Array, edges: Array, color: Color, dashed: bool = False) -> Line:
    """Return the outline of a histogram."""
    y = np.concatenate([[0], np.repeat(heights, 2), [0]])
    return Line(np.repeat(edges, 2), y, color, dashed)


def draw_charts(
    rows: Sequence[Sequence[Chart]], legend: Mapping[str, Color], note: str = ""
) -> Array:
    """Return rows of charts as one picture (H, W, 3) uint8, with a legend above them."""
    columns = max(map(len, rows))
    font = ImageFont.load_default(14 * SMOOTH)
    places, top = _legend_places(legend, font, columns * WIDTH * SMOOTH)
    top += 24 * SMOOTH * bool(note)
    size = (columns * WIDTH * SMOOTH, top + len(rows) * HEIGHT * SMOOTH)
    sheet = Image.new("RGB", size, WHITE)
    draw = ImageDraw.Draw(sheet)
    for (name, color), (x, y) in zip(legend.items(), places, strict=True):
        draw.line((x, y + 9 * SMOOTH, x + 24 * SMOOTH, y + 9 * SMOOTH), color, 3 * SMOOTH)
        draw.text((x + 30 * SMOOTH, y), name, INK, font)
    if note:
        draw.text((12 * SMOOTH, top - 22 * SMOOTH), note, GRAY, font)
    for row, charts in enumerate(rows):
        for column, chart in enumerate(charts):
            _draw_chart(draw, chart, column * WIDTH * SMOOTH, top + row * HEIGHT * SMOOTH)
    return np.asarray(sheet.resize((size[0] // SMOOTH, size[1] // SMOOTH), Image.Resampling.BOX))


def _legend_places(
    legend: Mapping[str, Color], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> tuple[list[tuple[float, float]], int]:
    """Return where each entry begins, in lines that fit the width, and the height of all."""
    places, x, y = [], 12.0 * SMOOTH, 8 * SMOOTH
    for name in legend:
        needed = font.getlength(name) + 50 * SMOOTH
        if x + needed > width and x > 12 * SMOOTH:
            x, y = 12.0 * SMOOTH, y + 22 * SMOOTH
        places.append((x, float(y)))
        x += needed
    return places, y + 26 * SMOOTH if legend else 0


def _draw_chart(draw: ImageDraw.ImageDraw, chart: Chart, left: int, top: int) -> None:
    x_range = chart.x_range or _range_of([line.x for line in chart.lines])
    y_range = chart.y_range or _range_of([line.y for line in chart.lines])
    inner = (left + LEFT * SMOOTH, left + (WIDTH - RIGHT) * SMOOTH)
    floor, roof = top + (HEIGHT - BOTTOM) * SMOOTH, top + TOP * SMOOTH
    to_x, to_y = _scale(x_range, *inner, chart.log_x), _scale(y_range, floor, roof, False)
    large, small = (ImageFont.load_default(size * SMOOTH) for size in (14, 12))
    draw.text((inner[0], top + 4 * SMOOTH), chart.title, INK, large)
    draw.text((inner[0], top + 24 * SMOOTH), chart.y_label, GRAY, small)
    middle = (inner[0] + inner[1]) / 2
    draw.text((middle, floor + 24 * SMOOTH), chart.x_label, GRAY, small, anchor="mt")
    for tick in _ticks(*y_range, False):
        height = to_y(np.array([tick]))[0]
        draw.line((inner[0], height, inner[1], height), FAINT, SMOOTH)
        at = (inner[0] - 6 * SMOOTH, height)
        draw.text(at, f"{tick:.3g}", GRAY, small, anchor="rm")
    for tick in _ticks(*x_range, chart.log_x):
        across = to_x(np.array([tick]))[0]
        draw.line((across, floor, across, floor + 4 * SMOOTH), GRAY, SMOOTH)
        draw.text((across, floor + 7 * SMOOTH), f"{tick:.4g}", GRAY, small, anchor="mt")
    draw.line((inner[0], floor, inner[1], floor), GRAY, SMOOTH)
    for line in chart.lines:
        y = np.array([np.nan if value is None else value for value in line.y], float)
        for part in _pieces(to_x(np.asarray(line.x, float)), to_y(y), line.dashed):
            draw.line(part, line.color, 2 * SMOOTH, joint="curve")


def _range_of(lines: Sequence[Sequence[float | None] | Array]) -> tuple[float, float]:
    values = [value for line in lines for value in line if value is not None and value == value]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return float(low), float(high if high > low else low + 1)


def _scale(
    ends: tuple[float, float], start: float, stop: float, log: bool
) -> Callable[[Array], Array]:
    def place(values: Array) -> Array:
        if log:
            values = np.log(values)
        return np.asarray(start + (values - low) / (high - low) * (stop - start))

    low, high = np.log(ends) if log else ends
    return place


def _ticks(low: float, high: float, log: bool) -> Array:
    """Return about four round numbers between two; powers of ten on a logarithmic axis."""
    if log:
        ends = np.ceil(np.log10(low)), np.floor(np.log10(high))
        return np.asarray(10.0 ** np.arange(ends[0], ends[1] + 1))
    step = (high - low) / 4
    power = 10.0 ** np.floor(np.log10(step))
    step = power * next(k for k in (1, 2, 2.5, 5, 10) if k * power >= 0.99 * step)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return np.asarray(step * np.arange(first, last + 1) + 0.0)  # 0, never -0


def _pieces(x: Array, y: Array, dashed: bool) -> Iterator[list[tuple[float, float]]]:
    """Yield the points of each unbroken piece of a line, or of its dashes."""
    known = np.flatnonzero(np.isfinite(y))
    for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
        if len(run) == 0:
            continue
        across, up = x[run], y[run]
        if len(run) == 1:  # a point is a short stroke
            across, up = across[0] + np.array([-2.0, 2.0]) * SMOOTH, np.repeat(up, 2)
        if not dashed:
            yield list(zip(across.tolist(), up.tolist(), strict=True))
            continue
        length = np.append(0, np.cumsum(np.hypot(np.diff(across), np.diff(up))))
        for start in np.arange(0, length[-1], 10.0 * SMOOTH):
            at = np.linspace(start, min(start + 6 * SMOOTH, length[-1]), 7)
            points = np.interp(at, length, across), np.interp(at, length, up)
            yield list(zip(*(values.tolist() for values in points), strict=True))
