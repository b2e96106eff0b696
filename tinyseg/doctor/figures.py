"""The pictures of findings."""

from collections.abc import Sequence

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.data import Dataset
from tinyseg.doctor.experiments.memorization import Outcome
from tinyseg.doctor.project import Project
from tinyseg.drawing.charts import draw_charts
from tinyseg.drawing.pictures import (
    color_image,
    draw_grid,
    legend_of,
    overlay,
    row,
)
from tinyseg.drawing.plots import training_charts
from tinyseg.evaluation.score import score_run
from tinyseg.inference.predictor import to_classes
from tinyseg.inference.run import Run
from tinyseg.runs.metrics_log import Epoch

MAX_ROWS, SIDE = 6, 160
"""Rows of a picture, and pixels per side of each of its parts."""


def memorization_picture(project: Project, outcome: Outcome) -> Array:
    """Draw the images of a memorization test: image, label, probability, prediction."""
    tiles, classes = project.tiles, project.dataset.classes
    rows, captions = [], []
    for number, tile in enumerate(outcome.tiles[:MAX_ROWS]):
        p_khw = outcome.scores.probabilities[number]
        prediction = to_classes(p_khw, outcome.threshold)
        rows.append(row(tiles[tile].pixels, tiles.labels[tile], p_khw, prediction, classes))
        captions.append(f"{outcome.names[number]}: Dice {outcome.scores.dice[number]:.3f}")
    return draw_grid(rows, captions, side=SIDE, legend=legend_of(project.dataset.class_names))


def run_picture(run: Run, dataset: Dataset, names: Sequence[str], captions: Sequence[str]) -> Array:
    """Draw images as a run predicts them: image, label, probability, prediction."""
    rows = [
        row(one.sample.image, one.label, one.probability, one.mask, dataset.classes)
        for one in score_run(run, dataset, names[:MAX_ROWS])
    ]
    return draw_grid(rows, captions[:MAX_ROWS], side=SIDE, legend=legend_of(dataset.class_names))


def curve_picture(epochs: Sequence[Epoch]) -> Array:
    """Draw the loss, and the Dice of training and validation, over the epochs."""
    return draw_charts([training_charts([epochs])], {})


def label_picture(project: Project, tiles: Sequence[int]) -> Array:
    """Draw tiles next to themselves with their labels drawn on them."""
    tiles, rows = tiles[:MAX_ROWS], []
    for tile in tiles:
        image, label = color_image(project.tiles[tile].pixels), project.tiles.labels[tile]
        rows.append([image, overlay(image, np.asarray(label), project.dataset.classes, SIDE)])
    captions = [project.name_of(tile) for tile in tiles]
    return draw_grid(rows, captions, ("image", "label on the image"), side=SIDE)
