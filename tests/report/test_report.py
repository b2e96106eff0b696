"""What the report says, against plain NumPy; the page itself is in test_page.py."""

import base64
import csv
import json
import re
import shutil
import sys
import zlib
from copy import copy
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinyseg.common.findings import Finding
from tinyseg.config import Config
from tinyseg.data import Split
from tinyseg.errors import DataError, RunError
from tinyseg.evaluation.evaluate import evaluate
from tinyseg.metrics.pixel import confusion, scores
from tinyseg.metrics.summary import foreground_mean
from tinyseg.metrics.threshold_curves import Histograms
from tinyseg.report import build_page, collect, report
from tinyseg.report.collect import shared_names, spread, titles
from tinyseg.report.curves import curves
from tinyseg.report.encode import data_uri, level_of, levels, pack, shrink, size_in_page
from tinyseg.report.history import differences, mean_history, parting
from tinyseg.report.page import embed
from tinyseg.report.table import HEADS, as_markdown, as_text, rows_of
from tinyseg.runs.metrics_log import history

RNG = np.random.default_rng(0)


def unpack(text: str, shape: tuple[int, int]) -> np.ndarray:
    rows = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).reshape(shape)
    return rows.cumsum(axis=0, dtype=np.uint8)


@pytest.fixture(scope="module")
def data(runs):
    said = []
    found = collect(runs, runs[0].facts.source, "val", 50, said.append)
    assert said == []
    return found


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (33, 20)])
def test_maps_are_packed_without_loss(shape):
    for top in (1, 2, 256):
        levels_hw = RNG.integers(0, top, shape, dtype=np.uint8)
        np.testing.assert_array_equal(unpack(pack(levels_hw), shape), levels_hw)


def test_levels_cut_at_k_over_256_exactly():
    p = np.concatenate([np.linspace(0, 1, 10_001), np.arange(257) / 256]).astype(np.float32)
    p = np.concatenate([p, np.nextafter(p, np.float32(0)), np.nextafter(p, np.float32(1))])
    for k in range(1, 256):
        np.testing.assert_array_equal(levels(p) >= k, p >= k / 256)
    assert [level_of(t) for t in (1e-9, 0.4, 0.5, 1 - 1e-9)] == [1, 102, 128, 255]


def test_pictures_are_made_smaller_never_larger():
    assert size_in_page(100, 256, 256) == (100, 256)
    assert size_in_page(512, 1000, 256) == (131, 256)
    assert size_in_page(1, 100_000, 512) == (1, 512)
    image = RNG.integers(0, 256, (300, 600, 3), dtype=np.uint8)
    for pixels, kind in ((image, "jpeg"), (np.zeros_like(image), "png")):
        uri = data_uri(pixels, (128, 256))
        assert uri.startswith(f"data:image/{kind};base64,")
        with Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))) as opened:
            assert opened.size == (256, 128)
    block = np.kron(RNG.random((3, 4)).astype(np.float32), np.ones((2, 2), np.float32))
    np.testing.assert_allclose(shrink(block, (3, 4), smooth=True), block[::2, ::2])


def test_curves_are_those_of_counting_at_every_threshold():
    p, label = RNG.random((3, 20, 30)).astype(np.float32), RNG.integers(0, 3, (20, 30))
    label[:3] = 255
    label = label.astype(np.uint8)
    histograms = Histograms()
    histograms.add(p[:, :10], label[:10])
    histograms.add(p[:, 10:], label[10:])
    for kind, curve in enumerate(curves(histograms), start=1):
        own = np.where(label == 255, 255, label == kind)
        for k in (1, 2, 77, 128, 254, 255):
            values = scores(confusion((p[kind] >= k / 256).astype(np.uint8), own, 2))
            for name in ("precision", "recall", "dice"):
                expected, got = values[name][1], curve[name][k - 1]
                assert (
                    got is None if np.isnan(expected) else got == pytest.approx(expected, abs=1e-6)
                )


def test_the_calibration_of_a_known_network_lies_on_the_diagonal():
    p = RNG.random((1, 300, 300)).astype(np.float32)
    histograms = Histograms()
    histograms.add(p, (RNG.random((300, 300)) < p[0]).astype(np.uint8))
    points = np.array(curves(histograms)[0]["reliability"])
    assert points.shape == (16, 3)
    assert points[:, 2].sum() == 90_000
    np.testing.assert_allclose(points[:, 0], (np.arange(16) + 0.5) / 16, atol=0.005)
    np.testing.assert_allclose(points[:, 0], points[:, 1], atol=0.03)


