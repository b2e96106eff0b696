"""Augmentation as text: what is read, what is written again, what is refused in one line."""

import pytest

from tinyseg.augment import PRESETS, TRANSFORMS, Augmentation
from tinyseg.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("none", "none"),
        (" flip ", "flip"),
        ("0.5*rotate(degrees=15)+flip(vertical=false)", "flip(vertical=false)+0.5*rotate"),
        ("scale(high=2) + 1*translate", "scale(high=2)+translate"),
        ("elastic(deviation=0.1)+noise(deviation=0.3)", "elastic(std=0.1)+noise(std=0.3)"),
    ],
)
def test_texts_have_one_canonical_form(text: str, canonical: str) -> None:
    assert Augmentation(text).text == canonical
    assert Augmentation(canonical).text == canonical


@pytest.mark.parametrize("name", [*PRESETS, "trivial", *TRANSFORMS])
def test_every_name_can_be_used_by_itself(name: str) -> None:
    made = Augmentation(name)
    assert made.state
    assert Augmentation(made.text).terms == made.terms


def test_a_preset_may_be_joined_with_more() -> None:
    assert "+reflect+" in Augmentation("light+reflect").text
    assert Augmentation("trivial+flip").text == "flip+trivial"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "an example: flip+0.5*rotate(degrees=15)"),
        ("flop", "unknown transform 'flop'; known: crop, flip"),
        ("flip+flip", "flip is in it twice"),
        ("light+rotate", "rotate is in it twice"),
        ("none+flip", "'none' means no augmentation"),
        ("2*flip", "a probability is above 0 and at most 1"),
        ("0*flip", "a probability is above 0"),
        ("0.5*light", "has no probability"),
        ("0.5*trivial", "has no probability"),
        ("trivial+rotate", "rotate is in it twice"),
        ("blur(sigma=2)", "unknown argument 'sigma'"),
        ("elastic(grid=1)", "grid=1 cannot be used: give a whole number of nodes, 2 to 16"),
        ("elastic(grid=3.5)", "grid=3.5 cannot be used: give a whole number"),
        ("blur(low=2,high=1)", "low=2 is above high=1"),
        ("noise(std=nan)", "give"),
        ("light(x=1)", "unknown argument 'x'"),
        ("0.5*reflect", "has no probability"),
        ("rotate(degrees=200)", "degrees=200 cannot be used: give 0 to 180"),
        ("scale(low=0)", "low=0 cannot be used"),
        ("flip(vertical=1)", "give true or false"),
    ],
)
def test_what_cannot_be_used_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Augmentation(text)
    assert says in str(caught.value)
