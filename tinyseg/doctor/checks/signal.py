"""Checks of the numbers within the untrained network: scale, activations, normalization."""

from collections.abc import Sequence

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import Check, custom_only, error, finding, note, warning
from tinyseg.doctor.experiments.forward_backward import (
    forward_backward,
    nonlinearity,
)
from tinyseg.doctor.experiments.loss_probe import probe_loss
from tinyseg.doctor.experiments.step_probe import root_mean_square
from tinyseg.doctor.experiments.trace import Layer
from tinyseg.doctor.project import Project
from tinyseg.nn import layers

SMALL_INPUT, LARGE_INPUT = 0.02, 25.0
"""Root mean square of the first layer's input; prepared images have 1."""
LINEAR = 1e-3
"""Share of the logits' std up to which a network counts as linear."""
EXTREME = 0.5
"""Share of a layer's values at the ends of its range from which it is saturated."""
LARGE_LOGITS, LARGE_LOSS = 10.0, 4.0
"""Root mean square of first logits, and first loss relative to that of logits 0: too confident."""
GAIN = 30.0
"""Factor between a convolution's output and input that no initialization explains."""
VANISHING = 1e-4
"""Relative gradient (|weight * gradient|) of the first layer to the last."""
OTHER_STATISTICS, OTHER_VARIANCE = 3.0, 10.0
"""Distance of running means from the batch's in std, and factor between variances."""
LARGE_EPS = 0.5
"""Eps of a norm layer, relative to the variance that it is added to."""
MANY_DROPPED = 0.8
"""Probability of dropout from which hardly any signal is left."""
HE = "initialize weights with std sqrt(2 / fan_in) and biases with 0 (He et al. 2015)"


def _layers(project: Project, *kinds: str) -> list[Layer]:
    traced = project.once(forward_backward).layers
    return [layer for layer in traced if not kinds or layer.kind in kinds]


def input_scale(project: Project) -> list[Finding]:
    """The first layer gets values of about the size of the prepared images."""
    first = next(iter(_layers(project, "convolution", "norm")), None)
    if first is None or first.kind == "norm" or not np.isfinite(first.input_rms):
        return []
    if SMALL_INPUT <= first.input_rms <= LARGE_INPUT:
        return []
    given = root_mean_square(project.batches(1)[0][0].numpy())
    if 0.5 * given <= first.input_rms <= 2 * given:  # as "input range" says
        return []
    what = f"the first layer of the network gets an input of size {first.input_rms:.2g} (root mean "
    what += "square), but the prepared images have a mean near 0 and a std near 1"
    if first.input_rms < SMALL_INPUT:
        why = "the images are scaled twice, for example divided by 255 in the network as well: "
        why += "what is left of them is too small"
    else:
        why = "the network scales the images up, for example to 0..255: the first layers saturate"
    remedy = "remove the division by 255 or the normalization in the network: data.normalize "
    return error("input scale", what, why, f"{remedy}has scaled the images already")


def output_is_finite(project: Project) -> list[Finding]:
    """The untrained network returns numbers of a sane size."""
    logits = project.once(forward_backward).logits
    if np.isfinite(logits).all() and np.abs(logits).max() < 1e6:
        return []
    rest = [layer for layer in _layers(project) if not abs(layer.high) < 1e4]
    what = f"the untrained network returns values up to {np.abs(logits).max():.3g}, which are no "
    what += "logits; values explode from layer to layer"
    where = f" (first in {rest[0].name})" if rest else ""
    why = f"an activation such as exp or square, or the initialization, makes them grow{where}"
    remedy = f"use ReLU as the activation, {HE}, and put a norm layer after each convolution"
    return error("exploding", what, why, remedy)


def last_activation(project: Project) -> list[Finding]:
    """The network ends with a layer, not with an activation."""
    logits = project.once(forward_backward).logits
    traced = _layers(project)
    place = max((i for i, layer in enumerate(traced) if layer.kind == "convolution"), default=-1)
    after = [one for one in traced[place + 1 :] if one.shape == logits.shape]
    bounded = [one for one in after if one.kind in ("bounded", "rectifier") and one.is_output]
    if not bounded:
        return []
    name, channels = bounded[-1].name, logits.shape[1]
    what = f"the network ends with {name}: its outputs are from {logits.min():.2g} to "
    what += f"{logits.max():.2g}"
    if name in ("softmax", "log_softmax"):
        if name == "log_softmax" and channels > 1:
            return []  # softmax of it is the same
        why = "the loss and prediction apply softmax again, which leaves all classes nearly equal"
        if channels == 1:
            why = "softmax over one channel is constant 1, whatever the image is"
        return error("softmax twice", what, why, "remove the softmax at the end of the network")
    if name in ("tanh", "softsign", "hardtanh"):
        why = "logits are bounded: no probability can get near 0 or 1"
        return _suspicion("bounded output", what, why, f"remove the {name} at the end")
    why = "the loss and prediction apply a sigmoid themselves, which needs negative logits for "
    why += "the background"
    remedy = f"remove the {name}: end the network with its last convolution"
    return error("one-sided output", what, why, remedy)


