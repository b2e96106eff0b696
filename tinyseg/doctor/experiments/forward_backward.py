"""One batch through the untrained network, forward and backward, with the numbers on its way."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.device.tensors import copy_, restored, to_device
from tinyseg.doctor.experiments.step_probe import root_mean_square
from tinyseg.doctor.experiments.trace import Layer, measure, traced
from tinyseg.doctor.project import Project
from tinyseg.nn import forward, layers, state_dict
from tinyseg.training.nan_report import NORMS, record_outputs

SYMMETRIC = 1e-3
"""Relative difference of gradients up to which channels count as equal."""


@dataclass(frozen=True)
class ForwardBackward:
    """One batch through the untrained network, forward and backward."""

    logits: Array
    """(B, K, S, S) in training mode."""
    evaluated: Array
    """The logits in evaluation mode."""
    outputs: dict[str, Array]
    """Outputs (B, C, H, W) of the normalization layers, after their ReLU."""
    gradients: dict[str, Array] | None
    """The gradient of each weight; None if the loss is not known."""
    loss: float
    """nan if it is not known."""
    layers: list[Layer]
    """What the network computes, in order."""

    @property
    def sizes(self) -> dict[str, float]:
        """Root mean square of the gradient of each weight."""
        return {name: root_mean_square(g) for name, g in (self.gradients or {}).items()}


def forward_backward(project: Project) -> ForwardBackward:
    """Run the first batch; weights and running statistics stay as they are."""
    weights = project.state.parameters  # first: a Tensor that is realized later loses its graph
    image, label = project.batches(1)[0]
    with traced() as events:
        logits, outputs = normalized(project.model, image)
    gradients, loss = dict[str, Tensor](), Tensor([float("nan")])
    if project.loss_is_known:
        loss = project.loss(logits, label)["loss"]
        gradients = dict(zip(weights, loss.gradient(*weights.values()), strict=True))
    tensors = [tensor for event in events for tensor in (event.input, event.output)]
    Tensor.realize(logits, loss, *outputs.values(), *gradients.values(), *tensors)
    return ForwardBackward(
        logits.numpy(),
        project.forward(image, training=False).numpy(),
        {name: output.numpy() for name, output in outputs.items()},
        {n: g.numpy() for n, g in gradients.items()} if project.loss_is_known else None,
        float(loss.reshape(-1)[0].item()),
        measure(events, logits),
    )


def normalized(model: Any, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits in training mode and the outputs of the normalization layers."""
    types = {name: type(layer).__name__ for name, layer in layers(model)}
    with record_outputs(model) as outputs, restored(state_dict(model).values()):
        logits = forward(model, image, training=True)
    return logits, {name: output for name, output in outputs if types.get(name) in NORMS}


def without_gradient(project: Project) -> list[str]:
    """Return the weights without gradient, also where weights of 0 are replaced by random ones.

    A branch that ends with weights of 0 blocks the gradient in the first step only.
    """
    result = project.once(forward_backward)
    missing = [name for name, size in result.sizes.items() if size == 0]
    weights = project.state.parameters
    zeros = [name for name, tensor in weights.items() if not tensor.numpy().any()]
    if not missing or not zeros:
        return missing
    with _random_for_zero(weights, zeros):
        image, label = project.batches(1)[0]
        loss = project.loss(project.forward(image, training=True), label)["loss"]
        again = loss.gradient(*(weights[name] for name in missing))
        Tensor.realize(*again)
        return [n for n, g in zip(missing, again, strict=True) if not g.numpy().any()]


@contextmanager
def _random_for_zero(weights: dict[str, Tensor], names: list[str]) -> Iterator[None]:
    rng = np.random.default_rng(0)
    before = {name: weights[name].numpy().copy() for name in names}
    try:
        for name, array in before.items():
            copy_(weights[name], (0.1 * rng.normal(size=array.shape)).astype(array.dtype))
        yield
    finally:
        for name, array in before.items():
            copy_(weights[name], array)


def symmetric_weights(project: Project) -> list[str]:
    """Return the kernels whose output channels are equal and get equal gradients."""
    result = project.once(forward_backward)
    kernels = {n: t.numpy() for n, t in project.state.parameters.items() if t.ndim > 1}
    equal = []
    for name, kernel in kernels.items():
        if len(kernel) < 2 or np.ptp(kernel, axis=0).any():
            continue
        gradient = (result.gradients or {}).get(name)
        known = gradient is not None and bool(gradient.any())
        if not known and not kernel.any() and result.logits.std() > 0:
            continue  # a branch of zeros
        if gradient is None or np.ptp(gradient, axis=0).max() <= SYMMETRIC * np.abs(gradient).max():
            equal.append(name)
    return equal


def nonlinearity(project: Project) -> float:
    """Return how far the network is from f((a + b) / 2) = (f(a) + f(b)) / 2, in std of its logits.

    In evaluation mode, where BatchNorm is linear, with mean in place of maximum pooling and without
    other normalization: 0 for a network without activations, infinite for constant logits.
    """
    image = project.batches(1)[0][0].numpy()
    other = 3 * np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    with _linear_pooling():
        f, g, middle = (
            project.forward(to_device(x.astype(np.float32)), training=False).numpy()
            for x in (image, other, (image + other) / 2)
        )
    scale = float((f - g).std())
    if not scale > SYMMETRIC * max(float(np.abs(f).max()), 1e-12):
        return np.inf  # constant: another check says so
    return float(np.abs(middle - (f + g) / 2).max()) / scale


@contextmanager
def _linear_pooling() -> Iterator[None]:
    """Replace what is not linear, but no activation, in tinygrad's functions."""
    before = Tensor.max_pool2d, Tensor.layernorm

    def pool(x: Tensor, kernel_size: Any = (2, 2), *rest: Any, **named: Any) -> Tensor:
        named.pop("return_indices", None)
        return x.avg_pool2d(kernel_size, *rest[:4], **named)

    Tensor.max_pool2d = pool
    Tensor.layernorm = lambda x, *_, **__: x
    try:
        yield
    finally:
        Tensor.max_pool2d, Tensor.layernorm = before


def batch_mixing(project: Project) -> float:
    """Return how much the logits of an image change with the others of its batch, in their std.

    In evaluation mode, where images are predicted independently.
    """
    image = project.batches(1)[0][0].numpy()
    if len(image) < 2:
        return 0.0
    others = image.copy()
    others[1:] = 2 * np.random.default_rng(0).normal(size=image[1:].shape)
    one, two = (project.forward(to_device(x), training=False).numpy()[0] for x in (image, others))
    return float(np.abs(one - two).max() / max(float(one.std()), 1e-12))
