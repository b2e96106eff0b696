"""Arrays on the device, and which Tensors enter a jitted step."""

import numpy as np
import pytest
from tinygrad import Tensor

from tinyseg.device.capture import JitFunction
from tinyseg.device.tensors import copy_, ensure_buffer, owns_buffer, to_device


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.int32, np.uint32, np.float16, np.bool_])
@pytest.mark.parametrize("shape", [(3, 4), (5,), (1,), ()])
def test_what_is_uploaded_comes_back(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.array(np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3, dtype)
    tensor = to_device(array)
    assert tensor.shape == shape
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert tensor.numpy().dtype == dtype


def test_an_upload_is_a_copy() -> None:
    array = np.arange(6, dtype=np.float32)
    tensor = to_device(array)
    array[:] = -1
    assert tensor.numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_turned_strided_and_read_only_arrays_are_uploaded_as_they_look() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    read_only = np.frombuffer(array.tobytes(), np.float32).reshape(4, 6)
    for view in (array.T, array[::2, 1::3], array[:, ::-1], read_only):
        np.testing.assert_array_equal(to_device(view).numpy(), view)


def test_overwrite_reaches_all_that_share_the_buffer() -> None:
    tensor = to_device(np.zeros((2, 3), np.float32))
    twice = tensor * 2
    copy_(tensor, np.arange(6, dtype=np.float32).reshape(2, 3))
    assert tensor.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert twice.numpy().tolist() == [[0, 2, 4], [6, 8, 10]]


def test_what_waits_to_be_assigned_goes_into_the_buffer_that_is_there() -> None:
    """A jitted step knows the buffer: another one in its place would leave the step behind."""
    tensor = to_device(np.zeros(3, np.float32))
    buffer = tensor.uop.buffer
    tensor.assign(tensor + 1)
    assert not owns_buffer(tensor)
    ensure_buffer(tensor)
    assert owns_buffer(tensor)
    assert tensor.uop.buffer is buffer
    assert tensor.tolist() == [1, 1, 1]
    constant = Tensor.ones(3)
    ensure_buffer(constant)
    assert owns_buffer(constant)


def test_only_a_whole_realized_buffer_is_owned() -> None:
    whole = to_device(np.zeros((4, 3, 2), np.float32))
    assert owns_buffer(whole)
    assert owns_buffer(whole.reshape(12, 2))
    assert owns_buffer((whole + 1).realize())
    assert owns_buffer(whole.permute(2, 0, 1).clone().realize())
    assert owns_buffer(whole[1].clone().realize())
    for baked in (
        *(whole[1], whole[1].contiguous(), whole[1].contiguous().realize()),
        *(whole.permute(1, 0, 2), whole.flip(0), whole.shrink(((0, 2), None, None))),
        *(whole[:1].expand(4, 3, 2), whole + 1, Tensor.ones(3), Tensor(3.0)),
        *(Tensor.ones(3).contiguous(), Tensor.full((2,), 7)),
    ):
        assert not owns_buffer(baked)


@pytest.mark.parametrize(
    "make",
    [lambda t: t[1].contiguous().realize(), lambda t: t.permute(1, 0, 2).contiguous().realize()],
)
def test_what_is_owned_really_enters_a_jitted_step(make) -> None:
    """The oracle of `owns_buffer`: replays see the new argument when it says yes."""
    data = [to_device(np.full((4, 3, 2), value, np.float32)) for value in range(4)]
    step = JitFunction(lambda t: (t + 0).sum().realize())
    inputs = [make(tensor) for tensor in data]
    inputs = [t if owns_buffer(t) else t.clone().realize() for t in inputs]
    assert all(map(owns_buffer, inputs))
    found = [float(step(tensor).numpy()) for tensor in inputs]
    assert found == [value * inputs[0].numel() for value in range(4)]
