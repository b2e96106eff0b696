"""The choice of the device."""

from types import SimpleNamespace

import pytest
from tinygrad.helpers import CPU_COUNT

from tinyseg.device import choose as module
from tinyseg.device.choose import backend


def test_the_choice_gives_its_reason_in_words() -> None:
    chosen = backend()
    assert chosen is backend()
    assert chosen.device in chosen.reason
    assert "because" in chosen.reason
    assert chosen.threads == CPU_COUNT.value >= 1
    assert (chosen.compiler is not None) is (chosen.device == "CPU")


def test_asked_for_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEV", "CPU")
    monkeypatch.setattr(module, "DEV", SimpleNamespace(device="CPU", renderer="", value="CPU"))
    assert module._choose_device() == ("CPU", "CPU because DEV=CPU asks for it")


def test_the_first_gpu_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    device = SimpleNamespace(device="", renderer="", value="")
    monkeypatch.setattr(module, "DEV", device)
    monkeypatch.setattr(module, "_opens", lambda name: asked.append(name) or name == "CUDA")
    assert module._choose_device() == (
        "CUDA",
        "CUDA because it is the first GPU that can be opened",
    )
    assert asked == ["METAL", "AMD", "NV", "CUDA"]
    assert device.value == "CUDA"
    monkeypatch.setattr(module, "_opens", lambda name: False)
    assert module._choose_device() == ("CPU", "CPU because no GPU can be opened")
    assert device.value == "CPU"


@pytest.mark.parametrize("error", [RuntimeError, OSError, AssertionError, KeyError, AttributeError])
def test_a_driver_that_fails_in_any_way_is_not_there(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    class Devices:
        def __getitem__(self, name: str) -> object:
            raise error(name)

    monkeypatch.setattr(module, "Device", Devices())
    assert module._opens("CUDA") is False


def test_an_opencl_that_is_only_the_cpu_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "may_be_there", lambda name: False)
    monkeypatch.setattr(module, "Device", {"CL": SimpleNamespace(renderer=object())})
    assert module._opens("CL") is False
    monkeypatch.setattr(module, "may_be_there", lambda name: True)
    assert module._opens("CL") is True
