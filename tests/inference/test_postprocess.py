"""Class maps tidied, and only when it helps."""

import numpy as np
import pytest

from tinyseg.config import IGNORE
from tinyseg.errors import ConfigError
from tinyseg.inference.postprocess import Postprocess, candidates, choose

RNG = np.random.default_rng(0)
DRAWN = """
11111.....
1...1..2..
1.3.1.....
1...1.22..
11111.22.1
"""


def drawn(text: str = DRAWN) -> np.ndarray:
    rows = [[0 if letter == "." else int(letter) for letter in line] for line in text.split()]
    return np.array(rows, np.uint8)


def test_nothing_is_done_unless_asked() -> None:
    for text in ("", "none"):
        assert Postprocess(text)(drawn()) is not None
        np.testing.assert_array_equal(Postprocess(text)(drawn()), drawn())


def test_the_largest_component_of_each_class_stays() -> None:
    found, wanted = Postprocess("largest")(drawn()), drawn()
    wanted[1, 7] = wanted[4, 9] = 0
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.uint8


def test_components_that_are_too_small_go() -> None:
    wanted = drawn()
    wanted[1, 7] = wanted[4, 9] = wanted[2, 2] = 0
    np.testing.assert_array_equal(Postprocess("min_size(pixels=4)")(drawn()), wanted)
    wanted[wanted == 2] = 0
    np.testing.assert_array_equal(Postprocess("min_size(pixels=5)")(drawn()), wanted)


def test_holes_are_filled_but_not_over_another_class() -> None:
    wanted = drawn()
    wanted[1:4, 1:4] = 1
    wanted[2, 2] = 3
    np.testing.assert_array_equal(Postprocess("fill_holes")(drawn()), wanted)


def test_steps_follow_one_another() -> None:
    found = Postprocess("min_size(pixels=2)+fill_holes")(drawn())
    assert (found[:5, :5] == 1).all()


def test_pixels_that_touch_at_a_corner_are_one() -> None:
    diagonal = np.eye(6, dtype=np.uint8)
    np.testing.assert_array_equal(Postprocess("min_size(pixels=6)")(diagonal), diagonal)
    assert not Postprocess("min_size(pixels=7)")(diagonal).any()


def test_of_equal_components_one_stays() -> None:
    assert Postprocess("largest")(drawn("1.1.1")).sum() == 1


@pytest.mark.parametrize("text", ["bigest", "2*largest", "min_size(pixels=0)", "min_size(size=3)"])
def test_what_cannot_be_read_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown|no weight|whole number"):
        Postprocess(text)


def test_what_helps_is_kept() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[10:40, 10:40] = 1
    specks = np.where(RNG.random((64, 64)) < 0.02, 1, label).astype(np.uint8)
    text, before, after = choose([(specks, label)], 2)
    assert text in candidates()
    assert before < 0.97 < after
    np.testing.assert_array_equal(
        Postprocess(text)(specks) == 1, Postprocess("largest")(specks) == 1
    )


def test_what_does_not_help_is_not_kept() -> None:
    label = np.zeros((64, 64), np.uint8)
    label[::4, ::4] = 1  # objects of one pixel: every step would harm
    assert choose([(label, label)], 2) == ("", 1.0, 1.0)
    label[0] = IGNORE
    assert choose([(np.zeros_like(label), label)], 2)[0] == ""
