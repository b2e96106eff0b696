"""What an evaluation found, as a table for people and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.metrics.baselines import Baseline
from tinyseg.metrics.best_threshold import curves, find_thresholds
from tinyseg.metrics.bootstrap import Interval, gain_of
from tinyseg.metrics.pixel import dice_of_counts, mean
from tinyseg.metrics.summary import ImageScores, Summary, foreground_mean
from tinyseg.metrics.threshold_curves import HALF, Histograms

NOTHING = np.full(2, np.nan)


@dataclass(frozen=True)
class ThresholdGain:
    """What the threshold in use gains over 0.5."""

    threshold: float
    dice: float
    """Pooled, of the foreground, with the threshold."""
    dice_at_half: float
    gain: Interval
    """The difference; the interval is over images drawn anew."""
    chosen_here: bool
    """Whether the threshold was chosen on these images, which flatters it."""

    @staticmethod
    def of(
        threshold: float,
        scores: Sequence[ImageScores],
        at_half: Sequence[ImageScores],
        chosen_here: bool,
    ) -> "ThresholdGain":
        """Compare the scores of every image with the threshold to those with 0.5."""
        tp, size = _counts(at_half, scores)
        half, dice = dice_of_counts(tp.sum(0), size.sum(0))[:, 0]
        return ThresholdGain(threshold, float(dice), float(half), gain_of(tp, size), chosen_here)

    def __str__(self) -> str:
        if self.threshold == HALF:
            return "threshold 0.5"
        flattered = (
            "; optimistic, because it was chosen on these images" if self.chosen_here else ""
        )
        return (
            f"threshold {self.threshold:.3f}: Dice {self.dice:.4f}, with 0.5 "
            f"{self.dice_at_half:.4f}, gain {self.gain.mean:+.4f} (95 % interval "
            f"{self.gain.low:+.4f} to {self.gain.high:+.4f}){flattered}"
        )


def gain_over(before: Sequence[ImageScores], after: Sequence[ImageScores]) -> Interval:
    """Return the difference in mean pooled Dice of the foreground classes, of the same images."""
    return gain_of(*_counts(before, after))


def _counts(*rules: Sequence[ImageScores]) -> tuple[Array, Array]:
    """True positives, and pixels of prediction and label together: (images, rules, K - 1)."""
    matrices = np.stack([[one.matrix for one in rule] for rule in rules], axis=1)
    tp = np.diagonal(matrices, axis1=-2, axis2=-1)
    return tp[..., 1:], (matrices.sum(-1) + matrices.sum(-2))[..., 1:]


@dataclass(frozen=True)
class Evaluation:
    """A run's scores on some images of a dataset, with baselines on the same images."""

    split: str
    names: tuple[str, ...]
    images: tuple[ImageScores, ...]
    summary: Summary
    baselines: tuple[Baseline, ...]
    class_names: tuple[str, ...]
    histograms: Histograms
    threshold_gain: ThresholdGain | None
    """None for a softmax head, which has no threshold."""
    tta: str = ""
    """The views that were averaged."""
    tta_gain: Interval | None = None
    """What they gain over the image alone; None without test-time augmentation."""
    drift: str = ""
    """How the images differ from the training set; "" if they do not."""
    chosen: tuple[str, ...] = ()
    """What the run chose on these images, which flatters its scores on them."""
    trained_on: int = 0
    """How many of these images a network that predicted them was trained on; 0 for split=train."""
    folds: int = 0
    """Of a cross-validation, where each image is scored by the fold that did not train on it."""

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        pairs = zip(self.names, self.images, strict=True)
        return {
            "split": self.split,
            "chosen_here": self.chosen,
            "trained_on": self.trained_on,
            "folds": self.folds,
            "classes": self.class_names,
            "summary": self.summary.to_dict(),
            "baselines": {b.name: {"rule": b.rule, **b.summary.to_dict()} for b in self.baselines},
            "images": {name: scores.to_dict() for name, scores in pairs},
            "threshold": self.threshold_gain and asdict(self.threshold_gain),
            "tta": self.tta_gain and {"views": self.tta, "gain": asdict(self.tta_gain)},
            "thresholds": curves(self.histograms),
        }

    def table(self) -> str:
        """Return the comparison as text: the run, each baseline, and remarks."""
        which = self.split
        if self.folds:
            which += f", each by the one of {self.folds} folds that did not train on it"
        lines = [
            f"{len(self.names)} images ({which})",
            f"{'':28}{'pooled':>15}{'per image':>18}{'empty = 1':>13}",
            f"{'':28}{'Dice':>8}{'IoU':>7}{'Dice':>11}{'IoU':>7}{'Dice':>13}",
            _line("this run", self.summary),
            *(_line(baseline.rule, baseline.summary) for baseline in self.baselines),
            *self._by_class(),
            *self._thresholds(),
            *self._views(),
            *self._warnings(),
            *self._remarks(),
        ]
        return "\n".join(lines)

    def _by_class(self) -> list[str]:
        """Pooled scores of every class, also of class 0, where there are more than two."""
        if len(self.class_names) < 3:
            return []
        dice, iou = (self.summary.pooled[name] for name in ("dice", "iou"))
        names = [*self.class_names, "mean of all classes"]
        rows = zip(names, [*dice, np.nanmean(dice)], [*iou, np.nanmean(iou)], strict=True)
        return [f"  {name[:25]:26}{d:8.4f}{i:7.4f}" for name, d, i in rows]

    def _thresholds(self) -> list[str]:
        reports = find_thresholds(self.histograms, resample=False)
        names = ("average_precision", "roc_auc", "calibration_error")
        means = mean(np.array([[getattr(report, name) for name in names] for report in reports]))
        line = "average precision {:.4f}, ROC-AUC {:.4f}, calibration error {:.4f}".format(*means)
        line += " (means of classes)" if len(reports) > 1 else ""
        return [line] if self.threshold_gain is None else [str(self.threshold_gain), line]

    def _views(self) -> list[str]:
        if self.tta_gain is None:
            return []
        gain = self.tta_gain
        lower = "; these views lower Dice: omit --tta" if gain.high < 0 else ""
        return [
            f"--tta {self.tta}: gain in Dice {gain.mean:+.4f} (95 % interval {gain.low:+.4f} to "
            f"{gain.high:+.4f}){lower}"
        ]

    def _warnings(self) -> list[str]:
        """What makes the scores look better than they are."""
        warnings = []
        if self.trained_on:
            warnings.append(
                f"{self.trained_on} of these images are training images of the network that "
                "predicted them: the scores say little about new images"
            )
        if self.chosen:
            warnings.append(
                f"optimistic scores, because these were chosen on the same images: "
                f"{', '.join(self.chosen)}; for unbiased scores, use "
                "test images (data.test_fraction, --split test)"
            )
        return warnings

    def _remarks(self) -> list[str]:
        remarks, summary = list[str](), self.summary
        hd95, assd = (
            foreground_mean(summary.per_image.get(name, NOTHING)) for name in ("hd95", "assd")
        )
        if hd95 >= 0:
            remarks.append(f"Hausdorff 95: {hd95:.2f} px, average surface distance {assd:.2f} px")
        if missed := int(summary.missed[1:].sum()):
            what = "classes in images" if len(summary.missed) > 2 else "images"
            remarks.append(f"{missed} {what} with foreground have none predicted")
        if empty := sum(not scores.present[1:].any() for scores in self.images):
            area = foreground_mean(summary.false_area)
            remarks.append(
                f"{empty} labels have no foreground (left out of the per-image Dice; "
                f'"empty = 1" counts them as 1 when nothing is predicted); '
                f"{area:.2%} of their pixels are false positives"
            )
        best = max(foreground_mean(b.summary.pooled["dice"]) for b in self.baselines)
        if foreground_mean(summary.pooled["dice"]) <= best:
            remarks.append("this run does NOT beat the best baseline: `tinyseg doctor` says why")
        return remarks


def _line(title: str, summary: Summary) -> str:
    pooled, per = summary.pooled, summary.per_image
    values = (pooled["dice"], pooled["iou"], per["dice"], per["iou"], per["dice_or_one"])
    a, b, c, d, e = (foreground_mean(value) for value in values)
    return f"{title[:27]:28}{a:8.4f}{b:7.4f}{c:11.4f}{d:7.4f}{e:13.4f}"
