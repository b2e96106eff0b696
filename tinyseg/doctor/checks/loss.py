"""Checks that the loss asks for the right mask, and from which pixels its gradient comes."""

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import (
    Check,
    error,
    finding,
    needs_loss,
    note,
    ok,
    only_if,
    warning,
)
from tinyseg.doctor.experiments.loss_laws import STEPS, loss_laws
from tinyseg.doctor.experiments.loss_probe import probe_loss
from tinyseg.doctor.project import Project

DOMINATED = 0.95
"""Share of a term's gradient from background pixels, above which it hardly sees the foreground."""
MIN_PULLED = 0.5
"""Share of the foreground pixels that a loss must raise, starting from logits 0."""
NO_GRADIENT = 1e-9
"""A gradient, relative to the largest, of a term that is constant."""
NOT_LOW = 0.4
"""Lowest loss of a right mask, relative to that of logits 0, from which it cannot get low."""
SMALL_LOSS, LARGE_LOSS = 1e-5, 1e4
"""Losses of logits 0 that are scaled down or up."""

own_loss = only_if(lambda project: project.has_own_loss)


def logits_fit_labels(project: Project) -> list[Finding]:
    """There are logits for every pixel of every image."""
    image, label = project.batches(1)[0]
    logits = project.forward(image, training=True)
    if logits.ndim == 4 and (logits.shape[0], *logits.shape[2:]) == label.shape:
        return []
    what = f"the network returns logits of shape {logits.shape} for labels of shape {label.shape}"
    why = "a loss needs logits for every pixel; some losses broadcast other shapes silently"
    remedy = "return (B, K, H, W) at the size of the image: upsample smaller logits at the end of "
    return error("logits", what, why, f"{remedy}the network, and keep the channel axis")


def every_term_counts(project: Project) -> list[Finding]:
    """Every term of the loss has a gradient."""
    if not project.loss_is_known:
        what = "the loss of your step was not checked, because the doctor does not have it"
        return note("loss", what, remedy="pass it: Project(..., loss=my_loss)")
    probe = project.once(probe_loss)
    largest = max(*probe.gradient.values(), 1e-12)
    constant = [n for n in probe.terms if probe.gradient[n] <= NO_GRADIENT * largest]
    if constant:
        level = "error" if len(constant) == len(probe.terms) else "warning"
        what = f"{len(constant)} of {len(probe.terms)} loss terms have no gradient"
        why = "a constant term teaches nothing; cross-entropy (ce) is constant with one channel"
        remedy = "remove the term, or set the head that it needs, e.g. model.head=softmax for ce"
        lines = [f"{name}: always {probe.value[name]:.4g}" for name in constant]
        return finding(level, "constant loss", what, why, remedy, lines)
    lines = [
        f"{name}: value {probe.value[name]:.4g}, gradient {probe.gradient[name]:.3g}, "
        f"{probe.background[name]:.0%} of it from background pixels"
        for name in probe.value
    ]
    return ok("loss terms", "every term has a gradient", evidence=lines)


@needs_loss
def right_costs_less(project: Project) -> list[Finding]:
    """A right mask has a lower loss than a wrong one, also on an image without foreground."""
    probe = project.once(probe_loss)
    if project.has_own_loss and project.once(loss_laws).takes_probabilities:
        return []  # another check says so
    if not probe.right < probe.wrong:
        what = f"a correct mask has the loss {probe.right:.4g}, a wrong one {probe.wrong:.4g}"
        why = "minimizing this loss does not make the masks better"
        remedy = "look for a wrong sign, swapped arguments (logits come first, then the label), or "
        return error("loss direction", what, why, f"{remedy}labels that are all 255 (ignored)")
    if probe.pulled < MIN_PULLED:
        what = f"the loss raises the logits of only {probe.pulled:.0%} of the foreground pixels"
        why = "it compares pixels with the labels of other pixels or of other images"
        remedy = "check the shapes: (B, 1, H, W) and (B, H, W) broadcast to (B, B, H, W) silently; "
        return error("loss target", what, why, f"{remedy}and look for transpose and reshape")
    if not probe.empty_right < probe.empty:
        what = "on an image without foreground, false positives do not increase the loss"
        why = "the network does not learn to predict empty masks for such images"
        remedy = "use a loss that counts false positives there, such as train.loss=dice"
        return warning("empty labels", what, why, remedy)
    return []


@needs_loss
def loss_fits_head(project: Project) -> list[Finding]:
    """With a softmax head, adding one number to all channels does not change the loss."""
    probe, channels = project.once(probe_loss), project.out_channels
    scale = max(abs(probe.wrong - probe.right), 1e-12)
    if channels < 2 or probe.shifted <= 1e-3 * scale:
        return []
    what = f"the network has {channels} channels for a softmax, but the loss treats each one on "
    why = "the loss trains sigmoid probabilities, but prediction computes softmax probabilities"
    remedy = "set train.loss=auto; or, for two classes, set model.head=sigmoid and keep the loss"
    return error("head and loss", f"{what}its own, as for a sigmoid", why, remedy)


