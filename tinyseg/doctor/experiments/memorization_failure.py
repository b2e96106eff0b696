"""Why a memorization test failed: the possible reasons, the surest first, and a test for each."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from tinyseg.common.findings import Finding
from tinyseg.doctor.check import error, finding, note, warning
from tinyseg.doctor.experiments.memorization import (
    BUDGET,
    CLEAR,
    COMPARED_STEPS,
    Memorization,
    Memorizer,
    Outcome,
)
from tinyseg.doctor.project import Project
from tinyseg.losses import Loss
from tinyseg.metrics.threshold_curves import HALF
from tinyseg.training.overfit import PASS_DICE

STUCK = 0.05
"""A loss that falls by less than this share of itself has not moved."""
BETTER, MUCH_BETTER = 0.75, 0.25
"""Another learning rate is the reason if its loss is below this share of the set rate's loss: where
that has not moved, and where it has."""
MAX_OTHER_DICE = 0.8
"""Dice up to which images count as not learned where another one was."""
SAME = 0.99
"""Correlation from which two images or maps count as the same."""
FLAT = 1e-3
"""Standard deviation of probabilities below which a map is constant."""
MIN_SECONDS = 5.0
"""Needed for a test with another setting, which compiles a step first."""
MAX_BASE = 64
"""model.base_channels above which four times as many channels would be too slow to try."""

POOR, NOTHING = 0.5, 0.1
"""Dice of one image, at its best threshold, below which little was learned, and nothing."""

CHOOSE_THRESHOLD = "set train.threshold=0: validation then chooses the threshold for predict"


def explain_failure(project: Project, result: Memorization) -> list[Finding]:
    """Return the likeliest reason why the last memorization test failed, as one finding."""
    enough_steps = result.last.in_time or len(result.last.losses) >= COMPARED_STEPS
    reasons = REASONS if enough_steps else (_diverged,)  # a slow machine is no reason
    findings = (found for reason in reasons if (found := reason(project, result)))
    return next(findings, None) or _not_finished(result)


def _diverged(project: Project, result: Memorization) -> list[Finding]:
    losses = result.last.losses
    if np.isfinite(losses).all():
        return []
    what = f"the loss was {losses[-1]} in step {len(losses)} of the memorization test"
    remedy = "divide the learning rate by 10, or set train.grad_clip=1"
    return error("diverged", what, "the weights grew until numbers overflowed", remedy)


def _no_negative_logits(project: Project, result: Memorization) -> list[Finding]:
    """Probabilities stay above 0.5, but their order is right."""
    scores = result.last.scores
    maps = scores.probabilities
    if maps.shape[1] > 1 or maps.min() < HALF - FLAT or min(scores.best) < PASS_DICE:
        return []
    what = "the network separates foreground from background, but no probability is below "
    what += f"{maps.min():.2f}: its logits are never negative"
    why = "it ends with a sigmoid or ReLU; the loss and prediction apply another sigmoid, which "
    why += "needs negative logits for background"
    remedy = "remove the sigmoid or ReLU: end the network with its last convolution"
    return error("one-sided output", what, why, remedy)


def _bad_threshold(project: Project, result: Memorization) -> list[Finding]:
    last, scores = result.last, result.last.scores
    gain = np.mean(scores.best) - np.mean(scores.dice)
    if min(scores.best) < PASS_DICE or gain < CLEAR:
        return []
    by_user = bool(project.config.train.threshold)
    if not by_user and (other := _default_loss_is_better(project, result)):
        return other
    what = (
        f"the network memorizes all images, but not at threshold {last.threshold:g}: the mean "
        f"Dice is {np.mean(scores.dice):.2f}, and {np.mean(scores.best):.2f} at threshold "
        f"{np.median(scores.best_threshold):.2f}"
    )
    why = "foreground has higher probabilities than background; only the threshold is wrong"
    if by_user:
        return error("threshold", what, why, CHOOSE_THRESHOLD)
    remedy = "set train.loss=auto: with a Dice term in the loss, the best threshold is near 0.5"
    return warning("threshold", what, why, remedy)


def _evaluation_differs(project: Project, result: Memorization) -> list[Finding]:
    training, evaluation = result.last.training_mode, min(result.last.scores.dice)
    if not training or min(training) < max(PASS_DICE, evaluation + CLEAR):
        return []
    what = f"in training mode the network segments all images (worst Dice {min(training):.2f}), in "
    what += f"evaluation mode it does not ({evaluation:.2f})"
    why = "in evaluation mode BatchNorm uses running statistics, which do not fit these images"
    remedy = "raise train.batch_size, set model.norm=group, or set the momentum of BatchNorm to 0.1"
    return warning("eval mode", what, why, remedy)


def _one_image_only(project: Project, result: Memorization) -> list[Finding]:
    last, dice = result.last, result.last.scores.dice
    memorized = [n for n, value in zip(last.names, dice, strict=True) if value >= PASS_DICE]
    if len(dice) < 2 or len(memorized) != 1 or sorted(dice)[-2] > MAX_OTHER_DICE:
        return []
    what = f"only one of {len(dice)} images was memorized: {memorized[0]}"
    why = "the step uses the same image whatever its arguments are"
    remedy = "pass whole Tensors to the step: TinyJit stores indices and slices as constants"
    return error("one image", what, why, remedy)


def _bad_learning_rate(project: Project, result: Memorization) -> list[Finding]:
    if result.best_rate is None or len(result.at_best_rate) < 5:
        return []
    best, current = (
        float(np.median(losses[-5:])) for losses in (result.at_best_rate, result.at_set_rate)
    )
    moved = current < (1 - STUCK) * result.at_set_rate[0]
    if not best < (MUCH_BETTER if moved else BETTER) * current:
        return []
    what = f"in {len(result.at_best_rate)} steps the loss goes from {result.at_set_rate[0]:.3g} to "
    what += f"{current:.3g}; at learning rate {result.best_rate:.0e} it goes to {best:.3g}"
    remedy = f"set the learning rate (lr in train.optimizer) to about {result.best_rate:.0e}"
    if moved:
        return warning("learning rate", what, "the network learns, but slowly", remedy)
    return error("learning rate", what, "at this learning rate it does not learn", remedy)


def _same_output(project: Project, result: Memorization) -> list[Finding]:
    maps = result.last.scores.probabilities[:, -1].reshape(len(result.last.names), -1)
    if maps.std(axis=1).max() < FLAT:
        what = f"every pixel gets the same probability, {maps.mean():.3g}"
        why = "the network has learned the mean of the labels and nothing else"
    elif len(maps) > 1 and np.corrcoef(maps)[0, 1:].min() > SAME:
        what = "all images get the same mask"
        why = "no information from the image reaches the output"
    else:
        return []
    remedy = "set data.normalize=dataset and train.loss=auto, and try a learning rate ten times as "
    return error("same output", what, why, f"{remedy}high and ten times as low")


def _copies_input(project: Project, result: Memorization) -> list[Finding]:
    last = result.last
    images = project.input_pipeline.to_batch([project.tiles[tile] for tile in last.tiles])
    maps = last.scores.probabilities[:, -1].reshape(len(images), -1)
    lowest = [
        min(
            abs(float(np.corrcoef(p, channel.ravel())[0, 1]))
            for p, channel in zip(maps, images[:, index], strict=True)
        )
        for index in range(images.shape[1])
    ]
    if not max(lowest) > SAME:
        return []
    what = f"the prediction is a copy of the image (correlation {max(lowest):.3f})"
    why = "only a shortcut around the network reaches the output"
    remedy = "check what is added to the output, and whether the label files contain images"
    return error("copies input", what, why, remedy)


def _bad_loss(project: Project, result: Memorization) -> list[Finding]:
    return [] if _needs_more_steps(result.last) else _default_loss_is_better(project, result)


def _default_loss_is_better(project: Project, result: Memorization) -> list[Finding]:
    if project.custom or project.loss.text == Loss.parse("auto", project.out_channels).text:
        return []
    why = f"train.loss={project.config.train.loss} is low for masks that are wrong"
    return _setting_is_better(project, result, "loss", "train.loss=auto", why)


def _too_small(project: Project, result: Memorization) -> list[Finding]:
    base, sized = project.config.model.base_channels, "base_channels" in project.config.model.used
    if _needs_more_steps(result.last) or base > MAX_BASE or not sized:
        return []
    why = f"a network with model.base_channels={base} has too few channels for these images"
    return _setting_is_better(project, result, "capacity", f"model.base_channels={4 * base}", why)


def _setting_is_better(
    project: Project, result: Memorization, check: str, setting: str, why: str
) -> list[Finding]:
    """Repeat the test with one other setting, if there is time; a finding only if it passes."""
    late = time.monotonic() > result.deadline - MIN_SECONDS
    if project.custom or not result.last.in_time or late:
        return []
    other = Project(project.source, project.config.override([setting]))
    outcome = Memorizer(other, result.deadline).run(list(BUDGET)[len(result.outcomes) - 1])
    if not outcome.scores.passed:
        return []
    what = f"{_summary(result.last)}; with {setting} all are memorized in {len(outcome.losses)} "
    return warning(check, f"{what}steps", why, f"set {setting}")


def _stuck(project: Project, result: Memorization) -> list[Finding]:
    losses = result.last.losses
    end = float(np.median(losses[-5:]))
    if 1 - end / max(losses[0], 1e-12) >= STUCK:
        return []
    what = f"in the memorization test the loss only went from {losses[0]:.4g} to {end:.4g}"
    remedy = "set train.loss=auto, then use tinyseg's own network with its default settings: "
    remedy += "whatever helps was the cause"
    return error("stuck", what, "no learning rate that was tried does better", remedy)


REASONS: tuple[Callable[[Project, Memorization], list[Finding]], ...] = (
    _diverged,
    _no_negative_logits,
    _bad_threshold,
    _evaluation_differs,
    _one_image_only,
    _bad_learning_rate,
    _same_output,
    _copies_input,
    _bad_loss,
    _too_small,
    _stuck,
)


def _not_finished(result: Memorization) -> list[Finding]:
    last, what = result.last, _summary(result.last)
    if len(last.names) == 1 and len(last.losses) >= COMPARED_STEPS and last.scores.best[0] < POOR:
        level = "error" if last.scores.best[0] < NOTHING else "warning"
        why = "a healthy set-up memorizes one image in this time: something before this test fails"
        remedy = "compare images and masks in the picture, then replace your own parts (loss, "
        remedy += "network, step) by tinyseg's, one by one: whatever helps was the cause"
        return finding(level, "memorization", f"{what}: hardly anything was learned", why, remedy)
    more_steps = "run `tinyseg overfit DATA --images 9 --steps 2000` to test with more steps"
    if not last.in_time:
        return note("memorization", f"{what}, when the time limit was reached", "", more_steps)
    if _falls(last.losses):
        return note("memorization", f"{what}; the loss is still falling", "", more_steps)
    why = "no learning rate, threshold or network size that was tried is the reason"
    remedy = (
        "compare images and masks in the picture: do the masks show what is in the images, and "
        f"is data.size large enough for it? If so, raise model.depth, or {more_steps}"
    )
    return warning("memorization", f"{what}, and the loss has stopped falling", why, remedy)


def _needs_more_steps(outcome: Outcome) -> bool:
    """Return whether more steps may help; a healthy set-up memorizes one image in time."""
    return _falls(outcome.losses) and len(outcome.names) > 1


def _falls(losses: Sequence[float]) -> bool:
    """Return whether the loss still falls in the second half."""
    half = len(losses) // 2
    return bool(np.median(losses[-10:]) < 0.9 * np.median(losses[half - 5 : half + 5]))


def _summary(outcome: Outcome) -> str:
    dice = outcome.scores.dice
    return (
        f"{sum(value >= PASS_DICE for value in dice)} of {len(dice)} images memorized (Dice >= "
        f"{PASS_DICE}) after {len(outcome.losses)} steps, the worst with Dice {min(dice):.2f}"
    )
