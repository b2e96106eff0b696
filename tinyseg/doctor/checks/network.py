"""Whether signal and gradient get through: channels, skip connections, normalisation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tinygrad import Tensor

from tinyseg.common.arrays import Array
from tinyseg.common.findings import Finding, listed
from tinyseg.device.tensors import to_device
from tinyseg.doctor.experiments.step_probe import root_mean_square
from tinyseg.doctor.project import Project
from tinyseg.doctor.state import probe
from tinyseg.nn import Up, layers
from tinyseg.runs.checkpoint import any_in
from tinyseg.training.nan_report import NORMS, record_outputs

DEAD, MANY_DEAD = 0.25, 0.5
"""Share of a layer's channels that never fire, from which it is a warning, and an error."""
FEW_VALUES = 16
"""Values of a channel below which a batch's mean and variance are mostly noise."""
CORNERS = ((0, 0), (0, 3), (3, 0))
"""Of 4 x 4 blocks of an image."""
NOTHING = 1e-6
"""Change of the logits, as a share of their spread, that rounding may explain."""


@dataclass(frozen=True)
class Pass:
    """One batch through the network in training, forth and back."""

    logits: Array
    """(B, K, S, S)"""
    evaluated: Array
    """The logits in evaluation."""
    again: Array
    """The same once more, of a user's network."""
    outputs: dict[str, Array]
    """Of the normalisations, which end with ReLU, by name; (B, C, H, W)."""
    gradients: dict[str, float] | None
    """Root of the mean square by weight; None when the loss is not known."""


def try_network(project: Project) -> Pass:
    """Sends the first batch through the network; weights and statistics stay as they are."""
    weights = project.state.parameters  # first: what is realized later loses its history
    image, label = project.batches(1)[0]
    logits, outputs = _normalised(project.model, image)
    gradients: dict[str, Tensor] = {}
    if project.knows_loss:
        loss = project.loss(logits, label)["loss"]
        gradients = dict(zip(weights, loss.gradient(*weights.values()), strict=True))
    Tensor.realize(logits, *outputs.values(), *gradients.values())
    evaluated = again = project.forward(image, training=False).numpy()
    if project.foreign:
        again = project.forward(image, training=False).numpy()
    return Pass(
        logits.numpy(),
        evaluated,
        again,
        {name: output.numpy() for name, output in outputs.items()},
        {n: root_mean_square(g.numpy()) for n, g in gradients.items()}
        if project.knows_loss
        else None,
    )


