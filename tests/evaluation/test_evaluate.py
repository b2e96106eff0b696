"""The table that `tinyseg evaluate` prints."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyseg.config import Config
from tinyseg.errors import RunError
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.evaluation.result import Evaluation, ThresholdGain
from tinyseg.metrics.baselines import baselines, constant_dice
from tinyseg.metrics.summary import evaluate_image, summarize
from tinyseg.metrics.threshold_curves import Histograms
from tinyseg.training.train import train


def evaluation(label: np.ndarray, prediction: np.ndarray, names: tuple[str, ...]) -> Evaluation:
    classes = len(names)
    images = (evaluate_image(prediction, label, classes, surface=False),)
    grey = [np.zeros((*label.shape, 1), np.uint8)]
    found = baselines(grey, [label], grey, [label], names)
    heads = range(1 if classes == 2 else 0, classes)
    histograms = Histograms()
    histograms.add(np.stack([prediction == kind for kind in heads]).astype(np.float32), label)
    gain = ThresholdGain.of(0.25, images, images, True) if classes == 2 else None
    told = (summarize(images), tuple(found), names, histograms, gain)
    return Evaluation("val", ("a",), images, *told)


def test_a_picture_of_the_data_is_not_written_over(tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"ground truth")
    with pytest.raises(RunError, match="was not written by tinyseg"):
        evaluate((), "sim:cells", picture=mask)
    assert mask.read_bytes() == b"ground truth"


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


def test_one_class_everywhere_has_the_dice_of_its_baseline() -> None:
    label = np.array([[0, 0, 1, 1], [2, 2, 2, 255]], np.uint8)
    found = evaluation(label, label, ("sky", "pole", "road"))
    best = max(np.nan_to_num(b.summary.pooled["dice"])[1:].mean() for b in found.baselines)
    assert constant_dice(label[None], 3) == pytest.approx(best)


def test_what_was_chosen_on_the_images_is_told_beside_their_score() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    found = evaluation(label, label, ("background", "pet"))
    assert "optimistic scores" not in found.table()
    found = replace(found, chosen=("epoch", "threshold"))
    assert "chosen on the same images: epoch, threshold; for unbiased scores" in found.table()
    assert found.to_dict()["chosen_here"] == ("epoch", "threshold")


def test_two_classes_need_no_lines_of_their_own() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    assert "pet" not in evaluation(label, label, ("background", "pet")).table()


def test_the_threshold_and_what_none_changes_are_told() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    found = evaluation(label, label, ("background", "pet"))
    assert "threshold 0.250: Dice 1.0000, with 0.5 1.0000, gain +0.0000" in found.table()
    assert "optimistic, because it was chosen on these images" in found.table()
    assert "average precision 1.0000, ROC-AUC 1.0000" in found.table()
    curves = found.to_dict()["thresholds"]["classes"][0]
    assert curves["pooled"]["dice"] == curves["per_image"]["dice"] == [1.0] * 1023
    empty = evaluation(np.zeros_like(label), label, ("background", "pet"))
    assert "average precision nan, ROC-AUC nan" in empty.table()


def draw_pets(folder: Path) -> None:
    """Bright cats and dark dogs, eight to train and two to test, as Oxford-IIIT Pet is laid out."""
    for name in ("images", "annotations/trimaps"):
        (folder / name).mkdir(parents=True)
    lines = []
    for index in range(10):
        name, dog = f"pet_{index}", index % 2
        image = np.full((32, 32, 3), 128, np.uint8)
        trimap = np.full((32, 32), 2, np.uint8)
        image[8:24, 4 + index : 20 + index] = 0 if dog else 255
        trimap[7:25, 3 + index : 21 + index], trimap[8:24, 4 + index : 20 + index] = 3, 1
        Image.fromarray(image).save(folder / "images" / f"{name}.jpg")
        Image.fromarray(trimap).save(folder / "annotations/trimaps" / f"{name}.png")
        lines.append(f"{name} 1 {dog + 1} 1\n")
    (folder / "annotations/trainval.txt").write_text("".join(lines[:8]))
    (folder / "annotations/test.txt").write_text("".join(lines[8:]))


@pytest.mark.slow
def test_a_run_on_a_named_dataset_from_training_to_the_table(tmp_path: Path) -> None:
    draw_pets(tmp_path / "pets")
    source = f"pets:{tmp_path / 'pets'}?target=species"
    small = [
        "data.size=32",
        "model.base_channels=4",
        "model.depth=2",
        "train.epochs=2",
        "train.batch_size=4",
    ]
    run = train(source, tmp_path / "run", config=Config().override(small), say=print)
    assert run.open(run.facts.source).fingerprint() == run.facts.fingerprint
    found = evaluate(run, source, "test")
    assert found.names == ("pet_8", "pet_9")
    assert all(f"\n  {name} " in found.table() for name in ("background", "cat", "dog"))
    with pytest.raises(RunError, match="is not the data that"):
        train(f"{source}&border=foreground", tmp_path / "run", resume=True)
