"""Charts: lines are where their numbers are, breaks are gaps, ticks are round."""

import numpy as np
import pytest

from tinyseg.drawing.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LINE_COLORS,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Line,
    _ticks,
    draw_charts,
    steps,
)

BLUE, RED = LINE_COLORS[:2]
INNER_WIDTH, INNER_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM


def pixels(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Where a picture has a color, give or take the smoothing, below titles and legend."""
    return np.abs(picture.astype(int) - color).max(axis=2) < 40


def chart(*lines: Line, **more: object) -> np.ndarray:
    return draw_charts([[Chart("title", "x", "y", lines, **more)]], {})


def test_a_line_goes_through_its_points() -> None:
    there = pixels(chart(Line([0, 5, 10], [0, 1, 0.5], BLUE), y_range=(0, 1)), BLUE)
    for x, y in [(0, 0), (2.5, 0.5), (5, 1), (10, 0.5)]:
        row = round(TOP + (1 - y) * INNER_HEIGHT)
        column = round(LEFT + x / 10 * INNER_WIDTH)
        assert there[row - 4 : row + 5, column - 4 : column + 5].any(), (x, y)
    rows, columns = np.nonzero(there)
    assert abs(rows.min() - TOP) <= 2
    assert abs(rows.max() - (HEIGHT - BOTTOM)) <= 2
    assert abs(columns.min() - LEFT) <= 2
    assert abs(columns.max() - (WIDTH - RIGHT)) <= 2


@pytest.mark.parametrize("gap", [None, np.nan])
def test_what_is_not_a_number_breaks_the_line(gap) -> None:
    whole = pixels(chart(Line(range(5), [1, 1, 1, 1, 1], BLUE), y_range=(0, 2)), BLUE).any(axis=0)
    broken = pixels(chart(Line(range(5), [1, 1, gap, 1, 1], BLUE), y_range=(0, 2)), BLUE).any(
        axis=0
    )
    middle = slice(LEFT + round(0.3 * INNER_WIDTH), LEFT + round(0.7 * INNER_WIDTH))
    assert whole[middle].all()
    assert not broken[middle].any()
    assert broken[LEFT + 5]
    assert broken[WIDTH - RIGHT - 5]


@pytest.mark.parametrize("lines", [[], [Line([], [], BLUE)], [Line([1, 2], [None, None], BLUE)]])
def test_nothing_to_draw_is_an_empty_chart(lines) -> None:
    assert not pixels(chart(*lines), BLUE).any()


def test_a_single_point_and_a_flat_line_are_seen() -> None:
    assert pixels(chart(Line([3], [0.5], BLUE)), BLUE).any()
    assert pixels(chart(Line([3, 4], [0.5, 0.5], BLUE)), BLUE).any()


def test_dashes_are_less_of_the_same_line() -> None:
    solid, dashed = (
        pixels(chart(Line([0, 1], [1, 1], BLUE, dash), y_range=(0, 2)), BLUE).sum()
        for dash in (False, True)
    )
    assert 0.4 * solid < dashed < 0.8 * solid


def test_a_logarithmic_axis_has_equal_factors_at_equal_distances() -> None:
    line = steps(np.array([0.0, 1.0, 0.0]), np.array([1.0, 10, 100, 1000]), BLUE)
    picture = chart(line, x_range=(1, 1000), y_range=(0, 2), log_x=True)
    top = pixels(picture, BLUE)[TOP + INNER_HEIGHT // 2]
    columns = np.flatnonzero(top)
    assert abs(columns.min() - (LEFT + INNER_WIDTH / 3)) <= 3
    assert abs(columns.max() - (LEFT + 2 * INNER_WIDTH / 3)) <= 3


@pytest.mark.parametrize(
    ("ends", "log", "expected"),
    [
        ((0, 1), False, [0, 0.25, 0.5, 0.75, 1]),
        ((1, 30), False, [10, 20, 30]),
        ((0, 0.03), False, [0, 0.01, 0.02, 0.03]),
        ((0.9, 2500), True, [1, 10, 100, 1000]),
    ],
)
def test_ticks_are_round_numbers(ends, log, expected) -> None:
    ticks = _ticks(*ends, log)
    np.testing.assert_allclose(ticks, expected, atol=1e-12)
    assert not np.signbit(ticks).any()


def test_a_legend_has_every_name_and_breaks_where_it_must() -> None:
    empty = Chart("t", "x", "y", [])
    short = draw_charts([[empty]], {"a": BLUE, "b": RED})
    long = draw_charts([[empty]], {f"a run with a long name {k}": BLUE for k in range(4)})
    assert pixels(short, BLUE).any()
    assert pixels(short, RED).any()
    assert len(long) > len(short) > HEIGHT
    assert draw_charts([[empty, empty], [empty]], {}).shape == (2 * HEIGHT, 2 * WIDTH, 3)
