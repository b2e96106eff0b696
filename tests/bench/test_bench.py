"""The benches' own arithmetic, and that their commands start, without PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinyseg.metrics.threshold_curves import Histograms

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def step(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield pytest.importorskip("step")
    for name in ("step", "worker"):
        sys.modules.pop(name, None)


@pytest.fixture
def worker(step):
    return sys.modules["worker"]


def _row(value, gpu=0.0):
    facts = {"device_memory_mib": gpu}
    ms = [value, 3 * value, 2 * value]
    return {"ms": ms, "start_s": value, "peak_mib": value, "growth_mib": value, "facts": facts}


def _found(step, peers, gpu=0.0):
    rows = {side: step.summary([_row(v, gpu)], [_row(v, gpu)]) for side, v in peers.items()}
    facts = {"kernels": 7, "precision": "float32", "device": "CPU"}
    cold = {
        kind: {"facts": facts, "checked": [0.5], "start_s": 9.0, "peak_mib": 1.0}
        for kind in ("train", "predict")
    }
    return step.describe("A", cold, rows)


def test_every_script_compiles():
    for path in BENCH.glob("*.py"):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")


def test_the_command_explains_itself():
    command = [sys.executable, str(BENCH / "step.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--cases" in done.stdout
    assert "A,B,C,D" in done.stdout


def test_an_unknown_case_is_refused(step, capsys):
    with pytest.raises(SystemExit):
        step.parse(["--cases", "A,E"])
    assert "unknown case E; known: A, B, C, D" in capsys.readouterr().err
    assert step.parse(["--cases", "a,c"]).cases == ["A", "C"]


def test_the_parent_stays_small(step):
    code = "import sys, step; print(sorted({'numpy', 'tinygrad', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCH, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_best_of_all_variants_counts_for_each_measure_by_itself(step):
    found = _found(step, {"tinyseg": 6.0, "torch nchw": 4.0, "torch channels_last": 3.0})
    ratio = found["ratios"]["median"]["step_ms"]
    assert ratio == {"ratio": 2.0, "best": "torch channels_last"}
    assert found["rows"]["tinyseg"]["step_ms"] == {"median": 12, "min": 6, "max": 18, "n": 3}


def test_a_table_lines_up_and_its_row_survives_json(step):
    found = _found(step, {"tinyseg": 6.0, "torch nchw": 4.0})
    lines = step.table("A", found).splitlines()
    assert lines[0].startswith(
        "A: U-Net base 16 depth 4, 4x1x128x128, float32 on CPU; kernels: 7 a"
    )
    assert len({len(line) for line in lines[1:-2]} - {len(lines[4])}) == 1
    assert lines[-2].split()[-6:] == ["1.50"] * 6
    assert json.loads(json.dumps(found)) == found
    assert "GPU MiB" not in lines[1]


def test_memory_of_a_gpu_is_compared_where_there_is_one(step):
    found = _found(step, {"tinyseg": 6.0, "torch nchw": 4.0}, gpu=512.0)
    assert found["ratios"]["median"]["device_memory_mib"]["ratio"] == 1
    assert "GPU MiB" in step.table("A", found)


def test_alone_there_are_no_ratios(step):
    found = _found(step, {"tinyseg": 6.0})
    assert found["ratios"]["median"] == {}
    assert "torch" not in step.table("A", found)


def test_differing_losses_stop_the_run(step):
    ours = {"checked": [0.5, 0.4, 0.3], "facts": {"device": "CPU", "precision": "float32"}}
    near, far = {"checked": [0.5, 0.4001, 0.3]}, {"checked": [0.5001, 0.4, 0.3]}
    torch_, bf16 = step.Variant("nchw", False, False, False), step.Variant("nchw", False, True, 0)
    errors = step.agree("train", torch_, ours, near)
    assert errors == pytest.approx([0, 2.5e-4, 0], abs=1e-6)
    with pytest.raises(SystemExit, match="tinyseg and torch nchw disagree on train"):
        step.agree("train", torch_, ours, far)
    step.agree("train", bf16, ours, far)
    with pytest.raises(SystemExit, match="disagree"):
        step.agree("train", torch_, ours, {"checked": [float("nan"), 0.4, 0.3]})


def test_the_variants_of_a_device(step, monkeypatch):
    monkeypatch.setattr(step.platform, "libc_ver", lambda: ("glibc", "2.36"))
    names = [str(variant) for variant in step.variants("CPU", False, False)]
    assert names == [
        "torch nchw",
        "torch nchw, tuned malloc",
        "torch channels_last",
        "torch channels_last, tuned malloc",
    ]
    on_gpu = step.variants("CUDA", True, True)
    assert len(on_gpu) == 8
    assert str(on_gpu[-1]) == "torch channels_last, bf16, compiled"


@pytest.fixture
def epoch(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield pytest.importorskip("epoch")
    sys.modules.pop("epoch", None)


def test_the_watch_adds_up_what_it_sees(epoch):
    watch = epoch.Watch()
    owner = SimpleNamespace(work=lambda value, more=0: value + more)
    watch.on(owner, "work", "work")
    assert [owner.work(value, more=1) for value in range(3)] == [1, 2, 3]
    assert watch.calls == {"work": 3}
    assert 0 < watch.seconds["work"] < 1


def test_the_shares_of_an_epoch(epoch):
    row = {"wall": 10.0, "step": 8.1, "validation": 1.0, "inference": 0.5}
    start = {"data_s": 2.0, "first_step_s": 3.0, "epochs": [row], "decoded": 4}
    again = {**start, "data_s": 1.0, "decoded": 0}
    found = epoch.describe(start, [again, {**start, "decoded": 0}])
    assert found["share"] == pytest.approx(
        {"without_validation": 0.9, "with_validation": 0.81, "with_inference": 0.86}
    )
    assert found["second_start"] == {"data_s": 1.0, "first_step_s": 3.0}
    assert found["decoded"] == {"first": 4, "second": 0}
    assert "wanted 95%" in epoch.table(found)


@pytest.mark.slow
def test_an_epoch_is_measured(tmp_path):
    options = ["--images", "12", "--side", "40", "--epochs", "1", "--starts", "1"]
    small = ["--settings", "model.base_channels=2", "model.depth=1", "data.size=32"]
    command = [sys.executable, str(BENCH / "epoch.py"), *options, *small]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["decoded"] == {"first": 24, "second": 0}
    assert 0 < found["share"]["with_validation"] < found["share"]["without_validation"] < 1


def test_kernels_inside_of_graphs_are_counted(worker):
    program = SimpleNamespace(arg=None)
    call = SimpleNamespace(src=[program])
    graph = SimpleNamespace(arg="graph", src=[SimpleNamespace(src=[call, call, call])])
    linear = SimpleNamespace(src=[call, SimpleNamespace(src=[graph]), call])
    assert worker.launches(linear) == 5


def test_only_steps_after_the_warm_up_are_timed(worker):
    calls = []
    assert len(worker._time(calls.append, lambda: None, warmup=2, steps=3)) == 3
    assert calls == [0] * 5


def test_batches_are_the_same_in_every_process(worker):
    case = worker.CASES["A"]
    (image, label), (again, _) = worker._batch(case, 1), worker._batch(case, 1)
    assert (image == again).all()
    assert image.shape == (4, 1, 128, 128)
    assert label.shape == (4, 128, 128)
    assert 0.1 < label.mean() < 0.3
    assert worker.peak_memory() > 1


def test_the_cost_of_augmentation_is_that_of_neighbouring_steps(step):
    augment = pytest.importorskip("augment")
    found = augment.added([12.0, 21.0, 32.0], [10.0, 20.0, 30.0])
    assert found["added_median_ms"] == 2
    assert found["added_least_ms"] == 2
    assert found["share_median"] == 0.1
    assert found["share_least"] == 0.2
    sys.modules.pop("augment")


def test_what_the_bench_of_thresholds_adds_up(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    bench = pytest.importorskip("thresholds")
    clock = bench.Clock()
    twice = clock.around(lambda value: 2 * value)
    assert [twice(1), twice(2)] == [2, 4]
    assert 0 < clock.seconds < 1
    found = SimpleNamespace(summary=SimpleNamespace(pooled={"dice": [0, 0.3]}))
    found.histograms = Histograms()
    found.histograms.add(np.ones((1, 2, 2), np.float32), np.array([[0, 0], [0, 1]], np.uint8))
    with pytest.raises(SystemExit, match=r"Dice at 0\.5: 0\.4, counted 0\.3"):
        bench.check(found, found)
    found.summary.pooled["dice"] = [0, 0.4]
    bench.check(found, found)
    sys.modules.pop("thresholds")
