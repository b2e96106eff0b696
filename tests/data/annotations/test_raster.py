"""Polygons and run lengths against pycocotools 2.0 and a float64 point-in-polygon test."""

import numpy as np
import pytest

from tinyseg.data.annotations.raster import decode_runs, fill_polygons

SIZE = (24, 32)
GOLDEN = (
    # outlines and what pycocotools.mask.frPyObjects makes of them at 24 x 32
    ([21.0, 32.0, 27.0, 5.0, 8.0, 31.0], "_:1f01O1N2O1O1N2O1N2O1ON1M4M3Lg3"),
    (
        [-3.8, 28.8, 27.9, 14.7, 8.1, 7.1, 6.2, 13.8],
        "f02e01N2O1N2O1N2L4N12O000O2O0O2O0O101N10001N101N100O2O0O[3",
    ),
    (
        [16.0, 18.0, 36.0, 28.0, 21.0, 36.0, 5.0, 2.0, 21.0, -2.0],
        "j31g02M3N2N2N3L3N2N2N2Nb00ZO5K4L5K401O001O001O00Q3",
    ),
    (
        [-2.6, 16.6, 14.6, 32.7, 21.2, 16.6, 15.9, 5.9, -3.5, 3.7, 23.7,
          4.0, 10.8, -3.9, 29.2, 2.2],
        "?4d01N2EJ27MI29MG3:LF3;ME3;ME3;ME2<ND2<ND1=OD0<0DO=1CO=1CN>2CM=3CN=1C19ME2235MJO071M0KOa01"
        "_ONb041N100O2On2",
    ),
    (
        [13.6, 5.6, 12.1, -0.1, 34.7, 4.6, 22.9, 8.0, 31.0, 22.5],
        "P91g04L100O1O1O1O100O1O1OJE0:0HO8OJ15OM0200OO04OL06OI1?0L",
    ),
)  # fmt: skip


def filled(*outlines, size=SIZE):
    mask = np.zeros(size, np.uint8)
    arrays = [np.array(outline, np.float64).reshape(-1, 2) for outline in outlines]
    fill_polygons(arrays, size).paint(mask, 1)
    return mask.astype(bool)


def inside(outline, size):
    """Even-odd at pixel centers in float64, and how far each center lies from the outline."""
    a = np.array(outline, np.float64).reshape(-1, 1, 1, 2)
    b = np.roll(a, -1, axis=0)
    center = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in size[::-1])), axis=2)[None]
    over = (a[..., 1] > center[..., 1]) != (b[..., 1] > center[..., 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        x = a[..., 0] + (center[..., 1] - a[..., 1]) / (b - a)[..., 1] * (b - a)[..., 0]
        t = ((center - a) * (b - a)).sum(3) / ((b - a) ** 2).sum(3)
    near = a + np.clip(np.nan_to_num(t), 0, 1)[..., None] * (b - a)
    return (over & (center[..., 0] < x)).sum(0) % 2 == 1, np.sqrt(
        ((center - near) ** 2).sum(3)
    ).min(0)


@pytest.mark.parametrize(("outline", "runs"), GOLDEN)
def test_equal_to_pycocotools(outline, runs):
    np.testing.assert_array_equal(filled(outline), decode_runs(runs, SIZE))


def test_even_odd_at_pixel_centers():
    rng = np.random.default_rng(0)
    for corners in range(3, 40):
        size = tuple(rng.integers(1, 50, 2))
        outline = rng.uniform(-10, 60, 2 * corners)
        wanted, distance = inside(outline, size)
        sure = distance > 0.3  # corners are rounded to a fifth of a pixel
        np.testing.assert_array_equal(filled(outline, size=size)[sure], wanted[sure])


def test_shared_edges_neither_overlap_nor_leave_a_gap():
    rng = np.random.default_rng(1)
    for _ in range(20):
        left, right, a, b = ((0, 0), (32, 24), *rng.uniform(0, 24, (2, 2)))
        one, other = [*left, *a, *b, *right, 32, 0], [*left, *a, *b, *right, 0, 24]
        assert (filled(one).astype(int) + filled(other) == 1).all()


def test_an_outline_inside_another_is_a_hole():
    square, hole = [4, 4, 20, 4, 20, 20, 4, 20], [8, 8, 16, 8, 16, 16, 8, 16]
    wanted = np.zeros(SIZE, bool)
    wanted[4:20, 4:20], wanted[8:16, 8:16] = True, False
    np.testing.assert_array_equal(filled(square, hole), wanted)


def test_run_lengths_go_down_the_columns():
    assert decode_runs([1, 2, 3], (2, 3)).tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize(
    "runs", [[1, 2], [7], [-1, 7], [1 << 40, 5], "", "~~", "o", "\u20ac", "oooooooooo0"]
)
def test_run_lengths_that_do_not_fit(runs):
    with pytest.raises(ValueError, match="run length"):
        decode_runs(runs, (2, 3))


def test_an_endless_outline_is_refused():
    zigzag = np.tile([0.0, 0.0, 0.0, 40_000.0], 1000)
    with pytest.raises(ValueError, match="too long"):
        filled(zigzag)
