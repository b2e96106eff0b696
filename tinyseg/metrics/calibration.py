"""Expected calibration error and temperature, from histograms of probabilities."""

import numpy as np

from tinyseg.metrics.pixel import Counts, ratio
from tinyseg.metrics.threshold_curves import BINS

RELIABILITY_BINS = 16
MIDDLES = (np.arange(BINS) + 0.5) / BINS


def calibration_error(counts: Counts, temperature: float = 1.0) -> float:
    """Expected calibration error of the class's probability, of counts (2, BINS), in [0, 1].

    Naeini et al. 2015: pixels in 16 equal bins of the score; the mean over pixels of the bins'
    |mean score - share of foreground|. The score is the middle of its fine bin, which is off by
    1/2048 at most. Here it is that of the foreground's probability, not of the winning class.
    """
    from scipy.special import expit, logit

    rest, own = counts.astype(np.float64)
    score = expit(logit(MIDDLES) / temperature)
    bins = np.minimum((score * RELIABILITY_BINS).astype(np.int64), RELIABILITY_BINS - 1)
    gap = np.bincount(bins, (rest + own) * score - own, minlength=RELIABILITY_BINS)
    return float(ratio(np.abs(gap).sum(), (rest + own).sum()))


def fit_temperature(counts: Counts) -> float:
    """The temperature T for which sigmoid(logit(score) / T) is most likely, in [1/20, 20].

    Guo et al. 2017, on counts (2, BINS) with each score at the middle of its bin: scores nearer to
    0 or 1 than 1/2048 count as that. T > 1 tells of a network that is too sure. It leaves the order
    of the scores, so what is above the best threshold, as it is; it is for reading a probability as
    a frequency, and moves no decision here. nan where only one side has pixels.
    """
    from scipy.optimize import minimize_scalar  # 0.2 s, and most processes fit nothing
    from scipy.special import logit

    rest, own = counts.astype(np.float64)
    if not rest.any() or not own.any():
        return np.nan
    logits = logit(MIDDLES)

    def loss(log_temperature: float) -> float:
        z = logits / np.exp(log_temperature)
        return float(own @ np.logaddexp(0, -z) + rest @ np.logaddexp(0, z))

    limit = np.log(20)
    done = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-3})
    return float(np.exp(done.x))
