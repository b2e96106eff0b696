"""The run folder, which knows no network."""

import json
from pathlib import Path

import pytest

from tinyseg.config import Config
from tinyseg.data import Dataset, InputScale
from tinyseg.errors import RunError
from tinyseg.runs.metrics_log import MetricsLog
from tinyseg.runs.run import RunFacts, RunFolder, run_folders


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
    with pytest.raises(RunError, match="no epoch has been completed yet"):
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


GOOD = {
    **{"source": "x", "fingerprint": "y", "channels": 1, "classes": 2},
    **{"label_map": {"0": 0, "255": 1}, "scale": {"mean": [0.5], "std": [0.25]}},
}


@pytest.mark.parametrize(
    "change",
    [
        *({"channels": n} for n in (0, -1, 10**9, "a", None, float("inf"))),
        *({"classes": n} for n in (0, 1, 256, 10**12, float("nan"))),
        *({"label_map": m} for m in ({"0": 7}, {"0": -1}, {"x": 0}, [], 3)),
        *({"scale": {"mean": [m], "std": [s]}} for m, s in ((0.5, 0.0), (0.5, -1.0))),
        *({"scale": {"mean": [m], "std": [0.25]}} for m in (float("nan"), float("inf"), "a")),
        {"scale": {"mean": [0.5, 0.5], "std": [0.25, 0.25]}},
        {"scale": 3},
        {"contract": 3},
        {"custom": []},
    ],
    ids=str,
)
def test_facts_that_cannot_be_are_refused_when_a_run_is_opened(
    tmp_path: Path, change: dict[str, object]
) -> None:
    assert RunFacts.from_json(GOOD).label_map == {0: 0, 255: 1}
    (tmp_path / "run.json").write_text(json.dumps({**GOOD, **change}))
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunError, match=r"run\.json: damaged"):
        RunFolder.load(tmp_path)
