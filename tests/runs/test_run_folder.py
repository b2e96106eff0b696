"""The run folder, which knows no network."""

from pathlib import Path

import pytest

from tinyseg.config import Config
from tinyseg.data import Dataset, InputScale
from tinyseg.errors import RunError
from tinyseg.runs.metrics_log import MetricsLog
from tinyseg.runs.run import RunFolder, run_folders


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    dataset = Dataset("sim:cells?n=4&size=16", Config().data)
    scale = InputScale((0.5,) * 3, (0.25,) * 3)
    return RunFolder.create(
        tmp_path / "run", Config(), dataset, dataset.split, scale, {"model": "MyNet"}
    )


def test_what_is_created_is_loaded(run: RunFolder) -> None:
    again = RunFolder.load(run.folder)
    assert (again.config, again.facts, again.split) == (run.config, run.facts, run.split)
    assert again.facts.custom == {"model": "MyNet"}
    again.update_facts(postprocess="largest")
    assert RunFolder.load(run.folder).facts == again.facts != run.facts
    with pytest.raises(RunError, match="is not empty: give --resume"):
        RunFolder.create(run.folder, run.config, run.open("sim:cells?n=4&size=16"), run.split, None)


def test_scores_are_those_of_the_best_epoch(run: RunFolder) -> None:
    with pytest.raises(RunError, match="no epoch of it has been scored"):
        run.scores  # noqa: B018
    log = MetricsLog(run.log)
    for epoch, dice in enumerate((0.1, 0.7, float("nan"), 0.7, 0.2), start=1):
        pooled = {"dice": {"mean": dice}, "iou": {"mean": dice / 2}}
        log.write("epoch", epoch, epoch=epoch, train={}, val={"pooled": pooled})
    assert run.scores == {"dice": 0.7, "iou": 0.35, "epoch": 2}


def test_a_run_and_the_folds_of_a_cross_validation_are_found(run: RunFolder) -> None:
    assert run_folders(run.folder) == [run.folder]
    both = run.folder.parent / "folds"
    both.mkdir()
    run.folder.rename(both / "fold-0")
    run = RunFolder.load(both / "fold-0")
    run.set_config(run.config.override(["data.folds=3"]))
    assert run_folders(both) == [both / f"fold-{fold}" for fold in range(3)]
