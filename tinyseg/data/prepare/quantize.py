"""Fewer colours: to n bits, or to a palette that k-means finds. NumPy only."""

import numpy as np

MOST = 1 << 15
"""Colours on which k-means runs, whatever the image's size: 5 bits for each of 3 channels."""
ROUNDS = 50
"""Most rounds of Lloyd's algorithm; it usually settles earlier."""
STARTS = 3
"""Times that k-means begins anew; the best is kept."""


def reduce_bits(image_hwc: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the upper `bits` of each channel, spread again from black to white."""
    levels = 1 << bits
    if image_hwc.dtype == np.uint8:
        table = np.rint((np.arange(256) >> (8 - bits)) * (255 / (levels - 1))).astype(np.uint8)
        return np.asarray(table[image_hwc])
    kept = np.minimum(np.floor(image_hwc * levels), levels - 1)
    return np.asarray(kept / (levels - 1), image_hwc.dtype)


def reduce_colors(image_hwc: np.ndarray, colors: int) -> np.ndarray:
    """Gives each pixel the nearest colour of a palette of at most `colors`, found by k-means.

    The palette has the image's own depth (16 bits for float32). Always the same for the same
    image: k-means++ starts from a fixed seed.
    """
    unit = 255 if image_hwc.dtype == np.uint8 else 65535
    whole = image_hwc if unit == 255 else np.rint(image_hwc * unit).astype(np.uint16)
    values, inverse, counts = _distinct(whole)
    points, weights = _merged(values, counts, unit)
    palette = np.unique(np.rint(k_means(points, weights, colors)), axis=0)
    found = palette[nearest(values, palette)][inverse].reshape(image_hwc.shape)
    return np.asarray(found if unit == 255 else found / unit, image_hwc.dtype)


def k_means(points: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """Centres (<= k, C) of weighted points (N, C): the best of some runs of Lloyd's algorithm."""
    rng = np.random.Generator(np.random.PCG64(0))
    runs = [_lloyd(points, weights, _spread(points, weights, k, rng)) for _ in range(STARTS)]
    return min(runs, key=lambda centres: inertia(points, weights, centres))


def inertia(points: np.ndarray, weights: np.ndarray, centres: np.ndarray) -> float:
    """The weighted sum of squared distances to the nearest centre."""
    near = centres[nearest(points, centres)]
    return float((((points - near) ** 2).sum(axis=1) * weights).sum())


def _lloyd(points: np.ndarray, weights: np.ndarray, centres: np.ndarray) -> np.ndarray:
    mine = nearest(points, centres)
    for _ in range(ROUNDS):
        mass = np.bincount(mine, weights, len(centres))
        sums = [np.bincount(mine, weights * values, len(centres)) for values in points.T]
        moved = np.stack(sums, axis=1) / np.maximum(mass, 1)[:, None]
        centres = np.where(mass[:, None] > 0, moved, centres)
        before, mine = mine, nearest(points, centres)
        if (before == mine).all():
            break
    return centres


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """For each point (N, C) the index of the centre (K, C) at the smallest distance, the first."""
    found, gap = np.zeros(len(points), np.intp), np.full(len(points), np.inf)
    for index, centre in enumerate(centres):
        other = squared_distance(points, centre)
        found[other < gap] = index
        np.minimum(gap, other, out=gap)
    return found


def squared_distance(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(N,) float64, summed channel by channel: no BLAS, so the same bits on every machine."""
    return np.asarray(sum((x - c) ** 2 for x, c in zip(points.T, centre, strict=True)))


def _spread(
    points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator
) -> np.ndarray:
    """k-means++ (Arthur & Vassilvitskii 2007): each centre is drawn by its squared distance."""
    chosen = [_draw(weights, rng)]
    gap = squared_distance(points, points[chosen[0]])
    while len(chosen) < k and gap.max() > 0:
        chosen.append(_draw(weights * gap, rng))
        gap = np.minimum(gap, squared_distance(points, points[chosen[-1]]))
    return points[chosen]


def _draw(mass: np.ndarray, rng: np.random.Generator) -> int:
    """An index, as probable as its mass."""
    sums = np.cumsum(mass)
    drawn = np.searchsorted(sums, rng.random() * sums[-1], side="right")
    return min(int(drawn), len(mass) - 1)


def _distinct(whole_hwc: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The colours of an image (N, C), for each pixel the index of its own, and their counts."""
    channels = whole_hwc.shape[2]
    shifts = 16 * np.arange(channels, dtype=np.uint64)
    keys = (whole_hwc.reshape(-1, channels).astype(np.uint64) << shifts).sum(axis=1)
    keys, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return (keys[:, None] >> shifts & np.uint64(0xFFFF)).astype(np.float64), inverse, counts


def _merged(values: np.ndarray, counts: np.ndarray, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """Too many colours are taken together where their upper bits agree, at their weighted mean."""
    if len(values) <= MOST:
        return values, counts.astype(np.float64)
    side = round(MOST ** (1 / values.shape[1]))
    bins = np.floor(values * (side / (unit + 1)))
    _, mine = np.unique(bins @ (side ** np.arange(bins.shape[1])), return_inverse=True)
    mass = np.bincount(mine, counts)
    means = [np.bincount(mine, counts * channel) / mass for channel in values.T]
    return np.stack(means, axis=1), mass