@needs_loss
def foreground_counts(project: Project) -> list[Finding]:
    """At least one term has a fair share of its gradient from the foreground."""
    probe = project.once(probe_loss)
    shares = {name: probe.background[name] for name in probe.terms}
    shares = {name: share for name, share in shares.items() if np.isfinite(share)}
    if not shares or min(shares.values()) < DOMINATED:
        return []
    what = f"{min(shares.values()):.0%} of the loss gradient comes from background pixels; only "
    what += f"{project.foreground_share:.2%} of the pixels are foreground"
    why = "the network first learns to predict background everywhere, and may stay there"
    remedy = (
        "set train.loss=auto (half Dice), or train.loss=0.5*bce+0.5*tversky(alpha=0.3,beta=0.7); "
        "in a network of your own, you can initialize the bias of the last layer with "
        f"log(f / (1 - f)) = {project.foreground_bias:.1f}, where f is the share of foreground"
    )
    lines = [f"{name}: {share:.1%} from background" for name, share in shares.items()]
    return warning("loss balance", what, why, remedy, lines)


@own_loss
def softmax_is_over_classes(project: Project) -> list[Finding]:
    """The softmax in a loss normalizes over the classes of a pixel."""
    axis = project.once(loss_laws).axis
    if not axis:
        return []
    what = f"the loss normalizes its softmax over {axis}, not over the channels: it stays the same "
    what += "when one number is added along that axis, and changes along the channels"
    why = "the classes of a pixel then do not compete, and its loss depends on other pixels"
    return error("softmax axis", what, why, "use axis=1, the channels, in softmax and log_softmax")


@own_loss
def minimum_is_at_the_label(project: Project) -> list[Finding]:
    """Gradient descent on the logits alone, without a network, reaches the labels."""
    laws = project.once(loss_laws)
    if laws.descent.reaches:
        return []
    recall = laws.descent.recall
    what = f"{STEPS} steps of gradient descent on the logits alone, without a network, do not "
    what += "reach the labels: " + ", ".join(f"{r:.0%} of class {c}" for c, r in recall.items())
    lines = [f"no gradient for {share:.0%} of {n}" for n, share in laws.descent.silent.items()]
    if laws.takes_probabilities:
        why = "the loss takes logits for probabilities: given probabilities, it reaches the labels"
        remedy = "apply sigmoid (softmax for several channels) to the logits in the loss (tried: "
        return error("loss", what, why, f"{remedy}it helps), or set train.loss=auto", lines)
    if laws.descent.silent:
        where = next(iter(laws.descent.silent))
        why = f"the loss has no gradient for {where}: these pixels do not count"
        remedy = "look in the loss for an index, a slice, a mask or a weight of 0"
        return error("ignored pixels", what, why, remedy, lines)
    why = "its minimum is not at the mask, so no network can learn masks by minimizing the loss: "
    why += "it compares sums or other pixels, or a term pulls all logits elsewhere"
    remedy = (
        "compare each pixel's logit with its own label: set train.loss=auto, then look at each "
    )
    return error("loss", what, why, f"{remedy}term of the loss, its sign and its axes", lines)


@own_loss
def loss_gets_low(project: Project) -> list[Finding]:
    """A right mask has a low loss."""
    laws = project.once(loss_laws)
    if not (NOT_LOW < laws.lowest < 1 and laws.bounded and laws.descent.reaches):
        return []
    what = f"the loss of a right mask is still {laws.lowest:.0%} of that of an undecided one, and "
    what += "that of a wrong mask does not grow with its logits"
    function = "sigmoid" if project.out_channels == 1 else "softmax"
    why = f"a {function} was applied to the logits before a loss that applies one itself: "
    why += "probabilities are taken for logits, and gradients stay small"
    return warning("sigmoid twice", what, why, f"remove the {function} before the loss")


@own_loss
def loss_is_finite(project: Project) -> list[Finding]:
    """Loss and gradient are finite for very confident logits."""
    if project.once(loss_laws).finite:
        return []
    what = "the loss or its gradient is NaN or infinite for logits of 200 and -200"
    why = "the logarithm of a probability of 0 is not finite: one confident pixel stops training"
    remedy = "compute the loss from logits (logits.softplus(), log_softmax), or clip probabilities"
    return warning("not finite", what, why, f"{remedy} to 1e-7 before the log")


@own_loss
def loss_is_a_mean(project: Project) -> list[Finding]:
    """The loss does not grow with the batch or the image, and has a usual size."""
    laws = project.once(loss_laws)
    if laws.is_sum:
        what = "the loss doubles with the number of images or pixels: it is a sum, not a mean"
        why = f"its gradient is up to {laws.pixels} times that of a mean: usual learning rates, "
        why += "clipping and weight decay do not fit it"
        return note("summed loss", what, why, "use mean() in place of sum() in the loss")
    size = abs(laws.undecided)
    if not np.isfinite(size) or SMALL_LOSS <= size <= LARGE_LOSS or not size:
        return []
    what = f"the loss of an undecided prediction is {laws.undecided:.2g}; usual is about 0.7"
    why = "usual learning rates, clipping and eps do not fit a loss that is scaled so"
    return note("loss scale", what, why, "remove the factor from the loss")


LOSS_CHECKS: tuple[Check, ...] = (
    logits_fit_labels,
    every_term_counts,
    softmax_is_over_classes,
    right_costs_less,
    loss_fits_head,
    minimum_is_at_the_label,
    loss_gets_low,
    loss_is_finite,
    loss_is_a_mean,
    foreground_counts,
)
