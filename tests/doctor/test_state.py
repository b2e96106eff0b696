"""Whatever a step keeps, and wherever, is put back."""

from typing import Any

import numpy as np
import pytest
from tiny import TwoLayers
from tinygrad import Tensor, TinyJit, nn

from tinyseg.device.random import tinygrad_random
from tinyseg.device.tensors import to_device
from tinyseg.doctor.state import State, tensors_of
from tinyseg.training.step import TrainStep


def tensor(value: float) -> Tensor:
    return to_device(np.array([value], np.float32))


class Holder:
    def __init__(self, **parts: Any):
        self.__dict__.update(parts)

    def method(self) -> None:
        pass


def test_tensors_are_found_in_attributes_containers_closures_and_bound_objects() -> None:
    a, b, c, d, e = (tensor(i) for i in range(5))
    inner = Holder(x=a, items=[b, {"key": c}])

    def step() -> Tensor:
        return d + 1

    jitted = TinyJit(step)
    for thing, expected in (
        (inner, {a, b, c}),
        (inner.method, {a, b, c}),
        (lambda: jitted(e), {d, e}),
        (Holder(jit=TinyJit(inner.method)), {a, b, c}),
    ):
        assert {id(t) for t in tensors_of(thing)} == {id(t) for t in expected}


def test_a_loop_of_objects_ends() -> None:
    one, other = Holder(x=tensor(1)), Holder()
    one.other, other.one = other, one
    assert len(list(tensors_of(other))) == 1


@pytest.mark.slow
def test_all_of_a_step_is_saved_and_put_back() -> None:
    model = TwoLayers()
    step = TrainStep(model, optimizer="adam(lr=0.1)", jit=False, canary=False)
    state = State(step, model)
    assert {id(t) for t in step.state.values()} <= {id(t) for t in state.tensors}
    before = state.save()
    step(to_device(np.ones((1, 1, 8, 8), np.float32)), to_device(np.ones((1, 8, 8), np.uint8)))
    after = state.save()
    assert any(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))
    state.load(before)
    assert all(np.array_equal(x, y) for x, y in zip(before, state.save(), strict=True))


def test_weights_that_tinygrad_has_not_drawn_yet_are_drawn_once() -> None:
    layer = nn.Linear(3, 2)
    state = State(lambda: layer, layer)
    first = layer.weight.numpy()
    assert len(state.tensors) == 2 + len(tinygrad_random())
    layer.weight.assign(layer.weight + 1).realize()
    state.load([np.zeros((2, 3), np.float32), *state.save()[1:]])
    assert not layer.weight.numpy().any()
    assert first.any()


def test_what_tinygrad_draws_is_put_back_too() -> None:
    Tensor.manual_seed(3)
    step = TinyJit(lambda x: x.dropout(0.5).sum().realize())
    state, x = State(step, None), to_device(np.arange(64, dtype=np.float32))
    before, runs = state.save(), []
    with Tensor.train():
        for _ in range(2):
            state.load(before)
            runs.append([step(x).item() for _ in range(4)])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4