def test_scores_stand_beside_baselines(runs, data):
    assert [run["title"] for run in data["runs"]] == ["one <b>", "other"]
    assert [one["rule"] for one in data["baselines"]][:2] == ["all background", "all foreground"]
    assert data["scored"] == len(data["images"]) == 9
    dataset = runs[0].open(runs[0].facts.source)
    matrix = sum(
        confusion((p[0] >= 0.4).astype(np.uint8), sample.label, 2)
        for sample in (dataset[name] for name in runs[0].split.val)
        for p in runs[0].predictor([sample.image])
    )
    assert data["runs"][0]["summary"][0] == pytest.approx(
        foreground_mean(scores(matrix)["dice"]), abs=1e-6
    )


def test_an_image_brings_its_maps_and_its_scores(runs, data):
    dataset = runs[0].open(runs[0].facts.source)
    for image in data["images"]:
        sample = dataset[image["name"]]
        size = tuple(image["size"])
        assert size == ((300, 200) if sample.label.shape == (300, 200) else (48, 64))
        if sample.label.shape == size:
            np.testing.assert_array_equal(unpack(image["label"], size), sample.label)
            for run, part in zip(runs, image["runs"], strict=True):
                p_khw = next(run.predictor([sample.image]))
                got = unpack(part["probability"][0], size)
                np.testing.assert_array_equal(got, levels(p_khw[0]))
                matrix = confusion(
                    (p_khw[0] >= run.config.train.threshold).astype(np.uint8), sample.label, 2
                )
                expected, got = scores(matrix)["dice"][1], part["scores"]["dice"]
                same = got == pytest.approx(expected, abs=1e-6)
                assert same or (got is None and np.isnan(expected))
    dice = [image["runs"][0]["scores"]["dice"] for image in data["images"]]
    assert dice == sorted(dice, key=lambda value: 2 if value is None else value), (
        "from the worst to the best"
    )


def test_pictures_are_as_large_as_the_page_may_be(runs, data, monkeypatch):
    module = sys.modules["tinyseg.report.collect"]
    taken = len(json.dumps(data["images"]))

    def largest(count=9):
        found = collect(runs, runs[0].facts.source, "val", count, lambda text: None)
        return found["side"], max(max(image["size"]) for image in found["images"])

    monkeypatch.setattr(module, "MOST_BYTES", taken)
    assert data["side"] == 512
    assert largest() == (512, 300)
    monkeypatch.setattr(module, "MOST_BYTES", taken - 1)
    monkeypatch.setattr(module, "SIDES", (512, 280, 256))
    assert largest() == (280, 280)
    monkeypatch.setattr(module, "MOST_BYTES", 1)
    assert largest() == (256, 256)
    assert collect(runs, runs[0].facts.source, "val", 0)["images"] == []


def test_many_images_are_thinned_from_the_worst_to_the_best():
    values = [0.5, float("nan"), 0.1, 0.9, 0.3]
    assert spread(values, 10) == [2, 4, 0, 3, 1]
    assert spread(values, 3) == [2, 0, 1]
    assert spread(values, 1) == [2]


def test_runs_are_scored_on_images_that_none_of_them_learned(runs):
    dataset = runs[0].open(runs[0].facts.source)
    learned = type(runs[0])(runs[0].folder, runs[0].config, runs[0].facts, runs[0].split)
    learned.split = type(runs[0].split)(runs[0].split.val[1:], runs[0].split.val[:1])
    said = []
    assert shared_names([runs[0], learned], dataset, "val", said.append) == runs[0].split.val[:1]
    assert said == ["warning: 1 images are in the val split of every run (of 9)"]
    learned.split = type(runs[0].split)(runs[0].split.val, ("plain 6",))
    with pytest.raises(RunError, match=r"no image is in the val split of all of them"):
        shared_names([runs[0], learned], dataset, "val")


