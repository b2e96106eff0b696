"""Labels that are inverted, moved, shuffled or lost; and that are well."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault import CONFIG, cells
from healthy import SHARED, simulated
from PIL import Image
from planted_data import change, masks

from tinyseg.config import IGNORE, Config
from tinyseg.doctor import Project, diagnose
from tinyseg.doctor.checks.data import input_range, validation_looks_alike
from tinyseg.doctor.checks.labels import (
    classes_survive_resizing,
    foreground_share,
    labels_are_in_place,
    labels_match_images,
    surrounds,
)


def loud(project: Project) -> list[str]:
    found = diagnose(project, ("data", "labels", "pipeline")).findings
    return [f"{f.level} {f.check}: {f.seen}" for f in found if f.level in ("error", "warning")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cells", "ultrasound", "membranes", "shapes"])
@pytest.mark.parametrize("knobs", [{"noise": 1.5}, {"contrast": 0.6}, {"foreground": 0.05}])
def test_simulated_labels_are_well(kind: str, knobs: dict[str, Any]) -> None:
    text = "&".join(f"{name}={value}" for name, value in knobs.items())
    project = Project(f"sim:{kind}?n=40&size=64&seed=3&{text}", CONFIG)
    assert loud(project) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("busi", {"color", "contradiction"}),
        ("isbi2012", set()),
        ("isbi2012?foreground=cell", set()),
        ("camvid", set()),
        ("pets", set()),
    ],
)
def test_real_labels_are_well(source: str, right: set[str], shared_data: Path) -> None:
    name, _, options = source.partition("?")
    project = Project(f"{name}:{SHARED / name}" + (f"?{options}" if options else ""), Config())
    assert [line for line in loud(project) if line.split()[1].rstrip(":") not in right] == []


def test_too_few_labels_show_nothing(tmp_path: Path) -> None:
    data = cells(tmp_path, n=5, empty=0)
    paths = masks(data)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert not labels_match_images(Project(data, CONFIG))


def test_a_shift_is_reported_in_pixels_of_the_network_input(tmp_path: Path) -> None:
    data = cells(tmp_path)
    change(data, lambda mask: np.roll(mask, (5, 0), (0, 1)))
    (found,) = labels_are_in_place(Project(data, CONFIG))
    assert (found.level, found.check) == ("error", "moved")
    assert "shifted 5 pixels down and 0 pixels " in found.seen
    assert found.picture is not None


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (lambda m: m.__setitem__((slice(8, 12), slice(8, 12)), 1), False),
        (lambda m: (m.fill(1), m.__setitem__((slice(8, 12), slice(8, 12)), 0)), True),
        (lambda m: m.fill(1), None),
        (lambda m: None, None),
        (lambda m: m.fill(IGNORE), None),
        # half a picture is no island
        (lambda m: (m.fill(1), m.__setitem__(slice(0, 8), 0)), False),
        # a border that is ignored is not there
        (
            lambda m: (
                m.fill(IGNORE),
                m.__setitem__((slice(2, 18), slice(2, 18)), 1),
                m.__setitem__((slice(8, 12), slice(8, 12)), 0),
            ),
            True,
        ),
    ],
)
def test_what_surrounds_islands(marks: Any, expected: bool | None) -> None:
    mask = np.zeros((20, 20), np.uint8)
    marks(mask)
    assert surrounds(mask) is expected


def test_classes_lost_by_resizing_are_reported(tmp_path: Path) -> None:
    """Lines of one pixel that nearest neighbours step over."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        mask = np.zeros((256, 256), np.uint8)
        mask[::8] = 255
        mask[4::8, ::9] = 255
        image = rng.integers(0, 99, mask.shape).astype(np.uint8) + mask // 2
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    found = classes_survive_resizing(Project(tmp_path, CONFIG.override(["data.size=32"])))
    assert found[0].check in ("lost classes", "labels")
    project = Project(tmp_path, CONFIG.override(["data.size=32"]))
    share = float((project.tiles.labels == 1).mean())
    assert (found[0].check == "lost classes") == (share < 0.139 / 2)


def test_advice_on_the_loss_is_of_the_share(tmp_path: Path) -> None:
    project = Project(cells(tmp_path), CONFIG)
    share = (project.tiles.labels > 0).mean()
    (found,) = foreground_share(project)
    assert f"{share:.2%}" in found.seen
    assert any(f"{np.log(share / (1 - share)):.2f}" in line for line in found.evidence)


def test_validation_from_another_device_is_reported(tmp_path: Path) -> None:
    data = cells(tmp_path, n=40)
    for path in sorted((data / "images").iterdir())[32:]:
        dark = np.array(Image.open(path)).astype(float) * 0.4
        Image.fromarray(dark.astype(np.uint8)).save(path)
    names = sorted(path.stem for path in (data / "images").iterdir())
    from planted_data import split_file

    settings = [split_file(data, names[:32], names[32:])]
    (found,) = validation_looks_alike(Project(data, CONFIG.override(settings)))
    assert (found.level, found.check) == ("warning", "drift")
    assert not validation_looks_alike(simulated("cells")(tmp_path / "well"))


def test_inputs_far_from_their_range_are_reported(tmp_path: Path) -> None:
    data = cells(tmp_path)
    for settings, level in (
        ("none", "ok"),
        ("dataset", "ok"),
        ("fixed(mean=[0],std=[9])", "warning"),
    ):
        (found,) = input_range(Project(data, CONFIG.override([f"data.normalize={settings}"])))
        assert found.level == level, found.seen
