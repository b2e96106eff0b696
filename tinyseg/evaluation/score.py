"""The one loop that scores: images to probabilities, masks and scores.

Validation, `evaluate`, cross-validation, `overfit`, the doctor and the report all read from it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tinyseg.common.arrays import Array
from tinyseg.data import Dataset, Sample
from tinyseg.inference.postprocess import Postprocess
from tinyseg.inference.predictor import predict_each, to_classes
from tinyseg.inference.run import Run
from tinyseg.metrics.summary import ImageScores, evaluate_image, foreground_mean
from tinyseg.metrics.threshold_curves import HALF

Predict = Callable[[Iterable[Array]], Iterator[Array]]
"""Images (H, W, C) to probabilities (K, H, W), in order."""
NO_POSTPROCESS = Postprocess()


class Scored(NamedTuple):
    """An image with what is predicted of it, and how good that is."""

    sample: Sample
    probability: Array
    """(K, H, W) float32."""
    mask: Array
    """(H, W) uint8 class ids, thresholded and post-processed."""
    scores: ImageScores

    @property
    def label(self) -> Array:
        """The label (H, W) of the sample."""
        return label_of(self.sample)

    @property
    def dice(self) -> float:
        """Mean Dice of the foreground classes; 0 where neither label nor mask has any."""
        value = foreground_mean(self.scores.values["dice"])
        return 0.0 if np.isnan(value) else value


def score(
    predict: Predict,
    samples: Iterable[Sample],
    classes: int,
    threshold: float = HALF,
    postprocess: Postprocess = NO_POSTPROCESS,
    surface: bool = False,
) -> Iterator[Scored]:
    """Yield each sample with its probabilities, mask and scores, in order.

    Samples are read as `predict` asks for them, a batch ahead at most. `surface` adds the surface
    distances, which take far longer than the rest.
    """
    for sample, p_khw in predict_each(predict, ((one, one.image) for one in samples)):
        yield score_image(sample, p_khw, classes, threshold, postprocess, surface)


def score_image(
    sample: Sample,
    p_khw: Array,
    classes: int,
    threshold: float = HALF,
    postprocess: Postprocess = NO_POSTPROCESS,
    surface: bool = False,
) -> Scored:
    """Return the mask and the scores of one sample with the probabilities predicted for it."""
    mask = postprocess(to_classes(p_khw, threshold))
    scores = evaluate_image(mask, label_of(sample), classes, surface=surface)
    return Scored(sample, p_khw, mask, scores)


def score_run(run: Run, dataset: Dataset, names: Sequence[str]) -> Iterator[Scored]:
    """Yield the scores of a run on images of a dataset, at its threshold and post-processed."""
    samples = load_samples(dataset, names)
    return score(run.predictor, samples, run.facts.classes, run.threshold, run.postprocess())


def load_samples(dataset: Dataset, names: Sequence[str]) -> Iterator[Sample]:
    """Yield the samples of a dataset with these names."""
    return (dataset[name] for name in names)


def label_of(sample: Sample) -> Array:
    """Return the label of a sample from a dataset that was opened with labels."""
    assert sample.label is not None
    return sample.label