def test_what_cannot_be_compared_is_refused(runs, three_classes, tmp_path):
    with pytest.raises(RunError, match="they cannot be compared"):
        report([runs[0], three_classes], tmp_path / "r.html")
    with pytest.raises(DataError, match="split is empty"):
        report(runs, tmp_path / "r.html", split="test")
    assert not list(tmp_path.iterdir())


def test_settings_that_differ_and_the_epoch_where_runs_part(runs, data, tmp_path):
    rows = {key: values for key, *values in data["settings"]["rows"]}
    assert rows["model.base_channels"] == ["16", "8"]
    assert rows["data.groups"] == ["", "<i>"]
    assert set(rows) == {"model.base_channels", "data.groups", "train.threshold"}
    alone = differences([Config().override(["model.base_channels=4"])])
    assert alone == {"with_defaults": True, "rows": [["model.base_channels", "4", "16"]]}
    assert data["parting"] == {"shared": 4, "epoch": 3}
    assert parting([runs[0].log]) is None
    assert parting([runs[0].log] * 2) == {"shared": 4, "epoch": None}
    assert parting([runs[0].log, tmp_path / "none"]) == {"shared": 0, "epoch": None}


def test_a_damaged_log_loses_its_lines_only(runs, tmp_path):
    log = tmp_path / "metrics.jsonl"
    odd = ['{"kind":"epoch","step":1,"epoch":1,"train":3,"val":{"pooled":[]}}', "{{{"]
    odd += ['{"kind":"epoch","step":2,"epoch":"2"}']
    odd += ['{"kind":"epoch","step":3,"epoch":3,"train":{"loss":%s}}' % ("9" * 400)]
    log.write_text("\n".join(odd))
    assert [list(one.values()) for one in history(log)] == [[1, *[None] * 4], [3, *[None] * 4]]
    assert [one["val_dice"] for one in history(runs[0].log)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_titles_tell_runs_apart():
    def at(*folders):
        return titles([Path(folder) for folder in folders])

    assert at("/a/run") == ["run"]
    assert at("/a/run", "/b/run") == ["a/run", "b/run"]
    assert at("/a/run", "/a/run") == ["run (1)", "run (2)"]


def test_nothing_in_the_data_can_leave_its_element(data):
    text = embed({"name": "</script><script>&amp;\u2028\u2029\ud800"})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text)["name"] == "</script><script>&amp;\u2028\u2029\ud800"
    page = build_page(data)
    assert page.count("<script") == 2
    assert "window.hacked" not in re.sub(
        r'<script type="application/json".*?</script>', "", page, flags=re.S
    )
    assert json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1]) == data


def test_the_page_is_whole_and_small(runs, tmp_path):
    said = []
    report(runs, tmp_path / "r.html", images=3, say=said.append)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "[[POLICY]]" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert len(json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["images"]) == 3


def test_a_file_of_others_is_not_written_over(tmp_path):
    table = tmp_path / "measured.csv"
    table.write_text("mine")
    with pytest.raises(RunError, match="was not written by tinyseg"):
        report((), table, data="sim:cells")
    assert table.read_text() == "mine"


@pytest.mark.slow
def test_the_doctor_examines_each_run_where_it_is_asked(runs, tmp_path, monkeypatch):
    def findings(out, **options):
        report(runs, out, images=1, say=lambda text: None, **options)
        text = re.search(r'id="data">(.*?)</script>', out.read_text(encoding="utf-8"), re.S)[1]
        return [[one["check"] for one in run["findings"]] for run in json.loads(text)["runs"]]

    usual = findings(tmp_path / "usual.html")
    assert all("certainty" in checks and "by hand" not in checks for checks in usual)
    asked = []

    def diagnosed(project, stages):
        asked.append((project.run, stages))
        return SimpleNamespace(findings=(Finding("error", "by hand", "seen"),))

    monkeypatch.setattr("tinyseg.report.write.diagnose", diagnosed)
    assert findings(tmp_path / "doctor.html", doctor=True) == [["by hand", *one] for one in usual]
    assert [run for run, _ in asked] == list(runs)
    assert all("run" not in stages and "data" in stages for _, stages in asked)
    with pytest.raises(RunError, match=r"ends in \.html"):
        report(runs, tmp_path / "r.csv", doctor=True)