def _normalised(model: Any, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in training, and the outputs of the normalisations."""
    kinds = {name: type(layer).__name__ for name, layer in layers(model)}
    with record_outputs(model) as found:
        logits = probe(model, image, training=True)
    return logits, {name: output for name, output in found if kinds.get(name) in NORMS}


def channels(project: Project) -> list[Finding]:
    """Channels fire somewhere: one that is 0 for every pixel passes neither signal nor gradient."""
    found = _dead(project.once(try_network).outputs, "")
    if found or project.run is None or not any_in(project.run.checkpoints):
        return found
    _, outputs = _normalised(project.run.predictor.step.model, project.batches(1)[0][0])
    normed = {name: output.numpy() for name, output in outputs.items()}
    return [replace(one, level="warning") for one in _dead(normed, " of the trained network")]


def _dead(outputs: dict[str, Array], whose: str) -> list[Finding]:
    dead = {name: (x.max(axis=(0, 2, 3)) <= 0) for name, x in outputs.items()}
    worst = max((float(d.mean()) for d in dead.values() if d.size > 1), default=0.0)
    if worst < DEAD:
        return []
    told = [f"{name}: {d.sum()} of {d.size} channels" for name, d in dead.items() if d.any()]
    count, all_ = sum(int(d.sum()) for d in dead.values()), sum(d.size for d in dead.values())
    return [
        Finding(
            "error" if worst >= MANY_DEAD else "warning",
            "dead channels",
            f"{count} of {all_} channels{whose} are 0 for every pixel of a batch, in one layer "
            f"{worst:.0%}",
            "behind ReLU what is never above 0 has no gradient either: it stays dead",
            "start biases at 0 and weights as He et al. 2015 (tinyseg's do), keep a normalisation "
            "(model.norm=batch), lower the learning rate",
            tuple(told),
        )
    ]


def drawn(project: Project) -> list[Finding]:
    """The weights of a layer are not all one number."""
    kernels = {n: t.numpy() for n, t in project.state.parameters.items() if t.ndim > 1}
    flat = [
        f"{name}: all {x.flat[0]:g}" for name, x in kernels.items() if x.size > 1 and not np.ptp(x)
    ]
    return listed(
        "error",
        "equal weights",
        f"layers, of {len(kernels)}, whose weights are all one number",
        flat,
        "channels that begin alike get equal gradients and stay alike: there is but one of them",
        "draw weights at random, as He et al. 2015 (tinyseg's layers do)",
    )


def repeatable(project: Project) -> list[Finding]:
    """Evaluation gives the same again for the same image."""
    found = project.once(try_network)
    apart = float(np.abs(found.again - found.evaluated).max())
    if not apart > NOTHING * max(1.0, float(np.abs(found.evaluated).max())):
        return []
    return [
        Finding(
            "error",
            "random output",
            f"in evaluation the same images give other logits the second time (by {apart:.2g})",
            "either a layer is made anew in each call, and is never trained, or chance that is "
            "meant for training goes on in prediction",
            "make all layers in __init__; use dropout and noise only where training is true",
        )
    ]


def places(project: Project) -> list[Finding]:
    """What changes in a corner of an image changes logits there most."""
    if not project.foreign:
        return []
    one, side = project.batches(1)[0][0].numpy()[0], project.config.data.size // 4
    images, rng = [one], np.random.default_rng(0)
    for row, column in CORNERS:
        images.append(one.copy())
        part = images[-1][:, row * side :, column * side :][:, :side, :side]
        part[:] = rng.normal(size=part.shape) - part
    whole, *others = _evaluated(project, images)
    blocks = [_most_changed(np.abs(other - whole).sum(axis=0), side) for other in others]
    pairs = zip(CORNERS, blocks, strict=True)
    wrong = [(there, at) for there, at in pairs if at is not None and at != there]
    if len(wrong) < len(CORNERS) - 1:
        return []
    told = [f"changed in {_block(there)}: logits change in {_block(at)}" for there, at in wrong]
    return listed(
        "error",
        "places",
        f"corners of an image, of {len(CORNERS)}, that change logits elsewhere (in 4 x 4 blocks)",
        told,
        "what is learned of a pixel is asked of another one: labels are learned by heart at best",
        "look for reshape where permute is meant, for flips and transposes on the way",
    )


def _evaluated(project: Project, images: Sequence[Array]) -> list[Array]:
    """The logits (K, S, S) of images (C, S, S), in batches of the usual size."""
    size, found = project.config.train.batch_size, list[Array]()
    for start in range(0, len(images), size):
        chunk = list(images[start : start + size])
        full = np.stack(chunk + chunk[:1] * (size - len(chunk)))
        found += list(project.forward(to_device(full), training=False).numpy()[: len(chunk)])
    return found


def _most_changed(change: Array, side: int) -> tuple[int, int] | None:
    """Row and column of the block (of 4 x 4) with the most; None where nothing has changed."""
    grid = change[: 4 * side, : 4 * side].reshape(4, side, 4, side).sum(axis=(1, 3))
    row, column = divmod(int(grid.argmax()), 4)
    return (row, column) if grid.any() else None


def _block(block: tuple[int, int]) -> str:
    return f"row {block[0] + 1}, column {block[1] + 1}"


def probabilities_twice(project: Project) -> list[Finding]:
    """Logits are no probabilities already."""
    logits = project.once(try_network).logits
    if logits.shape[1] < 2 or logits.min() < 0 or np.abs(logits.sum(axis=1) - 1).max() > 1e-3:
        return []
    return [
        Finding(
            "error",
            "softmax twice",
            "the network's output is positive and sums to 1: these are probabilities, no logits",
            "the loss and prediction take a softmax of it once more: no class gets far above the "
            "others, and gradients are small",
            "take the softmax off the network's end",
        )
    ]


def sees_input(project: Project) -> list[Finding]:
    """Other images give other logits."""
    logits = project.once(try_network).logits
    if len(logits) < 2 or not np.isfinite(logits).all():
        return []
    apart = float(np.abs(logits[1:] - logits[:1]).max())
    if apart > NOTHING * max(1.0, float(np.abs(logits).max())):
        return []
    seen = "the network gives the same logits for every image"
    why = "nothing of the image reaches the output: no loss and no rate can teach it anything"
    remedy = "follow one image through the layers; look for a constant, a detach, a factor of 0"
    return [Finding("error", "input", seen, why, remedy)]


def gradient_flow(project: Project) -> list[Finding]:
    """Every weight gets a gradient."""
    gradients = project.once(try_network).gradients
    if gradients is None:
        return []
    told = tuple(f"{name}: {size:.1e}" for name, size in gradients.items())
    none = [name for name, size in gradients.items() if size == 0]
    if none and project.once(try_network).logits.std() > 0:
        return listed(
            "error",
            "no gradient",
            f"weights, of {len(gradients)}, to which no gradient of the loss comes",
            none,
            "they stay as they were drawn: random numbers that the rest must work around",
            "look between them and the loss for detach(), numpy(), a factor of 0, or a branch that "
            "is not used",
        )
    return [Finding("ok", "gradients", "root mean square of each weight's gradient", evidence=told)]


def skips(project: Project) -> list[Finding]:
    """Each skip connection counts: without it the logits are others."""
    ups = [(name, layer) for name, layer in layers(project.model) if isinstance(layer, Up)]
    if not ups:
        return []
    image, _ = project.batches(1)[0]
    whole = project.once(try_network).logits
    shares = {}
    for name, up in ups:
        with _without_skip(up):
            changed = project.forward(image, training=True).numpy()
        shares[name] = float(np.abs(changed - whole).max() / max(whole.std(), 1e-12))
    unused = [name for name, share in shares.items() if share <= NOTHING]
    if unused:
        return listed(
            "error",
            "skips",
            f"skip connections, of {len(ups)}, that change nothing",
            unused,
            "fine edges come through them alone: without them masks are blurred",
            "join the skip to the upsampled images as it is: look for a factor of 0 or a wrong "
            "tensor",
        )
    told = tuple(
        f"{name}: the logits move by {share:.2g} deviations" for name, share in shares.items()
    )
    return [Finding("ok", "skips", f"all {len(ups)} skip connections count", evidence=told)]


@contextmanager
def _without_skip(up: Up) -> Iterator[None]:
    """While it lasts, one block gets zeros for its skip connection."""
    kind = type(up)
    original = kind.__call__

    def call(self: Any, x_bchw: Tensor, skip_bchw: Tensor, training: bool) -> Tensor:
        skip = Tensor.zeros(*skip_bchw.shape, dtype=skip_bchw.dtype).contiguous()
        return original(self, x_bchw, skip if self is up else skip_bchw, training)

    kind.__call__ = call  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__call__ = original  # type: ignore[method-assign]


def batch_statistics(project: Project) -> list[Finding]:
    """In training a normalisation goes by its batch, and the batch is large enough for it."""
    norms = {name: layer for name, layer in layers(project.model) if hasattr(layer, "running_mean")}
    if not norms:
        return []
    found = project.once(try_network)
    if np.array_equal(found.logits, found.evaluated):
        return [
            Finding(
                "error",
                "eval mode",
                f"{len(norms)} BatchNorms, yet training and evaluation give the same logits",
                "in training they must normalise by the batch; by running statistics, which begin "
                "at 0 and 1, they do not normalise at all",
                "call the network with training=True in the step (within Tensor.train() for "
                "tinygrad's own layers)",
            )
        ]
    few = {n: x.size // x.shape[1] for n, x in found.outputs.items() if n in norms}
    few = {name: count for name, count in few.items() if count < FEW_VALUES}
    return listed(
        "warning",
        "batch size",
        f"BatchNorms with fewer than {FEW_VALUES} values of a channel in a batch",
        [f"{name}: {count} values" for name, count in few.items()],
        "mean and variance of so few are noise, and evaluation uses others",
        "raise train.batch_size or data.size, lower model.depth, or set model.norm=group",
    )


NETWORK_CHECKS: tuple[Callable[[Project], list[Finding]], ...] = (
    drawn,
    channels,
    sees_input,
    repeatable,
    places,
    probabilities_twice,
    gradient_flow,
    batch_statistics,
    skips,
)
