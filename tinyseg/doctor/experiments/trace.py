"""What a network computes from an image to its logits: convolutions, norms, activations, in order.

Calls are recognized by the code that runs, so functions that a network holds on to (such as
`Tensor.relu` in a list of layers) are recorded as well as methods and layers.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np
from tinygrad import Tensor, nn

from tinyseg import kernels
from tinyseg import nn as own
from tinyseg.common.arrays import Array

RECTIFIERS = (
    *("relu", "leaky_relu", "gelu", "silu", "swish", "elu", "mish", "hardswish", "relu6", "celu"),
    *("selu", "softplus", "quick_gelu"),
)
BOUNDED = ("sigmoid", "tanh", "softmax", "hardsigmoid", "hardtanh", "softsign", "log_softmax")
OTHERS = (
    *("exp", "exp2", "square", "abs", "sign", "clip", "clamp", "maximum", "minimum", "where"),
    *("pow", "round", "floor", "dropout", "scaled_dot_product_attention"),
)
CONVOLUTIONS = ("conv2d", "conv_transpose2d", "linear")
NORMS = ("batchnorm", "layernorm")


@dataclass(frozen=True)
class Event:
    """One call and the statistics of what went in and came out."""

    name: str
    kind: str
    """convolution, norm, rectifier, bounded or other."""
    owner: Any
    """The layer, where a layer was called."""
    argument: float
    """The axis of a softmax, the probability of a dropout."""
    input: Tensor
    output: Tensor


def _code(thing: Any) -> CodeType:
    return inspect.unwrap(thing).__code__  # type: ignore[no-any-return]


def _known() -> dict[CodeType, tuple[str, str]]:
    """Return names and kinds of calls by their code."""
    kinds = {"rectifier": RECTIFIERS, "bounded": BOUNDED, "other": OTHERS}
    kinds |= {"convolution": CONVOLUTIONS, "norm": NORMS}
    known = {
        _code(getattr(Tensor, name)): (name, kind)
        for kind, names in kinds.items()
        for name in names
        if hasattr(Tensor, name)
    }
    layers: dict[str, tuple[Any, ...]] = {
        "convolution": (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, own.Conv2d, own.ConvTranspose2d),
        "norm": (nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, nn.LayerNorm2d),
        "rectifier": (own.BatchNorm, own.GroupNorm, own.Identity),
    }
    for kind, types in layers.items():
        known |= {_code(one.__call__): (one.__name__, kind) for one in types}
    return known | {
        _code(kernels.relu): ("relu", "rectifier"),
        _code(kernels.conv2d): ("conv2d", "convolution"),
    }


@contextmanager
def traced() -> Iterator[list[Event]]:
    """Record the outermost known calls meanwhile: a sigmoid within a SiLU is not one."""
    events, open_frames, known = list[Event](), list[FrameType](), _known()
    inputs: dict[FrameType, tuple[Any, Tensor, float]] = {}
    before = sys.getprofile()

    def profile(frame: FrameType, event: str, result: Any) -> None:
        if event == "call" and frame.f_code in known:
            open_frames.append(frame)
            if len(open_frames) == 1:
                inputs[frame] = _arguments(frame)
        elif event == "return" and open_frames and frame is open_frames[-1]:
            open_frames.pop()
            owner, tensor, argument = inputs.pop(frame, (None, None, 0.0))
            if not open_frames and isinstance(tensor, Tensor) and isinstance(result, Tensor):
                events.append(Event(*known[frame.f_code], owner, argument, tensor, result))

    sys.setprofile(profile)
    try:
        yield events
    finally:
        sys.setprofile(before)


def _arguments(frame: FrameType) -> tuple[Any, Any, float]:
    """Return the layer, the input and the number among the arguments of a call."""
    values = [frame.f_locals.get(name) for name in frame.f_code.co_varnames[:3]]
    owner = None if isinstance(values[0], Tensor) else values[0]
    tensor = next((value for value in values if isinstance(value, Tensor)), None)
    number = next((v for v in values[1:] if isinstance(v, int | float)), -1)
    return owner, tensor, float(number)


@dataclass(frozen=True)
class Layer:
    """An event in numbers."""

    name: str
    kind: str
    owner: Any
    argument: float
    shape: tuple[int, ...]
    """Of its output."""
    input_rms: float
    rms: float
    low: float
    high: float
    dead: float
    """Share of the channels that are 0 everywhere."""
    extreme: float
    """Share of values within 3 % of the ends of its range."""
    moments: tuple[Array, Array]
    """Mean and variance of each channel of its input."""
    is_output: bool
    """Whether its output is the network's."""


def measure(events: list[Event], logits: Tensor) -> list[Layer]:
    """Return events in numbers; their Tensors must be realized."""
    return [_measure(one, logits) for one in events]


def _measure(event: Event, logits: Tensor) -> Layer:
    entered, left = event.input.numpy(), event.output.numpy()
    axes = tuple(i for i in range(left.ndim) if i != 1)
    channels = np.abs(left).max(axis=axes) if left.ndim > 1 and left.size else np.ones(1)
    low, high = (float(left.min()), float(left.max())) if left.size else (0.0, 0.0)
    ends = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}.get(event.name)
    extreme = 0.0
    if ends:
        margin = 0.03 * (ends[1] - ends[0]) / 2
        extreme = float(((left < ends[0] + margin) | (left > ends[1] - margin)).mean())
    return Layer(
        *(event.name, event.kind, event.owner, event.argument, tuple(map(int, left.shape))),
        *(_rms(entered), _rms(left), low, high, float((channels == 0).mean()), extreme),
        _moments(entered) if event.kind in ("norm", "rectifier") else (np.zeros(0), np.zeros(0)),
        left.shape == logits.shape and np.array_equal(left, logits.numpy(), equal_nan=True),
    )


def _rms(array: Array) -> float:
    return float(np.sqrt(np.mean(np.square(array, dtype=np.float64)))) if array.size else 0.0


def _moments(array: Array) -> tuple[Array, Array]:
    axes = tuple(i for i in range(array.ndim) if i != 1)
    return array.mean(axis=axes, dtype=np.float64), array.var(axis=axes, dtype=np.float64)
