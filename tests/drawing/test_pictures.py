from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.drawing.pictures import (
    FN,
    FP,
    OUTCOMES,
    TP,
    color_classes,
    color_image,
    color_map,
    color_outcomes,
    color_probability,
    palette,
    row,
    save_grid,
    write_png,
)

RNG = np.random.default_rng(0)


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.array(image.convert("RGB"))


def picture(height: int, width: int, color: tuple[int, int, int] = (200, 30, 30)) -> np.ndarray:
    return np.full((height, width, 3), color, np.uint8)


@pytest.mark.parametrize("classes", [2, 3, 5, 9, 10, 21, 64])
def test_only_the_background_is_black(classes: int) -> None:
    colors = palette(classes)
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    assert not colors[0].any()
    assert colors[1:].any(axis=1).all(), "a class that looks like the background"


def test_the_first_classes_and_the_ignored_have_colors_of_their_own() -> None:
    assert palette(2)[1].tolist() == [255, 255, 255]
    several = palette(9)
    assert len({tuple(color) for color in [*several[:9], several[255]]}) == 10
    assert palette(2)[255].tolist() == several[255].tolist() == [110, 110, 110]


def test_classes_to_colors() -> None:
    colors = color_classes(np.array([[0, 1], [255, 1]], np.uint8), 2)
    assert colors.tolist() == [[[0] * 3, [255] * 3], [[110] * 3, [255] * 3]]


def test_images_of_both_kinds_to_colors() -> None:
    grey = np.array([[[0], [128]]], np.uint8)
    assert color_image(grey).tolist() == [[[0] * 3, [128] * 3]]
    rgb = RNG.integers(0, 256, (2, 3, 3), dtype=np.uint8)
    np.testing.assert_array_equal(color_image(rgb), rgb)
    deep = np.array([[[0.5], [1.0]], [[-1.0], [7.0]]], np.float32)
    assert color_image(deep)[..., 0].tolist() == [[128, 255], [0, 255]]


def test_probability_runs_from_violet_to_yellow_and_gets_brighter() -> None:
    colors = color_map()
    assert colors[[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]
    luma = colors @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luma) > -0.3).all(), "it can be read without colors"
    one = np.array([[[0.0, 0.5, 1.0]]], np.float32)
    np.testing.assert_array_equal(color_probability(one)[0], colors[[0, 128, 255]])
    three = np.array([[[0.2]], [[0.5]], [[0.3]]], np.float32)  # of any class but 0
    np.testing.assert_array_equal(color_probability(three)[0], colors[[204]])


def test_outcomes_lie_over_the_image() -> None:
    label = np.array([[1, 0, 1, 0, 255]], np.uint8)
    prediction = np.array([[1, 1, 0, 0, 1]], np.uint8)
    image = np.full((1, 5, 3), 100, np.uint8)
    shown = color_outcomes(image, label, prediction)[0].astype(float)
    colors = np.array([TP, FP, FN, (100, 100, 100), (110, 110, 110)], float)
    weights = np.array([0.65, 0.65, 0.65, 0, 0.5])[:, None]
    np.testing.assert_allclose(shown, 100 * (1 - weights) + colors * weights, atol=0.5)


def test_a_legend_is_added_below_and_breaks_where_it_must(tmp_path: Path) -> None:
    names = {f"class {k}": tuple(color) for k, color in enumerate(palette(11)[:11].tolist())}
    heights = {}
    for name, legend in (("without", None), ("short", dict(OUTCOMES)), ("long", names)):
        rows = [[picture(9, 9)] * 4]
        save_grid(tmp_path / f"{name}.png", rows, [""], side=64, legend=legend)
        heights[name] = len(opened(tmp_path / f"{name}.png"))
    assert heights["without"] < heights["short"] < heights["long"]
    below = opened(tmp_path / "short.png")[heights["without"] :]
    for color in (*OUTCOMES.values(), *color_map()[[1, 255]].tolist()):
        assert (below == color).all(axis=2).any()


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_row_is_four_pictures_of_one_size(labeled: bool, classes: int) -> None:
    prediction = RNG.integers(0, 2, (5, 7), dtype=np.uint8)
    label = prediction if labeled else None
    image, p_khw = RNG.random((5, 7, 1), np.float32), RNG.random((1, 5, 7), np.float32)
    pictures = row(image, label, p_khw, prediction, classes)
    assert [(p.shape, p.dtype) for p in pictures] == [((5, 7, 3), np.uint8)] * 4
    flat = color_classes(prediction, classes)
    np.testing.assert_array_equal(pictures[1], flat if labeled else 0 * flat)
    over = labeled and classes == 2
    shown = color_outcomes(pictures[0], prediction, prediction) if over else flat
    np.testing.assert_array_equal(pictures[3], shown)


