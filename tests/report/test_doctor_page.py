"""What the doctor says, in a real browser."""

import dataclasses

import numpy as np
import pytest

from tinyseg.common.findings import Finding
from tinyseg.doctor import Diagnosis
from tinyseg.report import diagnosis_page

HOSTILE = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 90, 3)).astype(np.uint8)
FINDINGS = (
    Finding("ok", "skips", "all count"),
    Finding("note", "empty masks", "masks: 9", evidence=tuple(f"image {i}" for i in range(9))),
    Finding("warning", "loss balance", HOSTILE, remedy='set train.loss="0.5*bce+0.5*dice" or so'),
    Finding(
        "error",
        "learning rate",
        f"one step at {HOSTILE}",
        "a thousand steps change nothing",
        "raise it: train.optimizer=adam(lr=0.001), then `tinyseg doctor DATA` again",
        (HOSTILE,),
        PICTURE,
    ),
)
DIAGNOSIS = Diagnosis(f"data {HOSTILE}", FINDINGS, {"data": 1.25, "step": 3.0})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("doctor") / "doctor.html"
    path.write_text(diagnosis_page(DIAGNOSIS), encoding="utf-8")
    return path


def opened(page, path, width=1000, **look):
    page.look(width, 900, **look)
    page.open(path)
    page.wait("document.querySelectorAll('.finding').length === 4")


def texts(page, selector):
    return page.eval(f"[...document.querySelectorAll('{selector}')].map((e) => e.textContent)")


def test_the_worst_comes_first_with_its_remedy_as_code(page, path):
    opened(page, path)
    assert texts(page, ".finding h3") == [
        "error learning rate",
        "warning loss balance",
        "note empty masks",
        "ok skips",
    ]
    assert texts(page, ".verdict") == [DIAGNOSIS.verdict]
    assert texts(page, ".remedy code") == [
        "train.optimizer=adam(lr=0.001)",
        "tinyseg doctor DATA",
        'train.loss="0.5*bce+0.5*dice"',
    ]
    assert texts(page, ".finding p")[0] == FINDINGS[3].seen
    assert sum(text.startswith("image ") for text in texts(page, ".evidence li")) == 9
    assert page.complaints() == []


def test_names_from_files_do_not_run_and_pictures_are_shown(page, path):
    opened(page, path)
    assert page.eval("typeof window.hacked") == "undefined"
    assert texts(page, "h1") == [DIAGNOSIS.source]
    size = "(({naturalWidth: w, naturalHeight: h}) => [w, h])(document.querySelector('.proof'))"
    page.wait("document.querySelector('.proof').complete")
    assert page.eval(size) == [90, 40]
    assert page.eval("document.querySelectorAll('img').length") == 1


def test_a_phone_shows_it_without_scrolling_sideways(page, path):
    opened(page, path, width=360)
    assert page.eval("document.documentElement.scrollWidth") <= 360


def test_the_json_has_all_but_the_picture():
    told = DIAGNOSIS.to_json()
    names = {field.name for field in dataclasses.fields(Finding)} - {"picture"}
    assert all(set(finding) == names for finding in told["findings"])
    assert told["first"]["check"] == "learning rate"
