"""What compiled code depends on."""

import platform
from pathlib import Path

import pytest

from tinyseg.device import environment
from tinyseg.device.environment import cpu_model, versions


def test_versions_and_processor_are_told() -> None:
    found = versions()
    assert found["tinygrad"].startswith("0.13")
    assert found["python"] == platform.python_version()
    assert {"tinyseg", "numpy", "pillow", "scipy", "platform"} <= set(found)
    assert all(found.values())
    assert cpu_model()
    assert environment._version("no-such-package") == "not installed"


def test_the_processor_is_told_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> str:
        raise OSError("no /proc")

    monkeypatch.setattr(Path, "read_text", missing)
    assert cpu_model() == (platform.processor() or platform.machine())