def test_the_table_as_text_markdown_and_csv(runs, data, tmp_path):
    written = {}
    for end in (".txt", ".md", ".csv"):
        said = report(runs, tmp_path / f"table{end}", say=lambda text: None)
        written[end] = (tmp_path / f"table{end}").read_text(encoding="utf-8")
        assert said == as_text(rows_of(data))
    assert written[".txt"] == said
    rows = list(csv.reader(written[".csv"].splitlines()))
    assert rows[0] == [*HEADS, "data.groups", "model.base_channels", "train.threshold"]
    assert [row[0] for row in rows[1:4]] == ["one <b>", "other", "all background"]
    assert rows[2][-4:] == ["0.500", "<i>", "8", "0.5"]
    for run, row in zip(data["runs"], rows[1:], strict=False):
        expected = ["" if v is None else f"{v:.4f}" for v in run["summary"]]
        assert row[1:7] == expected
    lines = written[".md"].splitlines()
    assert lines[1].startswith("| --- | ---: |")
    assert lines[2].startswith(r"| one \<b\> | 0.")
    assert len({line.count("|") for line in lines}) == 1
    assert as_markdown([["a|b\n"]]).startswith(r"| a\|b? |")


def test_a_file_of_no_known_kind_is_refused_before_any_work(runs, tmp_path):
    with pytest.raises(RunError, match=r"must end in \.html"):
        report(runs, tmp_path / "r.pdf")
    with pytest.raises(RunError, match="0 or more"):
        report(runs, tmp_path / "r.html", images=-1)


@pytest.fixture
def folds(runs):
    """The two runs as folds that validate the even and the odd images, and train on the others."""
    found = [copy(run) for run in runs]
    names = runs[0].split.val
    for fold, run in enumerate(found):
        run.split = Split(names[1 - fold :: 2], names[fold::2])
        run.folder = runs[0].folder / "cv" / run.folder.name
        run.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(runs[0].folder / "run.json", run.folder)
    return found


def test_folds_are_scored_each_on_what_it_did_not_train_on(folds, runs, tmp_path):
    source = runs[0].facts.source
    found = evaluate(folds, source, say=lambda text: None)
    assert set(found.names) == set(runs[0].split.val)
    dataset = runs[0].open(source)
    for run in folds:
        for name in run.split.val:
            sample = dataset[name]
            (p_khw,) = run.predictor([sample.image])
            wanted = confusion((p_khw[0] >= run.threshold).astype(np.uint8), sample.label, 2)
            np.testing.assert_array_equal(found.images[found.names.index(name)].matrix, wanted)
    assert (found.folds, found.trained_on) == (2, 0)
    assert "9 images (val, each by the one of 2 folds that did not train on it)" in found.table()
    said = report([folds, runs[1]], tmp_path / "r.html", say=lambda text: None)
    assert "cv (2 folds)" in said
    data = collect([folds], source, "val", 50, lambda text: None)
    shown = {image["name"]: image["runs"][0]["probability"][0] for image in data["images"]}
    for run in folds:
        alone = collect([run], source, "val", 50, lambda text: None)
        for image in alone["images"]:
            assert shown[image["name"]] == image["runs"][0]["probability"][0]
    with pytest.raises(
        RunError, match="cv: the doctor examines a single run; give one of its folds"
    ):
        report([folds], tmp_path / "d.html", doctor=True)


def test_an_average_with_a_run_that_trained_on_the_images_says_so(folds, runs):
    source, count = runs[0].facts.source, len(folds[0].split.val)
    found = evaluate(folds[0], source, others=folds[1:], say=lambda text: None)
    assert found.trained_on == count
    assert f"{count} of these images are training images of the network that pred" in found.table()
    assert evaluate(folds, source, "all", say=lambda text: None).trained_on == 9
    alone = evaluate(folds[0], source, say=lambda text: None)
    assert alone.trained_on == 0
    assert "training images of the network" not in alone.table()


def test_the_history_of_folds_is_their_mean():
    one = {"epoch": 1, "loss": 1.0, "val_dice": None}
    other = {"epoch": 1, "loss": 2.0, "val_dice": 0.5}
    later = {"epoch": 2, "loss": 4.0, "val_dice": None}
    assert mean_history([[one, later], [other]]) == [{**other, "loss": 1.5}, later]