def _suspicion(
    check: str, what: str, why: str, remedy: str, lines: Sequence[str] = ()
) -> list[Finding]:
    """Return a note; it becomes an error if the network then fails to learn."""
    return note(check, what, why, remedy, lines)


def softmax_inside(project: Project) -> list[Finding]:
    """There is no softmax over channels or pixels between layers, but in attention."""
    logits, traced = project.once(forward_backward).logits, _layers(project)
    inside = []
    for layer in traced:
        if layer.name != "softmax" or layer.is_output or layer.shape == logits.shape:
            continue
        spatial = int(np.prod(layer.shape[2:])) if len(layer.shape) > 2 else 1
        of_channels = len(layer.shape) == 4 and layer.argument in (1, -3) and spatial > 1
        of_pixels = len(layer.shape) == 3 and layer.shape[1] > 1 and spatial != layer.shape[1]
        if of_channels or of_pixels:
            inside.append(f"softmax of shape {layer.shape}, values up to {layer.high:.2g}")
    if not inside:
        return []
    what = f"the network applies softmax between its layers, in {len(inside)} places"
    why = "softmax makes values compete and shrinks them to a sum of 1, so that later layers see "
    why += "almost the same input everywhere, and gradients vanish"
    remedy = "replace softmax by ReLU as the activation of hidden layers; it belongs into the loss"
    return warning("softmax inside", what, why, remedy, inside)


@custom_only
def activations_exist(project: Project) -> list[Finding]:
    """The network is not linear."""
    convolutions = _layers(project, "convolution")
    if len(convolutions) < 2 or not project.once(nonlinearity) < LINEAR:
        return []
    what = f"the network has no activation between its {len(convolutions)} convolutions: but for "
    what += "pooling and normalization, its logits are a linear function of the image"
    why = "without a non-linear activation, several layers can do no more than a single one"
    remedy = "put an activation such as ReLU after each hidden convolution and its norm layer"
    return error("activation", what, why, remedy)


def hidden_activations(project: Project) -> list[Finding]:
    """Hidden activations are not all sigmoids, and sigmoids and tanh are not saturated."""
    hidden = [one for one in _layers(project, "rectifier", "bounded") if not one.is_output]
    bounded = [one for one in hidden if one.name in ("sigmoid", "hardsigmoid", "tanh")]
    saturated = [one for one in bounded if one.extreme > EXTREME and one.shape[2:] != (1, 1)]
    lines = [f"{one.name}: {one.extreme:.0%} of its values are at the ends" for one in bounded]
    remedy = "use ReLU as the activation of hidden layers; with tanh, normalize its input and "
    remedy += "initialize with std sqrt(1 / fan_in)"
    if len(saturated) > len(hidden) / 2:
        what = f"{len(saturated)} of {len(hidden)} activations are saturated: most values are at "
        what += f"the ends of {saturated[0].name}"
        why = "there the gradient is 0, so that the layers before learn nothing: it vanishes"
        return warning("saturated", what, why, remedy, lines)
    sigmoids = [one for one in bounded if "sigmoid" in one.name and len(one.shape) == 4]
    if len(sigmoids) < 2 or len(sigmoids) < len(hidden):
        return []
    what = f"all {len(hidden)} activations of hidden layers are sigmoids"
    why = "a sigmoid passes on at most a quarter of the gradient and returns values around 0.5 for "
    why += "every pixel: gradients vanish from layer to layer, and the network learns slowly"
    return warning("saturating activation", what, why, remedy, lines)


def initial_scale(project: Project) -> list[Finding]:
    """First logits are moderate, and so is the first loss; layers keep the scale of their input."""
    result = project.once(forward_backward)
    size = float(np.sqrt(np.mean(np.square(result.logits, dtype=np.float64))))
    convolutions, traced = _layers(project, "convolution"), _layers(project)
    lines = [f"{one.name}: {one.input_rms:.2g} in, {one.rms:.2g} out" for one in convolutions]
    undecided = project.once(probe_loss).undecided if project.loss_is_known else np.nan
    confident = result.loss > LARGE_LOSS * abs(undecided)
    if size > 10 * LARGE_LOGITS or (size > LARGE_LOGITS and confident):
        what = f"the logits of the untrained network are of size {size:.3g}"
        if np.isfinite(undecided):
            what += f", and its loss is {result.loss:.3g} instead of {undecided:.3g} for an "
            what += "undecided prediction"
        why = "the initialization of the last layers is too large: the network starts confident "
        why += "in wrong predictions, where gradients are extreme or 0"
        level = "error" if size > 10 * LARGE_LOGITS else "warning"
        return finding(level, "initialization", what, why, HE, lines)
    unnormed = [
        one
        for one, following in zip(traced, [*traced[1:], None], strict=True)
        if one.kind == "convolution" and not (following and following.kind == "norm")
    ]
    gains = [one.rms / one.input_rms for one in unnormed[:-1] if one.input_rms > 0]
    off = [gain for gain in gains if gain > GAIN or gain < 1 / GAIN]
    if len(off) < max(2, len(gains) / 2) or not project.custom:
        return []
    what = f"{len(off)} of {len(gains)} layers change the size of their input by a factor of "
    what += f"{min(off):.2g} to {max(off):.2g}"
    why = "the scale of the initialization is too " + ("small" if off[0] < 1 else "large")
    why += ": signal and gradient vanish or explode from layer to layer"
    return warning("initialization", what, why, HE, lines)


