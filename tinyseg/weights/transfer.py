"""From a file of weights into a network: every tensor is used, or named as unused."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.config import ModelConfig
from tinyseg.device.tensors import copy_, realize_weights
from tinyseg.errors import WeightsError
from tinyseg.models import build
from tinyseg.nn import state_dict
from tinyseg.weights.file import Weights, read_weights
from tinyseg.weights.layouts import SAME_NAMES, Layout, layout_of, our_names
from tinyseg.weights.pretrained import weights_file
from tinyseg.weights.settings import settings_of

FIRST = (
    *("down.0.conv1.weight", "encoder.conv1.weight", "encoder.conv_stem.weight"),
    *("encoder.features.0.0.weight", "encoder.stem.convs.0.conv.weight"),
)
"""The first convolution of a network, which may meet images of another number of channels."""
HEADS = ("head.", "segmentation_head.0.", "decoder.seg_layers.")
"""The last convolution, which may meet another number of classes."""
EVEN_PADDING = "encoder.blocks.0.0.conv_dw.weight"
"""A name in SMP's `timm-efficientnet` encoders, which do not pad as TensorFlow does."""
COUNTER = "num_batches_tracked"
"""PyTorch's count of batches, which BatchNorm with a fixed momentum does not use."""
MOST_NAMES = 8


@dataclass
class Transfer:
    """What each tensor of a network gets from a file."""

    arrays: dict[str, Array] = field(default_factory=dict)
    """By our names; what is not in here keeps its initial values, and a note says so."""
    notes: list[str] = field(default_factory=list)
    """What was changed, and what keeps its initial values."""
    unused: list[str] = field(default_factory=list)
    """Names in the file of what the network has no place for."""


def load_weights(model: Any, config: ModelConfig, say: Callable[[str], None] = print) -> None:
    """Copy the file of `model.weights`, if any, into a network; say what was used and what not."""
    if not config.weights:
        return
    weights = read_weights(weights_file(config))
    found = transfer(model, weights)
    state = state_dict(model)
    realize_weights(state)
    for name, array in found.arrays.items():
        copy_(state[name], array)
    say(f"weights: {len(found.arrays)} tensors from {weights.path} ({_layout(weights).name})")
    for note in found.notes:
        say(f"weights: {note}")


def check_weights(model: Any, config: ModelConfig, channels: int, classes: int) -> None:
    """Raise WeightsError where the file of `model.weights` does not fit the network.

    The network is `model`, or the one that the settings describe where it is None.
    """
    if config.weights:
        model = build(config, channels, classes, seed=None) if model is None else model
        transfer(model, read_weights(weights_file(config)))


def transfer(model: Any, weights: Weights) -> Transfer:
    """Find an array for each tensor of a network; WeightsError, with names, where one has none."""
    layout = _layout(weights)
    theirs = our_names(weights.tensors, layout)
    state = {n: t for n, t in state_dict(model).items() if t.is_floating_point()}
    result, missing, unlike = Transfer(), list[str](), list[str]()
    for name, tensor in state.items():
        if name not in theirs:
            missing.append(name)
            continue
        array = weights.tensors[theirs[name]]
        fitted = _fitted(name, array, tensor, result)
        if fitted is not None:
            result.arrays[name] = fitted
        elif not name.startswith(HEADS):
            unlike.append(f"{theirs[name]} is {_shape(array)}, not {_shape(tensor)}")
    if layout.encoder_only and any(name.startswith("encoder.") for name in result.arrays):
        missing = [name for name in missing if name.startswith("encoder.")]
        result.notes.append("decoder and head keep their initial values: the file has none")
    if missing or unlike:
        reasons = [f"missing: {_listed(missing)}"] if missing else []
        reasons += [f"of another shape: {_listed(unlike)}"] if unlike else []
        fitting = settings_of(weights.tensors)
        raise WeightsError(
            f"{weights.path}: its tensors ({layout.name}) do not fit the network; "
            f"{'; '.join(reasons)}" + (f"; it is of a network with {fitting}" if fitting else "")
        )
    if EVEN_PADDING in weights.tensors:
        result.notes.append(
            "the file's encoder pads evenly and has eps 1e-5 in normalization; this one pads as "
            "TensorFlow and has 1e-3, so that outputs differ a little until it is trained"
        )
    used = {theirs[name] for name in result.arrays} | _fold_biases(result, theirs, weights)
    used |= {theirs[name] for name in state if name in theirs}  # also of a head that is not used
    result.unused = [name for name in weights.tensors if name not in used]
    result.notes += _notes_of(
        result.unused, {name: weights.tensors[name] for name in used}, weights
    )
    return result


