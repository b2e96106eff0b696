"""The report on a NaN or an infinity: which Tensor had it first, and in which batch."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.errors import NonFiniteError
from tinyseg.nn import layers
from tinyseg.training.optimizer import joint_norm
from tinyseg.training.step import TrainStep

NORMS = ("BatchNorm", "GroupNorm", "InstanceNorm", "Identity")
LAYERS = ("Conv2d", "ConvTranspose2d", *NORMS, "AttentionGate")
"""Names of classes; tinygrad's own layers have the same."""


def nan_report(
    folder: Path,
    step: TrainStep,
    number: int,
    fault: str,
    image: Tensor,
    label: Tensor,
    names: Sequence[str],
) -> NonFiniteError:
    """Save the batch and return the error: the fault, and where the first NaN or infinity is.

    The step left parameters and optimizer as they were, so the batch can be tried again from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / f"nonfinite-step-{number}.npz"
    np.savez_compressed(saved, image=image.numpy(), label=label.numpy(), names=np.array(names))
    where = first_not_finite(step, image, label, names)
    wider = ", or train.precision=bfloat16" if step.loss_scale.state else ""
    return NonFiniteError(
        f"step {number}: {fault}; first in {where}; batch: {', '.join(names)} "
        f"(saved as {saved}); learning rate {step.learning_rate:.3g}: fix the image, or start "
        f"a new run with a lower rate or train.grad_clip=1{wider}; `tinyseg doctor` checks the rest"
    )


def first_not_finite(step: TrainStep, image: Tensor, label: Tensor, names: Sequence[str]) -> str:
    """Return where the first value is that is not finite, in words.

    Images, weights, outputs of layers, losses and gradients are looked at in the order of their
    computation: gradients from the last parameter to the first.
    """
    original = image
    image, label = step.augment.again(image, label)
    for what, batch in (("image", original), ("augmented image", image)):
        for name, pixels in zip(names, batch.numpy(), strict=True):
            if not np.isfinite(pixels).all():
                return f"the {what} {name}"
    for name, tensor in step.state.items():
        if not _finite(tensor.numpy()):
            return f"the weights {name}"
    with record_outputs(step.model) as layer_outputs:
        logits = step.forward(image)
    outputs = [(f"the output of {name}", output) for name, output in layer_outputs]
    terms = step.loss(logits, label)
    gradients = step.gradients(terms["loss"])  # before any of it is realized: its history is gone
    tensors = [*outputs, ("the logits", logits)]
    tensors += [(f"the loss term {name}", value) for name, value in terms.items()]
    tensors += [(f"the gradient of {name}", value) for name, value in reversed(gradients.items())]
    for name, tensor in tensors:
        if not _finite(tensor.numpy()):
            return name
    if not np.isfinite(joint_norm(gradients).item()):
        return "the gradients' joint norm: each is finite, but their squares exceed float32"
    return "a sum too small to be seen outside of the compiled step"


@contextmanager
def record_outputs(model: Any) -> Iterator[list[tuple[str, Tensor]]]:
    """Record the outputs of the model's layers meanwhile, with the names of the layers."""
    watched = [(n, layer) for n, layer in layers(model) if type(layer).__name__ in LAYERS]
    names, types = {id(layer): n for n, layer in watched}, {type(layer) for _, layer in watched}
    outputs: list[tuple[str, Tensor]] = []
    originals = {layer_type: layer_type.__call__ for layer_type in types}

    def recording(layer_type: type) -> Any:
        @functools.wraps(originals[layer_type])
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            result = originals[layer_type](self, *arguments, **options)
            outputs.append((names.get(id(self), layer_type.__name__), result))
            return result

        return call

    try:
        for layer_type in types:
            layer_type.__call__ = recording(layer_type)
        yield outputs
    finally:
        for layer_type, original in originals.items():
            layer_type.__call__ = original


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
