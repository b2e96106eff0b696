"""Checks that signal and gradient get through the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding
from tinyseg.device.tensors import to_device
from tinyseg.doctor.check import Check, custom_only, error, finding, ok, warning
from tinyseg.doctor.experiments.forward_backward import (
    batch_mixing,
    forward_backward,
    normalized,
    symmetric_weights,
    without_gradient,
)
from tinyseg.doctor.project import Project
from tinyseg.nn import Up, layers
from tinyseg.runs.checkpoint import any_in

DEAD, MANY_DEAD = 0.25, 0.5
"""Share of a layer's channels that are always 0: a warning, an error."""
FEW_VALUES = 16
"""Values of a channel in a batch below which its mean and variance are mostly noise."""
GRID = 4
"""An image is divided into GRID x GRID blocks."""
CORNERS = ((0, 0), (0, GRID - 1), (GRID - 1, 0))
"""Blocks (row, column) that are changed one by one."""
ROUNDING = 1e-6
"""Change of the logits, relative to their size, that rounding may explain."""


def weights_differ(project: Project) -> list[Finding]:
    """The output channels of a layer differ, or their gradients do."""
    equal = symmetric_weights(project)
    if not equal:
        return []
    kernels = sum(tensor.ndim > 1 for tensor in project.state.parameters.values())
    what = f"in {len(equal)} of {kernels} layers all channels start with equal weights"
    why = "channels that start equal get equal gradients and stay equal, like a single channel: "
    why += "the initialization has to break this symmetry"
    remedy = "initialize weights randomly (He et al. 2015), as tinyseg's layers do"
    return error("equal weights", what, why, remedy, equal)


def channels_are_alive(project: Project) -> list[Finding]:
    """Channels are above 0 for some pixel; else neither signal nor gradient passes them."""
    findings = _dead_channels(project.once(forward_backward).outputs, "")
    if findings or project.run is None or not any_in(project.run.checkpoints):
        return findings
    model = project.run.predictor.step.model
    outputs = {n: x.numpy() for n, x in normalized(model, project.batches(1)[0][0])[1].items()}
    trained = _dead_channels(outputs, " of the trained network")
    return [replace(one, level="warning") for one in trained]


def _dead_channels(outputs: dict[str, Array], of: str) -> list[Finding]:
    dead = {name: x.max(axis=(0, 2, 3)) <= 0 for name, x in outputs.items()}
    worst = max((float(flags.mean()) for flags in dead.values() if flags.size > 1), default=0.0)
    if worst < DEAD:
        return []
    count, total = (sum(map(f, dead.values())) for f in (np.count_nonzero, len))
    what = f"{count} of {total} channels{of} are 0 for every pixel of a batch; in the worst layer "
    why = "a channel that ReLU always sets to 0 has no gradient, so it stays dead"
    remedy = "initialize biases with 0 and weights as in He et al. 2015 (tinyseg's layers do), set "
    remedy += "model.norm=batch, or lower the learning rate"
    lines = [f"{name}: {x.sum()} of {x.size} channels" for name, x in dead.items() if x.any()]
    level = "error" if worst >= MANY_DEAD else "warning"
    return finding(level, "dead channels", f"{what}{worst:.0%} are", why, remedy, lines)


def output_depends_on_image(project: Project) -> list[Finding]:
    """Different images have different logits."""
    logits = project.once(forward_backward).logits
    if len(logits) < 2 or not np.isfinite(logits).all():
        return []
    apart = float(np.abs(logits[1:] - logits[:1]).max())
    if apart > ROUNDING * max(1.0, float(np.abs(logits).max())):
        return []
    what = "the network returns the same logits for every image"
    why = "no information from the image reaches the output, so no loss or learning rate can help"
    remedy = "follow an image through the layers and look for a constant, detach() or a factor of 0"
    return error("ignores input", what, why, remedy)