def _layout(weights: Weights) -> Layout:
    return layout_of(weights.tensors) or SAME_NAMES


def _fitted(name: str, array: Array, tensor: Tensor, result: Transfer) -> Array | None:
    """Return the array in the tensor's shape; None where it is not to be had."""
    shape = tuple(int(size) for size in tensor.shape)
    if array.dtype.kind != "f":
        return None
    if array.shape == shape:
        return array
    if name in FIRST and (array.shape[0], *array.shape[2:]) == (shape[0], *shape[2:]):
        return _other_channels(array, shape[1], result)
    if name.startswith(HEADS) and array.shape[1:] == shape[1:] and array.ndim == len(shape):
        return _other_classes(array, shape[0], result)
    return None


def _other_channels(w_oihw: Array, channels: int, result: Transfer) -> Array:
    """Sum the weights of all channels, or tile and scale them, as SMP does."""
    before = w_oihw.shape[1]
    if channels == 1:
        result.notes.append(f"first convolution: weights of {before} channels are summed into 1")
        return np.asarray(w_oihw.sum(axis=1, keepdims=True))
    result.notes.append(
        f"first convolution: weights of {before} channels are repeated over {channels}, "
        f"times {before}/{channels}"
    )
    repeated = np.asarray(w_oihw[:, np.arange(channels) % before], np.float32)
    return np.asarray(repeated * np.float32(before / channels))


def _other_classes(array: Array, channels: int, result: Transfer) -> Array | None:
    """Return the head for a sigmoid or a softmax of two classes; None, with a note, for others."""
    before = len(array)
    if (before, channels) == (2, 1):
        note = "head: softmax of two classes, as the sigmoid with the same probabilities"
        fitted = array[1:] - array[:1]
    elif (before, channels) == (1, 2):
        note = "head: sigmoid, as the softmax of two classes with the same probabilities"
        fitted = np.concatenate([np.zeros_like(array), array])
    else:
        note = f"head: {before} channels in the file, {channels} here: it keeps its initial values"
        fitted = None
    if note not in result.notes:  # weight and bias have one
        result.notes.append(note)
    return fitted


def _fold_biases(result: Transfer, theirs: dict[str, str], weights: Weights) -> set[str]:
    """Move biases that batch normalization removes again into its mean; return their names."""
    folded = set()
    for ours, name in theirs.items():
        block, _, number = ours.removesuffix("bias").rpartition(".conv")
        mean = f"{block}.norm{number}running_mean"
        if ours.endswith(".bias") and ours not in result.arrays and mean in result.arrays:
            result.arrays[mean] = result.arrays[mean] - weights.tensors[name]
            folded.add(name)
    if folded:
        result.notes.append(f"{len(folded)} biases before batch normalization are in its means")
    return folded


def _notes_of(unused: list[str], used: dict[str, Array], weights: Weights) -> list[str]:
    places = {_place(array) for array in used.values()}
    copies = [name for name in unused if _place(weights.tensors[name]) in places]
    counters = [name for name in unused if name.endswith(COUNTER)]
    others = [name for name in unused if name not in {*copies, *counters}]
    notes = [f"not used: {_listed(others)}"] if others else []
    notes += [f"not used: {len(counters)} counters {COUNTER}"] if counters else []
    return notes + (
        [f"not used: {len(copies)} further names of the same tensors"] if copies else []
    )


def _place(array: Array) -> tuple[int, tuple[int, ...]]:
    """Return what tensors of a file that are one have in common."""
    return array.__array_interface__["data"][0], array.shape


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _shape(of: Array | Tensor) -> str:
    return "x".join(str(size) for size in of.shape) or "scalar"
