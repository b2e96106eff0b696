"""The post-mortem of a NaN: which tensor was the first, and the batch that made it."""

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
"""Classes by name: tinygrad's own layers have the same ones."""


def nan_report(
    folder: Path,
    step: TrainStep,
    number: int,
    fault: str,
    image: Tensor,
    label: Tensor,
    names: Sequence[str],
) -> NonFiniteError:
    """Saves the batch and returns the error: the fault, and where the first NaN or infinity is.

    The step left parameters and optimizer as they were, so the batch can be tried again from there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    saved = folder / f"nonfinite-step-{number}.npz"
    np.savez_compressed(saved, image=image.numpy(), label=label.numpy(), names=np.array(names))
    where = first_not_finite(step, image, label, names)
    wider = ", or train.precision=bfloat16" if step.loss_scale.state else ""
    return NonFiniteError(
        f"step {number}: {fault}; first in {where}; batch: {', '.join(names)} "
        f"(saved as {saved}); learning rate {step.learning_rate:.3g}: mend the image, or start "
        f"a new run with a lower rate or train.grad_clip=1{wider}"
    )


def first_not_finite(step: TrainStep, image: Tensor, label: Tensor, names: Sequence[str]) -> str:
    """In the order of the computation: images, parameters, layers' outputs, losses, gradients.

    Gradients from the last parameter to the first, as the backward pass makes them.
    """
    given = image
    image, label = step.augment.again(image, label)
    for kind, batch in (("image", given), ("augmented image", image)):
        for name, pixels in zip(names, batch.numpy(), strict=True):
            if not np.isfinite(pixels).all():
                return f"the {kind} {name}"
    for name, tensor in step.state.items():
        if not _finite(tensor.numpy()):
            return f"the weights {name}"
    with record_outputs(step.model) as layer_outputs:
        logits = step.forward(image)
    outputs = [(f"the output of {name}", output) for name, output in layer_outputs]
    terms = step.loss(logits, label)
    gradients = step.gradients(terms["loss"])  # before any of it is realized: its history is gone
    found = [*outputs, ("the logits", logits)]
    found += [(f"the loss term {name}", value) for name, value in terms.items()]
    found += [(f"the gradient of {name}", value) for name, value in reversed(gradients.items())]
    for name, tensor in found:
        if not _finite(tensor.numpy()):
            return name
    if not np.isfinite(joint_norm(gradients).item()):
        return "the gradients' joint norm: each is finite, but their squares exceed float32"
    return "a sum too small to be seen outside of the compiled step"


@contextmanager
def record_outputs(model: Any) -> Iterator[list[tuple[str, Tensor]]]:
    """While it lasts, the outputs of the model's layers are kept, by the layers' names."""
    watched = [(n, layer) for n, layer in layers(model) if type(layer).__name__ in LAYERS]
    names, kinds = {id(layer): n for n, layer in watched}, {type(layer) for _, layer in watched}
    outputs: list[tuple[str, Tensor]] = []
    originals = {kind: kind.__call__ for kind in kinds}

    def watch(kind: type) -> Any:
        @functools.wraps(originals[kind])
        def call(self: Any, *arguments: Any, **options: Any) -> Any:
            result = originals[kind](self, *arguments, **options)
            outputs.append((names.get(id(self), kind.__name__), result))
            return result

        return call

    try:
        for kind in kinds:
            kind.__call__ = watch(kind)
        yield outputs
    finally:
        for kind, original in originals.items():
            kind.__call__ = original


def _finite(array: Array) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
