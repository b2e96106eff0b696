"""The loss probe, compared with values computed by hand."""

from pathlib import Path

import numpy as np
import pytest
from fault import CONFIG, cells
from tinygrad import Tensor

from tinyseg.doctor import Project
from tinyseg.doctor.checks.loss import (
    every_term_counts,
    foreground_counts,
    loss_fits_head,
    right_costs_less,
)
from tinyseg.doctor.experiments.loss_probe import probe_loss
from tinyseg.losses import LOSSES, Function


class Constant:
    """Logits of 0 wherever one looks."""

    out_channels = 1

    def __call__(self, x_bchw: Tensor, training: bool = False) -> Tensor:
        return x_bchw[:, : self.out_channels] * 0


class ConstantTwo(Constant):
    out_channels = 2


def project(
    folder: Path, text: str = "bce", model: object = None, loss: Function | None = None
) -> Project:
    given = CONFIG.override([f"train.loss={text}"])
    return Project(cells(folder, n=24), given, model=model or Constant(), loss=loss)


def test_the_shares_of_cross_entropy_are_those_of_the_pixels(tmp_path: Path) -> None:
    """At probability 1/2 each pixel has the gradient 1/2 / N."""
    examined = project(tmp_path, "0.25*bce+0.75*bce")
    labels = examined.batches(1)[0][1].numpy()
    found = examined.once(probe_loss)
    # 16384 equal numbers, added one by one in float32, are off by 2e-4
    assert found.value["bce"] == pytest.approx(np.log(2), rel=1e-3)
    assert found.gradient["bce"] == pytest.approx(0.5, rel=1e-3)
    assert found.background["bce"] == pytest.approx((labels == 0).mean(), rel=1e-3)
    assert found.value["loss"] == pytest.approx(np.log(2), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ce"])
def test_every_loss_of_ours_is_fit_for_one_channel(name: str, tmp_path: Path) -> None:
    examined = project(tmp_path, name)
    assert not right_costs_less(examined)
    assert not loss_fits_head(examined)
    assert [f.level for f in every_term_counts(examined)] == ["ok"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LOSSES))
def test_and_but_for_bce_for_a_softmax(name: str, tmp_path: Path) -> None:
    examined = project(tmp_path, name, ConstantTwo())
    assert not right_costs_less(examined)
    assert [f.check for f in loss_fits_head(examined)] == ["head and loss"] * (name == "bce")


@pytest.mark.slow
def test_a_loss_that_forgives_false_masks_on_empty_labels_is_reported(tmp_path: Path) -> None:
    def forgiving(logits: Tensor, label: Tensor) -> Tensor:
        kept = (label.max(axis=(1, 2)) > 0).float().reshape(-1, 1, 1)
        losses = logits[:, 0].softplus() - logits[:, 0] * label.float()
        return (losses * kept).mean()

    (found,) = right_costs_less(project(tmp_path, loss=forgiving))
    assert (found.level, found.check) == ("warning", "empty labels")


def test_a_term_without_gradient_is_reported_by_name(tmp_path: Path) -> None:
    examined = project(tmp_path, "bce+0*dice")
    assert [f.level for f in every_term_counts(examined)] == ["ok"]
    (found,) = every_term_counts(project(tmp_path / "2", loss=lambda x, y: (x * 0).mean() + 3))
    assert (found.level, found.check) == ("error", "constant loss")
    assert "always 3" in found.evidence[0]


def test_only_a_loss_without_any_term_for_the_foreground_is_dominated(tmp_path: Path) -> None:
    data = cells(tmp_path, n=24, foreground=0.012, empty=0)
    alone, with_dice = (
        Project(data, CONFIG.override([f"train.loss={loss}"]), model=Constant())
        for loss in ("bce", "auto")
    )
    (found,) = foreground_counts(alone)
    share = (alone.tiles.labels > 0).mean()
    assert f"{np.log(share / (1 - share)):.1f}" in found.remedy
    assert not foreground_counts(with_dice)
