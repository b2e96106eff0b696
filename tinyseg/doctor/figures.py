"""What the doctor found, as pictures."""

from collections.abc import Sequence

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.data import Dataset
from tinyseg.doctor.experiments.memorization import Lesson
from tinyseg.doctor.project import Project
from tinyseg.drawing.pictures import (
    FALSE,
    HIT,
    color_image,
    draw_grid,
    draw_lines,
    legend_of,
    overlay,
    row,
)
from tinyseg.evaluation.score import score_run
from tinyseg.inference.predictor import to_classes
from tinyseg.inference.run import Run
from tinyseg.runs.metrics_log import Epoch

MOST, SIDE = 6, 160
"""Rows of a picture, and pixels of each of its parts."""


def lesson_picture(project: Project, lesson: Lesson) -> Array:
    """The images of a lesson as learned: image, label, probability, prediction."""
    squares, classes = project.squares, project.dataset.classes
    rows, captions = [], []
    triples = zip(lesson.squares, lesson.names, lesson.scores.dice, strict=True)
    for place, (square, name, dice) in list(enumerate(triples))[:MOST]:
        p_khw = lesson.scores.probabilities[place]
        prediction = to_classes(p_khw, lesson.threshold)
        rows.append(row(squares[square].pixels, squares.labels[square], p_khw, prediction, classes))
        captions.append(f"{name}: Dice {dice:.3f}")
    return draw_grid(rows, captions, side=SIDE, legend=legend_of(project.dataset.class_names))


def run_picture(run: Run, dataset: Dataset, names: Sequence[str], captions: Sequence[str]) -> Array:
    """Images as a run predicts them: image, label, probability, prediction."""
    rows = [
        row(one.sample.image, one.label, one.probability, one.mask, dataset.classes)
        for one in score_run(run, dataset, names[:MOST])
    ]
    return draw_grid(rows, captions[:MOST], side=SIDE, legend=legend_of(dataset.class_names))


def curve_picture(epochs: Sequence[Epoch]) -> Array:
    """Loss, and Dice of training and validation, over the epochs."""
    numbers = [epoch["epoch"] for epoch in epochs]
    loss, train, val = ([e[name] for e in epochs] for name in ("loss", "train_dice", "val_dice"))
    panels = [
        draw_lines("loss", numbers, {"training": (loss, FALSE)}, low=0.0),
        draw_lines("Dice", numbers, {"training": (train, FALSE), "validation": (val, HIT)}, 0.0, 1),
    ]
    return np.concatenate(panels, axis=1)


def label_picture(project: Project, squares: Sequence[int]) -> Array:
    """Images beside themselves with their labels drawn over, as the network gets them."""
    classes = project.dataset.classes
    rows = []
    for square in squares[:MOST]:
        image, label = color_image(project.squares[square].pixels), project.squares.labels[square]
        drawn = overlay(image, np.asarray(label), classes, SIDE)
        rows.append([image, drawn])
    captions = [project.name_of(square) for square in squares[:MOST]]
    return draw_grid(rows, captions, ("image", "label over it"), side=SIDE)