def gradient_flow(project: Project) -> list[Finding]:
    """The gradient reaches the first layers."""
    result = project.once(forward_backward)
    if result.gradients is None:
        return []
    weights = {n: t.numpy() for n, t in project.state.parameters.items() if t.ndim == 4}
    flow = {n: float(np.abs(w * result.gradients[n]).sum()) for n, w in weights.items()}
    sizes = [size for size in flow.values() if size > 0]
    if len(sizes) < 3 or not np.isfinite(sizes).all():
        return []
    ratio = min(sizes[: len(sizes) // 2]) / max(sizes)
    if ratio > VANISHING:
        return []
    bounded = [one.name for one in _layers(project, "bounded") if not one.is_output]
    what = f"the gradient of the first layers is {ratio:.1g} of that of the others: it vanishes"
    why = "the first layers then hardly learn"
    if bounded:
        why += f"; the network has {len(bounded)} bounded activations ({bounded[0]})"
    remedy = f"use ReLU and norm layers after each convolution, and {HE}"
    return _suspicion(
        "vanishing gradient", what, why, remedy, [f"{n}: {x:.1e}" for n, x in flow.items()]
    )


def normalization_fits(project: Project) -> list[Finding]:
    """Running statistics that were loaded fit the images; eps is small."""
    far, eps, count = [], [], 0
    for layer in _layers(project, "norm", "rectifier"):
        norm, (mean, variance) = layer.owner, layer.moments
        if norm is None or not len(variance):
            continue
        count += 1
        middle = max(float(np.median(variance)), 1e-12)
        if getattr(norm, "eps", 0) > max(LARGE_EPS * middle, 1e-3):
            eps.append(f"{layer.name}: eps {norm.eps:g}, variance {middle:.2g}")
        if getattr(norm, "running_mean", None) is None:
            continue
        kept, spread = norm.running_mean.numpy(), norm.running_var.numpy()
        if not kept.any() and (spread == 1).all():
            continue  # as created
        apart = float(np.median(np.abs(kept - mean) / np.sqrt(variance + 1e-12)))
        factor = float(np.median(np.abs(np.log((spread + 1e-12) / (variance + 1e-12)))))
        if apart > OTHER_STATISTICS or factor > np.log(OTHER_VARIANCE):
            far.append(
                f"{layer.name}: means differ by {apart:.1f} std, variances by a factor of "
                f"{np.exp(factor):.3g}"
            )
    if len(far) > count / 2:
        what = f"the running statistics of {len(far)} of {count} BatchNorm layers do not fit the "
        what += "values that they normalize"
        why = "they were loaded from another network or confused on import (running_mean, "
        why += "running_var), so prediction in evaluation mode is wrong"
        remedy = "load running_mean and running_var with the weights, prepare images as in the "
        remedy += "original training, or reset them to 0 and 1 and train a few steps"
        return error("statistics", what, why, remedy, far)
    if len(eps) <= count / 2:
        return []
    what = f"eps of {len(eps)} of {count} norm layers is larger than the variance it is added to"
    why = "the layers then do not normalize: they shrink the signal"
    return warning("norm eps", what, why, "set eps=1e-5 in the norm layers", eps)


def dropout_rate(project: Project) -> list[Finding]:
    """Dropout keeps enough of the signal."""
    rates = [one.argument for one in _layers(project) if one.name == "dropout"]
    rates += [getattr(layer, "probability", 0.0) for _, layer in layers(project.model)]
    rates.append(project.config.model.dropout)
    highest = max((float(r) for r in rates if isinstance(r, int | float)), default=0.0)
    if highest < MANY_DROPPED:
        return []
    what = f"dropout sets {highest:.0%} of the values to 0"
    why = "so little of the signal is left in training that the network learns from noise"
    return warning("dropout", what, why, "lower the probability of dropout to 0.1 to 0.5")


SIGNAL_CHECKS: tuple[Check, ...] = (
    input_scale,
    output_is_finite,
    last_activation,
    softmax_inside,
    activations_exist,
    hidden_activations,
    normalization_fits,
    dropout_rate,
    initial_scale,
    gradient_flow,
)
SUSPICIONS = (
    *("bounded output", "softmax inside", "saturated", "saturating activation", "initialization"),
    *("vanishing gradient", "norm eps", "dropout", "summed loss", "loss scale"),
)
"""Checks whose notes are the cause if the network then fails to learn."""
