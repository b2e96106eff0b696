"""Means of predictions: views go back in place, pixelwise networks do not notice."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tinyseg.config import Config
from tinyseg.errors import ConfigError, RunError
from tinyseg.inference.tta import (
    AveragedViews,
    Ensemble,
    View,
    choose_views,
    combine_runs,
    parse_tta,
    trained_views,
)

RNG = np.random.default_rng(0)
IMAGES = [
    RNG.integers(0, 256, shape, dtype=np.uint8) for shape in ((6, 9, 1), (5, 5, 1), (8, 3, 1))
]
TEXTS = ["flips", "rotations", "flips+rotations", "hflip", "vflip", "scales", "rotations+scales"]


def pixelwise(images: Iterable[np.ndarray], watch: object = None) -> Iterator[np.ndarray]:
    """Two at a time, as a predictor of batches does."""
    waiting: list[np.ndarray] = []
    for image in images:
        if callable(watch):
            watch(image)
        waiting.append(image.transpose(2, 0, 1).astype(np.float32) / 255)
        if len(waiting) == 2:
            yield from waiting
            waiting = []
    yield from waiting


def bias(images: Iterable[np.ndarray], watch: object = None) -> Iterator[np.ndarray]:
    """A network that sees more in the upper left of whatever it is shown."""
    for image in images:
        rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
        yield (image[..., 0] / 1000 + rows * 0.05 + cols * 0.01)[None].astype(np.float32)


@pytest.mark.parametrize("text", TEXTS[:5])
def test_a_pixelwise_network_does_not_notice(text: str) -> None:
    found = list(AveragedViews(pixelwise, parse_tta(text))(IMAGES))
    assert len(found) == len(IMAGES)
    for p_khw, image in zip(found, IMAGES, strict=True):
        np.testing.assert_allclose(p_khw[0], image[..., 0] / 255, atol=1e-6)
        assert p_khw.dtype == np.float32


@pytest.mark.parametrize("text", TEXTS)
def test_a_view_and_back_is_the_image(text: str) -> None:
    row, col = np.mgrid[:40, :60].astype(np.float32)
    smooth = (np.sin(row / 15) + col / 60)[..., None].astype(np.float32)
    for view in parse_tta(text):
        back = view.back(view.of(smooth).transpose(2, 0, 1), 40, 60)
        assert back.shape == (1, 40, 60)
        atol = 0 if view.scale == 1 else 0.03
        np.testing.assert_allclose(back[0], smooth[..., 0], atol=atol)


def test_the_mean_over_views_is_that_of_each_by_hand() -> None:
    image = IMAGES[0]
    undo = {
        (): lambda p: p,
        (0,): lambda p: p[:, ::-1],
        (1,): lambda p: p[:, :, ::-1],
        (0, 1): lambda p: p[:, ::-1, ::-1],
    }
    every = [back(next(bias([np.flip(image, axes)]))) for axes, back in undo.items()]
    (found,) = AveragedViews(bias, parse_tta("flips"))([image])
    np.testing.assert_allclose(found, np.mean(every, axis=0), atol=1e-6)
    assert not np.allclose(found, every[0], atol=1e-3)


def test_views_are_all_different() -> None:
    counts = [len(set(parse_tta(text))) for text in TEXTS]
    assert counts == [4, 4, 8, 2, 2, 3, 12]
    shown = {view.of(IMAGES[1]).tobytes() for view in parse_tta("flips+rotations")}
    assert len(shown) == 8


def test_the_mean_of_several_and_each_image_is_seen_once() -> None:
    half: Callable[..., Iterator[np.ndarray]] = lambda images, watch=None: (  # noqa: E731
        p / 2 for p in pixelwise(images, watch)
    )
    seen: list[np.ndarray] = []
    views = parse_tta("flips")
    both = Ensemble([AveragedViews(pixelwise, views), AveragedViews(half, views)])
    found = list(both(iter(IMAGES), seen.append))
    assert [image.shape for image in seen] == [image.shape for image in IMAGES]
    for p_khw, image in zip(found, IMAGES, strict=True):
        np.testing.assert_allclose(p_khw[0], image[..., 0] / 255 * 0.75, atol=1e-6)


def stub(folder: str, **facts: object) -> SimpleNamespace:
    facts = {"channels": 1, "classes": 2, "label_map": {0: 0, 255: 1}, **facts}
    told = SimpleNamespace(**facts)
    return SimpleNamespace(folder=Path(folder), facts=told, config=Config(), predictor=pixelwise)


def test_runs_that_do_not_agree_are_refused() -> None:
    with pytest.raises(
        RunError, match="b: its channels is 3, that of a is 1; only runs that agree"
    ):
        combine_runs([stub("a"), stub("b", channels=3)])
    with pytest.raises(RunError, match="b: its label map is"):
        combine_runs([stub("a"), stub("b", label_map={0: 1, 255: 0})])
    assert combine_runs([stub("a")]) is pixelwise


@pytest.mark.parametrize("text", ["flip", "flips+", "all", "+"])
def test_an_unknown_view_is_one_line(text: str) -> None:
    with pytest.raises(
        ConfigError, match="known: hflip, vflip, rot90, flips, rotations, scales, auto"
    ):
        parse_tta(text)


def test_scales_need_windows() -> None:
    with pytest.raises(ConfigError, match=r"change nothing with data\.fit=resize"):
        combine_runs([stub("a")], "flips+scales")
    assert View() == parse_tta("rotations")[0]


def test_a_flip_by_name_is_that_flip() -> None:
    image = IMAGES[0]
    for text, axis in (("hflip", 1), ("vflip", 0)):
        shown = [view.of(image) for view in parse_tta(text)]
        np.testing.assert_array_equal(shown[0], image)
        np.testing.assert_array_equal(shown[1], np.flip(image, axis))


@pytest.mark.parametrize(
    ("augment", "views"),
    [
        ("none", set()),
        ("medium", {"hflip"}),
        ("flip(horizontal=false)", {"vflip"}),
        ("flip", {"hflip", "vflip"}),
        ("rotate90", {"rot90"}),
        ("medium+rotate90", {"hflip", "vflip", "rot90"}),
        ("rotate(degrees=30)", set()),
    ],
)
def test_the_views_of_training_are_those_of_its_augmentation(augment: str, views: set[str]) -> None:
    assert trained_views(augment) == views


def trained(text: str, **custom: str) -> Any:
    config = SimpleNamespace(train=SimpleNamespace(augment=text))
    return SimpleNamespace(config=config, facts=SimpleNamespace(custom=custom))


def test_auto_takes_what_all_runs_were_trained_with() -> None:
    said: list[str] = []
    assert choose_views("auto", [trained("flip"), trained("medium")], said.append) == "hflip"
    assert choose_views("auto", [trained("flip", augment="Mine")], said.append) == ""
    assert said == [
        "--tta auto: hflip",
        "--tta auto: no view, because train.augment has no flip or quarter turn",
    ]


def test_views_that_training_never_showed_are_warned_of() -> None:
    said: list[str] = []
    assert choose_views("flips", [trained("medium")], said.append) == "flips"
    assert choose_views("hflip", [trained("medium")], said.append) == "hflip"
    (warning,) = said
    assert "training never showed images as vflip" in warning
    with pytest.raises(ConfigError, match="known: hflip, vflip, rot90"):
        choose_views("flip", [trained("medium")], said.append)
