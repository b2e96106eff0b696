"""The table that `tinyseg evaluate` prints."""

import numpy as np
import pytest

from tinyseg.evaluate import Evaluation
from tinyseg.metrics import baselines, evaluate_image, summarise


def evaluation(label: np.ndarray, prediction: np.ndarray, names: tuple[str, ...]) -> Evaluation:
    classes = len(names)
    images = (evaluate_image(prediction, label, classes, surface=False),)
    grey = [np.zeros((*label.shape, 1), np.uint8)]
    found = baselines(grey, [label], grey, [label], classes)
    return Evaluation("val", ("a",), images, summarise(images), tuple(found), names)


def test_every_class_has_its_line_where_there_are_several() -> None:
    label = np.array([[0, 0, 1, 1], [2, 2, 2, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 0], [2, 2, 2, 1]], np.uint8)
    found = evaluation(label, prediction, ("sky", "pole", "road"))
    lines = found.table().splitlines()
    scores = {line[:28].strip(): line[28:].split() for line in lines if line.startswith("  ")}
    dice, iou = [4 / 5, 2 / 3, 1.0], [2 / 3, 1 / 2, 1.0]
    for name, *wanted in zip(("sky", "pole", "road"), dice, iou, strict=True):
        assert [float(text) for text in scores[name]] == pytest.approx(wanted, abs=1e-4)
    means = [float(text) for text in scores["mean of all classes"]]
    assert means == pytest.approx([np.mean(dice), np.mean(iou)], abs=1e-4)
    assert found.to_dict()["classes"] == ("sky", "pole", "road")


def test_two_classes_need_no_lines_of_their_own() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    assert "pet" not in evaluation(label, label, ("background", "pet")).table()