@custom_only
def evaluation_is_repeatable(project: Project) -> list[Finding]:
    """The same images have the same logits in evaluation mode."""
    logits, (image, _) = project.once(forward_backward).evaluated, project.batches(1)[0]
    apart = float(np.abs(project.forward(image, training=False).numpy() - logits).max())
    if not apart > ROUNDING * max(1.0, float(np.abs(logits).max())):
        return []
    what = (
        "in evaluation mode the network returns different logits when the same images are passed "
    )
    what += f"again (they differ by up to {apart:.2g})"
    why = "either a layer is created anew in each call, or dropout or noise stays on in prediction"
    remedy = "create all layers in __init__, and use dropout and noise only if training is true"
    return error("random output", what, why, remedy)


@custom_only
def pixels_keep_their_place(project: Project) -> list[Finding]:
    """Changing a corner of an image changes the logits of that corner most."""
    image, side = project.batches(1)[0][0].numpy()[0], project.config.data.size // GRID
    images, rng = [image], np.random.default_rng(0)
    for row, column in CORNERS:
        images.append(image.copy())
        block = images[-1][:, row * side :, column * side :][:, :side, :side]
        block[:] = rng.normal(size=block.shape) - block
    # in whole batches, for which the network may be compiled already: images are repeated
    count = -(-len(images) // project.config.train.batch_size) * project.config.train.batch_size
    batch = np.resize(np.stack(images), (count, *image.shape))
    whole, *others = project.forward(to_device(batch), training=False).numpy()[: len(images)]
    changed = [_most_changed(np.abs(other - whole).sum(axis=0), side) for other in others]
    pairs = zip(CORNERS, changed, strict=True)
    wrong = [(corner, place) for corner, place in pairs if place not in (None, corner)]
    if len(wrong) < len(CORNERS) - 1:
        return []
    what = f"for {len(wrong)} of {len(CORNERS)} corners, changing that corner of an image changes "
    why = "the network predicts pixels from other parts of the image: it can only memorize labels"
    remedy = "look in the network for reshape in place of permute, and for flips or transposes"
    lines = [f"image changed in {_block(a)}: logits change in {_block(b)}" for a, b in wrong if b]
    return error("places", f"{what}the logits somewhere else", why, remedy, lines)


def _most_changed(change: Array, side: int) -> tuple[int, int] | None:
    """Return row and column of the block that changed most; None if nothing changed."""
    cut = change[: GRID * side, : GRID * side]
    blocks = cut.reshape(GRID, side, GRID, side).sum(axis=(1, 3))
    row, column = divmod(int(blocks.argmax()), GRID)
    return (row, column) if blocks.any() else None


def _block(block: tuple[int, int]) -> str:
    return f"row {block[0] + 1}, column {block[1] + 1} of {GRID} x {GRID} blocks"


def output_is_logits(project: Project) -> list[Finding]:
    """The network does not end with a softmax."""
    logits = project.once(forward_backward).logits
    if logits.shape[1] < 2 or logits.min() < 0 or np.abs(logits.sum(axis=1) - 1).max() > 1e-3:
        return []
    what = "the network's outputs are positive and sum to 1 over the channels: they are "
    what += "probabilities, not logits"
    why = "the loss and prediction apply softmax again, which leaves all classes nearly equal"
    return error("softmax twice", what, why, "remove the softmax at the end of the network")


def all_weights_have_gradients(project: Project) -> list[Finding]:
    """Every weight has a gradient."""
    result = project.once(forward_backward)
    if result.gradients is None:
        return []
    missing = without_gradient(project)
    if missing and result.logits.std() > 0:
        what = f"{len(missing)} of {len(result.gradients)} weights get no gradient from the loss"
        why = "they keep their random initial values, which limits what the others can learn"
        remedy = (
            "after these weights, look for detach(), numpy(), a factor of 0, an unused branch, or "
            "a function without a gradient (sign, round, argmax, a comparison)"
        )
        return error("no gradient", what, why, remedy, missing)
    lines = [f"{name}: {size:.1e}" for name, size in result.sizes.items()]
    return ok("gradients", "root mean square of the gradient of each weight", evidence=lines)


def batch_norm_works(project: Project) -> list[Finding]:
    """In training mode BatchNorm normalizes by the batch, which is large enough for it."""
    norms = {name for name, layer in layers(project.model) if hasattr(layer, "running_mean")}
    if not norms:
        return []
    result = project.once(forward_backward)
    if np.array_equal(result.logits, result.evaluated):
        what = f"the network has {len(norms)} BatchNorm layers, but returns the same logits in "
        what += "training mode and in evaluation mode"
        why = "in training mode BatchNorm must normalize by the batch; by its running statistics, "
        why += "initially 0 and 1, it does not normalize at all"
        remedy = (
            "pass `training` on to every layer, and call the network with training=True in the "
            "step; for tinygrad's own layers, wrap the call in `with Tensor.train(training):`"
        )
        return error("eval mode", what, why, remedy)
    values = {n: x.size // x.shape[1] for n, x in result.outputs.items() if n in norms}
    few = [f"{name}: {count} values" for name, count in values.items() if count < FEW_VALUES]
    if not few:
        return []
    what = f"{len(few)} BatchNorm layers normalize over fewer than {FEW_VALUES} values per channel"
    why = (
        "the mean and variance of so few values are noisy, and differ from those used in evaluation"
    )
    remedy = "raise train.batch_size or data.size, lower model.depth, or set model.norm=group"
    return warning("batch size", what, why, remedy, few)


def skip_connections_count(project: Project) -> list[Finding]:
    """Each skip connection changes the logits."""
    ups = [(name, layer) for name, layer in layers(project.model) if isinstance(layer, Up)]
    if not ups:
        return []
    image, _ = project.batches(1)[0]
    whole, changes = project.once(forward_backward).logits, dict[str, float]()
    for name, up in ups:
        with _without_skip(up):
            logits = project.forward(image, training=True).numpy()
        changes[name] = float(np.abs(logits - whole).max() / max(whole.std(), 1e-12))
    unused = [name for name, change in changes.items() if change <= ROUNDING]
    if unused:
        what = f"{len(unused)} of {len(ups)} skip connections do not change the output"
        why = "skip connections carry the fine edges: without them, masks are blurred"
        remedy = "look for a factor of 0, or for the wrong tensor, where the skip is concatenated"
        return error("skips", what, why, remedy, unused)
    lines = [f"{name}: the logits change by {c:.2g} std without it" for name, c in changes.items()]
    return ok(
        "skips", f"{len(ups)} of {len(ups)} skip connections change the output", evidence=lines
    )


@contextmanager
def _without_skip(up: Up) -> Iterator[None]:
    """Replace the skip connection of one block with zeros."""
    block = type(up)
    original = block.__call__

    def call(self: Any, x_bchw: Tensor, skip_bchw: Tensor, training: bool) -> Tensor:
        skip = Tensor.zeros(*skip_bchw.shape, dtype=skip_bchw.dtype).contiguous()
        return original(self, x_bchw, skip if self is up else skip_bchw, training)

    block.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        block.__call__ = original  # type: ignore[method-assign]


@custom_only
def images_are_independent(project: Project) -> list[Finding]:
    """In evaluation mode the logits of an image do not depend on the others of its batch."""
    change = project.once(batch_mixing)
    if change <= 1e-3:
        return []
    what = "in evaluation mode the logits of an image change with the other images of its batch, "
    what += f"by up to {change:.2g} of their std"
    why = "predictions then depend on which images happen to be predicted together: BatchNorm uses "
    why += "batch statistics in evaluation mode, or a softmax, mean or reshape mixes the batch"
    remedy = "pass training=False on to BatchNorm in evaluation mode, and check axes: the batch "
    return error("batch mixing", what, why, f"{remedy}is axis 0, and no operation may reduce it")


NETWORK_CHECKS: tuple[Check, ...] = (
    weights_differ,
    channels_are_alive,
    output_depends_on_image,
    evaluation_is_repeatable,
    pixels_keep_their_place,
    output_is_logits,
    all_weights_have_gradients,
    batch_norm_works,
    skip_connections_count,
    images_are_independent,
)
