"""The diagnosis: order, stages, findings, and that nothing is changed."""

import contextlib
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault import CONFIG, cells
from planted_own import Own, Stock, loss
from tinygrad import Tensor
from tinygrad.nn.state import get_state_dict

from tinyseg.cli import main
from tinyseg.common.findings import Finding
from tinyseg.doctor import STAGES, Diagnosis, Project, diagnose, diagnosis
from tinyseg.errors import ConfigError

ERROR, WARNING, NOTE = (Finding(level, level, "seen") for level in ("error", "warning", "note"))


def stages(monkeypatch: pytest.MonkeyPatch, **checks: Any) -> Diagnosis:
    """Diagnoses nothing, by checks that are made up."""
    for stage in STAGES:
        monkeypatch.setitem(diagnosis.STAGES, stage, tuple(checks.get(stage, ())))
    return diagnose(Project("nowhere"))


def test_an_error_ends_the_round_but_a_finished_run_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(project: Project) -> list[Finding]:
        raise AssertionError

    found = stages(
        monkeypatch,
        data=[lambda p: [WARNING], lambda p: [ERROR], lambda p: [NOTE]],
        step=[never],
        run=[lambda p: [NOTE]],
    )
    assert [f.level for f in found.findings] == ["warning", "error", "note", "note", "note"]
    assert found.first == ERROR
    assert found.level == "error"
    assert (
        "not examined: labels, pipeline, loss, network, step, update, memorization" in found.table()
    )
    assert set(found.seconds) == {"data", "run"}


@pytest.mark.parametrize(
    ("findings", "first", "verdict"),
    [
        ([], None, "PASS (all well)"),
        ([NOTE], None, "PASS (1 note)"),
        (
            [NOTE, WARNING],
            WARNING,
            "PASS with warnings: start with the first one (1 warning, 1 note)",
        ),
        (
            [WARNING, ERROR, ERROR],
            ERROR,
            "FAIL: fix the first error first (2 errors, 1 warning, 1 note)",
        ),
    ],
)
def test_the_verdict(
    findings: list[Finding], first: Finding | None, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = stages(monkeypatch, data=[lambda p: findings])
    assert found.first == first
    assert found.table().splitlines()[-1] == verdict
    result = json.loads(json.dumps(found.to_json()))
    assert (result["first"] or {}).get("level") == (first.level if first else None)
    assert [f["level"] for f in result["findings"]][: len(findings)] == [f.level for f in findings]


def test_bad_input_is_a_finding_and_a_bug_of_the_doctor_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(project: Project) -> list[Finding]:
        raise ConfigError("model.base_channels=0 cannot be used")

    found = stages(monkeypatch, loss=[refuses])
    assert (found.first.check, found.first.seen) == ("loss", "model.base_channels=0 cannot be used")  # type: ignore[union-attr]

    def breaks(project: Project) -> list[Finding]:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        stages(monkeypatch, loss=[breaks])


def test_an_exception_of_the_users_own_step_is_a_finding(tmp_path: Path) -> None:
    def step(image: object, label: object) -> float:
        raise ValueError("my mistake")

    found = diagnose(Project(cells(tmp_path, n=24), CONFIG, step=step), ("step",))
    assert found.first
    assert found.first.check == "exception"
    assert "ValueError: my mistake" in found.first.seen
    assert "in test_diagnosis.py, line" in found.first.seen
    assert any('step: raise ValueError("my mistake")' in line for line in found.first.evidence)
    assert sum(one.check == "exception" for one in found.findings) == 1


@pytest.mark.slow
def test_an_exception_of_the_users_own_loss_names_its_line_and_no_generated_code(
    tmp_path: Path,
) -> None:
    names: dict[str, Any] = {}
    exec("def rule(x):\n    return x.reshape(7, 7)", names)  # as tinygrad makes rewrite rules

    def own_loss(logits: Tensor, label: Tensor) -> Tensor:
        with contextlib.ExitStack() as stack:
            stack.callback(names["rule"], logits)
        return logits.mean()

    parts = {"model": Stock(), "loss": own_loss}
    first = diagnose(Project(cells(tmp_path, n=24), CONFIG, **parts), ("loss",)).first
    assert first
    line = inspect.getsourcelines(own_loss)[1] + 1
    assert first.seen.endswith(f" in test_diagnosis.py, line {line}")
    assert all("test_diagnosis.py" in one for one in first.evidence)


def test_long_messages_are_cut_and_known_ones_have_a_remedy(tmp_path: Path) -> None:
    def step(image: Tensor, label: Tensor) -> float:
        return (image.cast("float") + label).sum().item()  # shapes that do not fit

    data = cells(tmp_path, n=24)
    (first, *_) = diagnose(Project(data, CONFIG, step=step), ("step",)).findings
    assert first.remedy.startswith("compare the shapes")

    def talks(image: Tensor, label: Tensor) -> float:
        raise RuntimeError("x" * 1000 + "\nmore")

    (first, *_) = diagnose(Project(data, CONFIG, step=talks), ("step",)).findings
    assert len(first.seen) < 350
    assert "more" not in first.seen


@pytest.mark.slow
def test_a_users_network_is_left_as_it_was(tmp_path: Path) -> None:
    """Also the running statistics of tinygrad's own layers, which any call in training moves."""
    model = Stock()
    project = Project(cells(tmp_path, n=24), CONFIG, model=model, step=Own(model), loss=loss)
    before = {name: tensor.numpy() for name, tensor in get_state_dict(model).items()}
    diagnose(project, ("loss", "network"))
    after = {name: tensor.numpy() for name, tensor in get_state_dict(model).items()}
    assert len(before) == 20
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_experiment_that_fails_is_not_made_again() -> None:
    made = []

    def experiment(project: Project) -> int:
        made.append(project)
        raise ValueError("no")

    project = Project("nowhere")
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            project.once(experiment)
    assert len(made) == 1


@pytest.mark.slow
def test_the_command_examines_writes_json_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = cells(tmp_path / "data", n=24)
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    small = ["data.size=32", "model.base_channels=4", "model.depth=1"]
    out = tmp_path / "doctor.json"
    command = ["doctor", str(data), "--json", str(out), "--set", *small]
    assert main([*command, "train.optimizer=adam(lr=0.01)"]) == 0
    assert "PASS" in capsys.readouterr().out
    assert json.loads(out.read_text())["level"] in ("ok", "note")
    assert main([*command, "train.optimizer=adam(lr=1e-9)"]) == 1
    assert "error   learning rate" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_a_stage_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no stage 'los': give some of data, labels"):
        diagnose(Project("nowhere"), ("los",))


def test_a_run_brings_its_own_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere")
    assert main(["doctor", "nowhere", "--run", str(tmp_path)]) == 2
    assert "no run.json there" in capsys.readouterr().err
