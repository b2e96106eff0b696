"""Cross-validation: every image predicted once, by a run that did not train on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinyseg.cli import main
from tinyseg.config import Config
from tinyseg.errors import RunError
from tinyseg.inference.run import load_runs
from tinyseg.metrics.pixel import confusion
from tinyseg.metrics.summary import ImageScores, evaluate_image, summarize
from tinyseg.runs import checkpoint
from tinyseg.runs.checkpoint import assign
from tinyseg.training.cross_validation import CrossValidation, cross_validate

DATA = "sim:cells?n=9&size=32&seed=1&empty=0"
SMALL = [
    "data.size=32",
    "model.base_channels=2",
    "model.depth=1",
    "train.batch_size=3",
    "train.epochs=1",
]


def silent(text: str) -> None:
    pass


@pytest.mark.slow
def test_every_image_is_predicted_once_by_who_had_not_seen_it(tmp_path: Path) -> None:
    out, config = tmp_path / "cv", Config().override(SMALL)
    said: list[str] = []
    found = cross_validate(DATA, out, config, 3, probability=True, say=said.append)
    runs = load_runs(out)
    assert [run.folder.name for run in runs] == list(found.names) == ["fold-0", "fold-1", "fold-2"]
    masks = {path.stem for path in (out / "out-of-fold").glob("*.png")}
    assert sorted(name for run in runs for name in run.split.val) == sorted(masks)
    assert len(masks) == sum(found.images) == 9
    dataset = runs[0].open(DATA)
    assert found.chosen == ("epoch", "threshold")
    assert found.unbiased is not None
    assert found.unbiased.chosen == ()
    matrix = np.zeros((2, 2), np.int64)
    for run in runs:
        last, _ = checkpoint.load(run.checkpoints / "last.safetensors")
        model = run.build()
        assign(model.state_dict(), last, "model.", "here")
        samples = [dataset[name] for name in run.split.val]
        for p_khw, one in zip(
            run.make_predictor(model)(s.image for s in samples), samples, strict=True
        ):
            matrix += confusion((p_khw[0] >= 0.5).astype(np.uint8), one.label, 2)
    dice = 2 * matrix[1, 1] / (matrix[1].sum() + matrix[:, 1].sum())
    assert found.unbiased.to_dict()["out_of_fold"]["dice"] == pytest.approx(dice)
    assert json.loads((out / "folds.json").read_text())["unbiased"] == (
        json.loads(json.dumps(found.unbiased.to_dict()))
    )
    for run in runs:
        assert not {*run.split.val} & {*run.split.train}
        name = run.split.val[0]
        with Image.open(out / "out-of-fold" / f"{name}.png") as mask:
            written = np.array(mask) // 255
        image = dataset[name].image
        np.testing.assert_array_equal(written, run.predict(image))
        with Image.open(out / "out-of-fold" / "probability" / f"{name}.png") as deep:
            wanted = next(run.predictor([image]))[0]
            np.testing.assert_allclose(np.array(deep) / 65535, wanted, atol=1e-5)
    assert len([*(out / "out-of-fold" / "probability").iterdir()]) == 9
    assert set(json.loads((out / "folds.json").read_text())["folds"]) == set(found.names)
    # a second call needs to be told to go on, and then trains nothing anew
    with pytest.raises(RunError, match="has folds already: give --resume"):
        cross_validate(DATA, out, config, 3, say=silent)
    with pytest.raises(RunError, match="has 3 folds: give --folds 3"):
        cross_validate(DATA, out, config, 4, resume=True, say=silent)
    kept = (out / "fold-2" / "metrics.jsonl").read_bytes()
    (out / "fold-1" / "run.json").unlink()  # as a kill leaves it while a fold begins
    for path in sorted((out / "fold-1").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    again = cross_validate(DATA, out, None, 3, resume=True, say=silent)
    assert again.table() == found.table()
    assert (out / "fold-2" / "metrics.jsonl").read_bytes() == kept
    # the folder of all folds is a run to every command
    scores = tmp_path / "scores.json"
    assert main(["evaluate", str(out), DATA, "--json", str(scores)]) == 0
    table = json.loads(scores.read_text())
    wanted = found.to_dict()["out_of_fold"]["dice"]
    assert table["summary"]["pooled"]["dice"]["mean"] == pytest.approx(wanted)
    assert (table["folds"], table["trained_on"]) == (3, 0)
    for name in ("r.html", "r.txt"):
        assert main(["report", str(out), str(out / "fold-0"), "--out", str(tmp_path / name)]) == 0
    assert "cv (3 folds)" in (tmp_path / "r.txt").read_text()
    file = tmp_path / "a.png"
    Image.fromarray(dataset[0].image[..., 0]).save(file)
    assert main(["predict", str(out), str(file), "--out", str(tmp_path / "masks")]) == 0
    assert (tmp_path / "masks" / "a.png").exists()


def test_the_table_has_mean_and_spread_over_folds() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    predictions = [np.array([row], np.uint8) for row in ([0, 0, 1, 1], [0, 0, 0, 1])]
    scores = [evaluate_image(prediction, label, 2) for prediction in predictions]
    summaries = tuple(summarize([score]) for score in scores)
    found = CrossValidation(("fold-0", "fold-1"), (1, 1), summaries, summarize(scores))
    rows = {line[:16].strip(): line[16:].split() for line in found.table().splitlines()}
    dice = np.array([1.0, 2 / 3])
    assert float(rows["fold-1"][1]) == pytest.approx(dice[1], abs=1e-4)
    assert float(rows["mean"][0]) == pytest.approx(dice.mean(), abs=1e-4)
    assert float(rows["spread (SD)"][0]) == pytest.approx(dice.std(ddof=1), abs=1e-4)
    assert float(rows["all out-of-fold"][1]) == pytest.approx(2 * 3 / (3 + 4), abs=1e-4)
    assert found.to_dict()["mean"]["dice"] == pytest.approx(dice.mean())
    assert "optimistic" not in found.table()


def test_numbers_that_are_flattered_stand_beside_those_that_are_not() -> None:
    label = np.array([[0, 0, 1, 1]], np.uint8)
    good, poor = (
        evaluate_image(np.array([row], np.uint8), label, 2) for row in ([0, 0, 1, 1], [0, 0, 0, 1])
    )

    def of(scores: ImageScores, *more: Any) -> CrossValidation:
        return CrossValidation(
            ("fold-0", "fold-1"), (1, 1), (summarize([scores]),) * 2, summarize([scores] * 2), *more
        )

    found = of(good, ("epoch", "threshold"), of(poor, ("train.early_stopping",)))
    lines = found.table().splitlines()
    told = [line for line in lines if line.startswith("optimistic scores")]
    assert told == [
        "optimistic scores, because these were chosen on each fold itself: epoch, threshold"
    ]
    below = lines[lines.index(told[0]) + 1 :]
    assert below[0].startswith("without that (but train.early_stopping used the fold in training)")
    assert float(below[1].split()[1]) == pytest.approx(2 / 3, abs=1e-4)
    assert float(below[3].split()[2]) == pytest.approx(2 / 3, abs=1e-4)
    table = found.to_dict()
    assert table["chosen_on_fold"] == ["epoch", "threshold"]
    assert table["mean"]["dice"] == 1
    assert table["unbiased"]["mean"]["dice"] == pytest.approx(2 / 3)


def test_one_fold_is_no_cross_validation(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="--folds 1: give at least 2"):
        cross_validate(DATA, tmp_path / "cv", None, 1, say=silent)


def test_probabilities_are_of_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", DATA, "--out", str(tmp_path / "run"), "--probability"]) == 2
    assert "give --folds K with it" in capsys.readouterr().err
