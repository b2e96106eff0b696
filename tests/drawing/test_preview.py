"""The preview: a tile for every image and transform, labels drawn over, in one PNG."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.augment import TRANSFORMS
from tinyseg.config import Config
from tinyseg.drawing import preview as module
from tinyseg.drawing.pictures import overlay
from tinyseg.drawing.preview import preview
from tinyseg.errors import DataError

DATA = "sim:cells?n=6&size=32&seed=1"


def test_the_titles_are_all_transforms_alone_then_sums() -> None:
    texts = module._texts("0.2*rotate(degrees=5)+reflect")
    assert list(texts)[:-5] == [name for name in TRANSFORMS if name != "reflect"]
    assert list(texts)[-5:] == ["train.augment", "light", "medium", "strong", "trivial"]
    assert texts["rotate"] == "rotate(degrees=5)"
    assert "train.augment" not in module._texts("none")


def test_a_preview_shows_every_image_in_every_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_texts", lambda augment: {"flip": "flip", "sum": augment})
    config = Config().override(
        ["data.size=32", "train.augment=rotate90+brightness", "train.seed=3"]
    )
    out = tmp_path / "new" / "p.png"
    preview(DATA, out, config, ("2",))
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (24 + 2 * 216, 6 + 3 * 198, 3)
    tiles = [
        [sheet[24 + r * 216 : 216 + r * 216, 6 + c * 198 : 198 + c * 198] for c in range(3)]
        for r in range(2)
    ]
    for row in tiles:
        assert all(tile.std() > 5 for tile in row)
        flips = (row[0], row[0][::-1], row[0][:, ::-1], row[0][::-1, ::-1])
        # outlines and stripes are drawn from the upper left, so a mirrored tile differs by them
        assert min(np.abs(f.astype(int) - row[1]).mean() for f in flips) < 4
    before = out.read_bytes()
    preview(DATA, out, config, ("2",))
    assert out.read_bytes() == before


def test_images_are_chosen_by_name_or_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sample 'nobody'"):
        preview(DATA, tmp_path / "p.png", None, ("nobody", "cells_0001"))
    with pytest.raises(DataError, match="--images 0: give at least 1"):
        preview(DATA, tmp_path / "p.png", None, ("0",))
    with pytest.raises(DataError, match="give at most 16"):
        preview("sim:cells?n=40&size=32&empty=0", tmp_path / "p.png", None, ("40",))
    assert not list(tmp_path.iterdir())


def test_an_overlay_tints_classes_outlines_them_and_darkens_what_is_ignored() -> None:
    image = np.full((8, 8, 3), 100, np.uint8)
    label = np.zeros((8, 8), np.uint8)
    label[:4, :4], label[6:] = 1, 255
    made = overlay(image, label, 2, 64)
    assert made.shape == (64, 64, 3)
    assert (made[40, 40] == 100).all()  # background is left alone
    assert made[16, 16].tolist() == [135, 132, 92]  # a quarter of yellow (240, 228, 66)
    assert made[8, 31].tolist() == [135, 132, 92]
    assert made[32, 10].tolist() == [100, 100, 100]
    assert made[0:32, 0].mean() > made[40, 40].mean()
    assert made[50:, :].mean() < 60