@pytest.mark.parametrize(("rows", "columns", "side"), [(1, 1, 32), (3, 4, 64), (0, 4, 20)])
def test_the_grid_has_the_announced_size(
    tmp_path: Path, rows: int, columns: int, side: int
) -> None:
    pictures = [[picture(9, 5)] * columns for _ in range(rows)]
    titles = [f"t{column}" for column in range(columns)]
    save_grid(tmp_path / "grid.png", pictures, ["caption"] * rows, titles, side)
    shape = (18 + 6 + rows * (side + 24), columns * (side + 6) + 6, 3)
    assert opened(tmp_path / "grid.png").shape == shape


@pytest.mark.parametrize(("height", "width"), [(10, 10), (40, 10), (7, 100), (1, 3000), (3000, 1)])
def test_tiles_keep_their_aspect_and_stay_in_their_cell(
    tmp_path: Path, height: int, width: int
) -> None:
    save_grid(tmp_path / "grid.png", [[picture(height, width)] * 2], [""], ("a", "b"), 64)
    sheet = opened(tmp_path / "grid.png")
    red = (sheet == (200, 30, 30)).all(axis=2)
    for left in (6, 76):
        cell = red[24:88, left : left + 64]
        seen_rows, seen_columns = cell.any(axis=1).sum(), cell.any(axis=0).sum()
        assert max(seen_rows, seen_columns) == 64
        assert seen_rows == max(1, round(64 * height / max(height, width)))
        assert seen_columns == max(1, round(64 * width / max(height, width)))
    assert red.sum() == 2 * seen_rows * seen_columns, "nothing outside of the cells"


def test_label_edges_stay_sharp(tmp_path: Path) -> None:
    label = np.zeros((8, 8, 3), np.uint8)
    label[2:5, 3:7] = 255
    save_grid(tmp_path / "grid.png", [[label, label]], [""], ("image", "label"), 50)
    sheet = opened(tmp_path / "grid.png")
    assert set(np.unique(sheet[24:74, 62:112])) == {0, 255}
    assert len(np.unique(sheet[24:74, 6:56])) > 2, "images are smooth"


@pytest.mark.parametrize("caption", ["", "Größe µ", "日本語", "a\nb\tc", "\ud800", "x" * 999, "😀"])
def test_odd_captions_are_drawn(tmp_path: Path, caption: str) -> None:
    save_grid(tmp_path / "grid.png", [[picture(4, 4)]], [caption], ("image",), 64)
    assert opened(tmp_path / "grid.png").shape == (18 + 6 + 88, 76, 3)


def test_a_caption_is_seen_below_its_row(tmp_path: Path) -> None:
    for name, caption in (("with", "cells/7: Dice 0.9"), ("without", "")):
        save_grid(tmp_path / f"{name}.png", [[picture(64, 64)]], [caption], ("image",), 64)
    changed = (opened(tmp_path / "with.png") != opened(tmp_path / "without.png")).any(axis=(1, 2))
    assert changed.any()
    assert np.flatnonzero(changed).min() >= 24 + 64


def test_each_row_needs_a_caption(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shorter"):
        save_grid(tmp_path / "grid.png", [[picture(4, 4)]] * 2, ["one"])


def test_a_png_is_written_whole_into_a_new_folder(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    write_png(tmp_path / "new" / "file.png", Image.fromarray(pixels))
    np.testing.assert_array_equal(opened(tmp_path / "new" / "file.png"), pixels)
    assert len(list((tmp_path / "new").iterdir())) == 1
